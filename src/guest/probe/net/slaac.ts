/**
 * The IPv6 addresses, prefixes, routers and resolvers of the host, as stateless autoconfiguration gives them (RFC 4862, RFC 4861 section 6.3,
 * RFC 8106): a link-local address from the MAC, one address for each autonomous /64 prefix a router advertises, each tested for a second
 * before it is used. Routers are asked for at once and then every 4 s, three times in all, from `::` while our own address is being tested.
 * DHCPv6 is not spoken; an advertisement that demands it (managed) is told.
 */

import type { Loop, Timer } from '../../../core/loop.ts';
import { copyBytes, equalBytes } from '../../../wire/bytes.ts';
import {
  IPV6_ADDRESS_BYTES,
  isLinkLocalIpv6,
  isMulticastIpv6,
  writeInterfaceId,
  writeSolicitedNode,
} from '../../../wire/ipv6.ts';
import type { RaPrefix, RouterAdvertisement } from '../../../wire/ra.ts';

export const UNSPECIFIED = new Uint8Array(IPV6_ADDRESS_BYTES);
export const ALL_NODES = group(1);
export const ALL_ROUTERS = group(2);

const SOLICITATIONS = 3;
const SOLICIT_NS = 4e9;
const TEST_NS = 1e9;
const TWO_HOURS_NS = 7200e9;
const PREFIXES_MAX = 8;
const ROUTERS_MAX = 4;
const FOREVER = 0xffffffff;

function group(last: number): Uint8Array {
  const address = new Uint8Array(IPV6_ADDRESS_BYTES);
  address[0] = 0xff;
  address[1] = 2;
  address[15] = last;
  return address;
}

/** The solicited-node group of an address. */
export function solicitedNode(address: Uint8Array): Uint8Array {
  const out = new Uint8Array(IPV6_ADDRESS_BYTES);
  writeSolicitedNode(out, 0, address, 0);
  return out;
}

interface OwnAddress {
  readonly address: Uint8Array;
  readonly linkLocal: boolean;
  readonly prefixLength: number;
  /** Being tested until then; 0: in use. */
  testedNs: number;
  validUntilNs: number;
}

interface OnLink {
  readonly prefix: Uint8Array;
  readonly length: number;
  untilNs: number;
}

export interface SlaacOwner {
  solicitRouters(): void;
  /** Asks on the link whether anybody has the address. */
  probe(address: Uint8Array): void;
  mtu(bytes: number): void;
}

export interface SlaacEvents {
  /** An address passed its test and may be used. `router` is the link-local address of who advertised its prefix. */
  assigned(address: Uint8Array, prefixLength: number, linkLocal: boolean): void;
  /** Somebody else has the address: it is not used. */
  duplicate(address: Uint8Array): void;
  /** An advertisement came (its prefixes are being taken up). */
  advertised(router: Uint8Array, ra: RouterAdvertisement): void;
  /** Nobody answered the router solicitations. */
  noRouter(): void;
}

export class Slaac {
  events: SlaacEvents | null = null;
  /** Resolvers told by advertisements. */
  dnsServers: Uint8Array[] = [];

  readonly #loop: Loop;
  readonly #mac: Uint8Array;
  readonly #owner: SlaacOwner;
  readonly #own: OwnAddress[] = [];
  readonly #onLink: OnLink[] = [];
  readonly #routers: { address: Uint8Array; untilNs: number }[] = [];
  readonly #solicitTimer: Timer;
  readonly #testTimer: Timer;
  #solicited = 0;
  #heardRouter = false;

  constructor(loop: Loop, mac: Uint8Array, owner: SlaacOwner) {
    this.#loop = loop;
    this.#mac = mac;
    this.#owner = owner;
    this.#solicitTimer = loop.timer(() => this.#solicit());
    this.#testTimer = loop.timer(() => this.#tested());
  }

  /** The link came up: everything from the start. */
  start(): void {
    this.stop();
    const address = new Uint8Array(IPV6_ADDRESS_BYTES);
    address[0] = 0xfe;
    address[1] = 0x80;
    writeInterfaceId(address, 8, this.#mac, 0);
    this.#test(address, 64, true, Number.POSITIVE_INFINITY);
    this.#solicit();
  }

  stop(): void {
    this.#solicitTimer.cancel();
    this.#testTimer.cancel();
    this.#own.length = 0;
    this.#onLink.length = 0;
    this.#routers.length = 0;
    this.#solicited = 0;
    this.#heardRouter = false;
    this.dnsServers = [];
  }

  close(): void {
    this.stop();
    this.events = null;
  }

  /** Our link-local address once it is tested. */
  get linkLocal(): Uint8Array | null {
    for (const own of this.#own) if (own.linkLocal && own.testedNs === 0) return own.address;
    return null;
  }

  /** The newest tested global address that is still valid. */
  get globalAddress(): Uint8Array | null {
    const nowNs = this.#loop.clock.nowNs();
    for (let i = this.#own.length - 1; i >= 0; i--) {
      const own = this.#own[i];
      if (!own.linkLocal && own.testedNs === 0 && own.validUntilNs > nowNs) return own.address;
    }
    return null;
  }

  /** The router to send by, or null. */
  get router(): Uint8Array | null {
    const nowNs = this.#loop.clock.nowNs();
    for (const router of this.#routers) if (router.untilNs > nowNs) return router.address;
    return null;
  }

  sourceFor(remote: Uint8Array): Uint8Array | null {
    const scoped = isLinkLocalIpv6(remote, 0) || (isMulticastIpv6(remote, 0) && (remote[1] & 15) <= 2);
    return scoped ? this.linkLocal : (this.globalAddress ?? this.linkLocal);
  }

  /** The neighbour to hand a packet for `remote` to; null: no route. */
  nextHop(remote: Uint8Array): Uint8Array | null {
    if (isLinkLocalIpv6(remote, 0)) return remote;
    const nowNs = this.#loop.clock.nowNs();
    for (const prefix of this.#onLink) {
      if (prefix.untilNs > nowNs && inPrefix(remote, prefix.prefix, prefix.length)) return remote;
    }
    return this.router;
  }

  /** Our own copy of the address at `bytes[offset..]` if it is ours and tested. */
  ownAt(bytes: Uint8Array, offset: number): Uint8Array | null {
    for (const own of this.#own) {
      if (own.testedNs === 0 && equalBytes(own.address, 0, bytes, offset, IPV6_ADDRESS_BYTES))
        return own.address;
    }
    return null;
  }

  isAssigned(bytes: Uint8Array, offset: number): boolean {
    return this.ownAt(bytes, offset) !== null;
  }

  /** Ours, tested or being tested. */
  isOurs(bytes: Uint8Array, offset: number): boolean {
    for (const own of this.#own)
      if (equalBytes(own.address, 0, bytes, offset, IPV6_ADDRESS_BYTES)) return true;
    return false;
  }

  /** ff02::1, or the solicited-node group of one of our addresses. */
  inGroup(bytes: Uint8Array, offset: number): boolean {
    if (equalBytes(ALL_NODES, 0, bytes, offset, IPV6_ADDRESS_BYTES)) return true;
    for (const own of this.#own) {
      // ff02::1:ffXX:XXXX
      if (
        bytes[offset + 11] === 1 &&
        bytes[offset + 12] === 0xff &&
        equalBytes(own.address, 13, bytes, offset + 13, 3)
      )
        return true;
    }
    return false;
  }

  /** Somebody shows that an address is theirs; true when it is one that we are testing, which is given up. */
  conflict(bytes: Uint8Array, offset: number): boolean {
    const at = this.#own.findIndex(
      (own) => own.testedNs !== 0 && equalBytes(own.address, 0, bytes, offset, IPV6_ADDRESS_BYTES),
    );
    if (at < 0) return false;
    const [own] = this.#own.splice(at, 1);
    this.events?.duplicate(own.address);
    return true;
  }

  /** A valid advertisement arrived from the link-local address `router`. */
  advertised(router: Uint8Array, ra: RouterAdvertisement): void {
    const nowNs = this.#loop.clock.nowNs();
    this.#heardRouter = true;
    this.#solicitTimer.cancel();
    const at = this.#routers.findIndex((known) =>
      equalBytes(known.address, 0, router, 0, IPV6_ADDRESS_BYTES),
    );
    if (at >= 0) this.#routers.splice(at, 1);
    if (ra.lifetimeSeconds > 0 && this.#routers.length < ROUTERS_MAX) {
      this.#routers.push({ address: router, untilNs: nowNs + ra.lifetimeSeconds * 1e9 });
    }
    if (ra.mtu !== 0) this.#owner.mtu(ra.mtu);
    if (ra.dnsServers.length > 0)
      this.dnsServers = ra.dnsLifetimeSeconds === 0 ? [] : ra.dnsServers.slice(0, 3);
    this.events?.advertised(router, ra);
    for (const prefix of ra.prefixes) this.#prefix(prefix, nowNs);
  }

  #prefix(prefix: RaPrefix, nowNs: number): void {
    if (isLinkLocalIpv6(prefix.prefix, 0) || isMulticastIpv6(prefix.prefix, 0)) return;
    const untilNs =
      prefix.validSeconds === FOREVER ? Number.POSITIVE_INFINITY : nowNs + prefix.validSeconds * 1e9;
    if (prefix.onLink) this.#learnOnLink(prefix, untilNs);
    // An interface identifier is 64 bits long: any other prefix is not for this (RFC 4862 section 5.5.3 (d)).
    if (!prefix.autonomous || prefix.prefixLength !== 64 || prefix.preferredSeconds > prefix.validSeconds)
      return;
    const own = this.#own.find(
      (known) => !known.linkLocal && equalBytes(known.address, 0, prefix.prefix, 0, 8),
    );
    if (own === undefined) {
      if (prefix.validSeconds === 0 || this.#own.length > PREFIXES_MAX) return;
      const address = new Uint8Array(IPV6_ADDRESS_BYTES);
      copyBytes(address, 0, prefix.prefix, 0, 8);
      writeInterfaceId(address, 8, this.#mac, 0);
      this.#test(address, 64, false, untilNs);
      return;
    }
    // RFC 4862 section 5.5.3 (e): an advertisement cannot cut a lifetime below two hours.
    if (untilNs > nowNs + TWO_HOURS_NS || untilNs > own.validUntilNs) own.validUntilNs = untilNs;
    else if (own.validUntilNs > nowNs + TWO_HOURS_NS) own.validUntilNs = nowNs + TWO_HOURS_NS;
  }

  #learnOnLink(prefix: RaPrefix, untilNs: number): void {
    for (const known of this.#onLink) {
      if (known.length === prefix.prefixLength && inPrefix(known.prefix, prefix.prefix, known.length)) {
        known.untilNs = untilNs;
        return;
      }
    }
    if (this.#onLink.length >= PREFIXES_MAX) return;
    this.#onLink.push({ prefix: prefix.prefix, length: prefix.prefixLength, untilNs });
  }

  #test(address: Uint8Array, prefixLength: number, linkLocal: boolean, validUntilNs: number): void {
    const testedNs = this.#loop.clock.nowNs() + TEST_NS;
    this.#own.push({ address, linkLocal, prefixLength, testedNs, validUntilNs });
    this.#owner.probe(address);
    if (!this.#testTimer.armed) this.#testTimer.arm(testedNs);
  }

  #tested(): void {
    const nowNs = this.#loop.clock.nowNs();
    let nextNs = Number.POSITIVE_INFINITY;
    for (const own of this.#own.slice()) {
      if (own.testedNs === 0) continue;
      if (own.testedNs > nowNs) {
        nextNs = Math.min(nextNs, own.testedNs);
        continue;
      }
      own.testedNs = 0;
      this.events?.assigned(own.address, own.prefixLength, own.linkLocal);
    }
    this.#testTimer.arm(nextNs);
  }

  #solicit(): void {
    if (this.#solicited === SOLICITATIONS) {
      if (!this.#heardRouter) this.events?.noRouter();
      return;
    }
    this.#solicited++;
    this.#owner.solicitRouters();
    this.#solicitTimer.armIn(SOLICIT_NS);
  }
}

function inPrefix(address: Uint8Array, prefix: Uint8Array, length: number): boolean {
  const whole = length >>> 3;
  if (!equalBytes(address, 0, prefix, 0, whole)) return false;
  const rest = length & 7;
  return rest === 0 || ((address[whole] ^ prefix[whole]) & (0xff00 >>> rest) & 0xff) === 0;
}
