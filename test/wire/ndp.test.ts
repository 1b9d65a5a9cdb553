import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { parseIpv6 } from '../../src/wire/bytes.ts';
import * as ndp from '../../src/wire/ndp.ts';
import {
  parseRouterAdvertisement,
  type RouterAdvertisement,
  writeRouterAdvertisement,
} from '../../src/wire/ra.ts';

const MAC = Uint8Array.of(0x52, 0x54, 0, 0x12, 0x34, 0x56);
const TARGET = parseIpv6('fe80::2') as Uint8Array;
const bytes = new Uint8Array(4096);

describe('neighbor discovery', () => {
  it('solicitations and advertisements go there and back', () => {
    const message = new ndp.NeighborMessage();
    expect(ndp.writeNeighborSolicitation(bytes, 1, TARGET, 0, MAC)).toBe(32);
    expect(message.parse(bytes, 1, 33, 255)).toBe(true);
    expect(message).toMatchObject({ isSolicitation: true, target: 9, linkAddress: 27, router: false });
    expect(bytes.subarray(27, 33)).toEqual(MAC);
    expect(ndp.writeNeighborSolicitation(bytes, 1, TARGET, 0, null)).toBe(24);
    expect(message.parse(bytes, 1, 25, 255)).toBe(true);
    expect(message.linkAddress).toBe(-1);
    for (const flags of [ndp.NA_ROUTER, ndp.NA_SOLICITED, ndp.NA_OVERRIDE]) {
      expect(ndp.writeNeighborAdvertisement(bytes, 0, flags, TARGET, 0, MAC, 0)).toBe(32);
      expect(message.parse(bytes, 0, 32, 255)).toBe(true);
      expect(message).toMatchObject({
        isSolicitation: false,
        router: flags === ndp.NA_ROUTER,
        solicited: flags === ndp.NA_SOLICITED,
        override: flags === ndp.NA_OVERRIDE,
        linkAddress: 26,
      });
    }
  });

  it('refuses what was routed, is short, asks for a group, or has a bad code', () => {
    const message = new ndp.NeighborMessage();
    ndp.writeNeighborSolicitation(bytes, 0, TARGET, 0, MAC);
    expect(message.parse(bytes, 0, 32, 254)).toBe(false);
    for (let end = 0; end < 24; end++) expect(message.parse(bytes, 0, end, 255)).toBe(false);
    for (let end = 25; end < 32; end++) expect(message.parse(bytes, 0, end, 255)).toBe(false);
    bytes[1] = 1;
    expect(message.parse(bytes, 0, 32, 255)).toBe(false);
    bytes[1] = 0;
    bytes[8] = 0xff;
    expect(message.parse(bytes, 0, 32, 255)).toBe(false);
  });

  it('router solicitations go there and back', () => {
    expect(ndp.writeRouterSolicitation(bytes, 0, MAC)).toBe(16);
    expect(ndp.parseRouterSolicitation(bytes, 0, 16, 255)).toBe(10);
    expect(ndp.parseRouterSolicitation(bytes, 0, 16, 64)).toBe(-2);
    expect(ndp.parseRouterSolicitation(bytes, 0, 15, 255)).toBe(-2);
    expect(ndp.writeRouterSolicitation(bytes, 0, null)).toBe(8);
    expect(ndp.parseRouterSolicitation(bytes, 0, 8, 255)).toBe(-1);
  });
});

describe('router advertisement', () => {
  const u32 = fc.integer({ min: 0, max: 0xffffffff });
  const address = fc.uint8Array({ minLength: 16, maxLength: 16 });
  const domain = fc
    .array(fc.stringMatching(/^[a-z]{1,9}$/), { minLength: 1, maxLength: 4 })
    .map((l) => l.join('.'));
  const advertisement: fc.Arbitrary<RouterAdvertisement> = fc.record({
    hopLimit: fc.nat(255),
    managed: fc.boolean(),
    other: fc.boolean(),
    lifetimeSeconds: fc.nat(0xffff),
    reachableMs: u32,
    retransMs: u32,
    routerMac: fc.option(fc.uint8Array({ minLength: 6, maxLength: 6 })),
    mtu: u32,
    prefixes: fc.array(
      fc.record({
        prefix: address,
        prefixLength: fc.nat(128),
        onLink: fc.boolean(),
        autonomous: fc.boolean(),
        validSeconds: u32,
        preferredSeconds: u32,
      }),
      { maxLength: 3 },
    ),
    dnsLifetimeSeconds: u32,
    dnsServers: fc.array(address, { maxLength: 4 }),
    searchDomains: fc.array(domain, { maxLength: 5 }),
  });

  it('goes there and back', () => {
    fc.assert(
      fc.property(advertisement, (ra) => {
        bytes.fill(0xee);
        const length = writeRouterAdvertisement(bytes, 5, bytes.length, ra);
        expect(length).toBeGreaterThanOrEqual(16);
        const told = ra.dnsServers.length + ra.searchDomains.length > 0;
        expect(parseRouterAdvertisement(bytes, 5, 5 + length, 255)).toEqual({
          ...ra,
          dnsLifetimeSeconds: told ? ra.dnsLifetimeSeconds : 0,
        });
        expect(writeRouterAdvertisement(bytes, 5, 5 + length - 1, ra)).toBe(-1);
        expect(parseRouterAdvertisement(bytes, 5, 5 + length, 64)).toBeNull();
        expect(parseRouterAdvertisement(bytes, 5, 5 + length - 1, 255)).toBeNull();
      }),
    );
  });

  it('refuses lists longer than an option can hold', () => {
    const ra = fc.sample(advertisement, 1)[0];
    const many = new Array(200).fill('twenty.character.name');
    expect(writeRouterAdvertisement(new Uint8Array(9000), 0, 9000, { ...ra, searchDomains: many })).toBe(-1);
    const servers = new Array(128).fill(TARGET);
    expect(writeRouterAdvertisement(new Uint8Array(9000), 0, 9000, { ...ra, dnsServers: servers })).toBe(-1);
  });
});
