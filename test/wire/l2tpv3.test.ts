import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { toHex } from '../../src/wire/bytes.ts';
import * as l2tp from '../../src/wire/l2tpv3.ts';

const BASE: l2tp.L2tpv3Config = {
  udp: false,
  cookieBytes: 0,
  counter: false,
  offsetBytes: 0,
  txSession: 0xffffffff,
  rxSession: 0xffffffff,
  txCookieHigh: 0x11223344,
  txCookieLow: 0xaabbccdd,
  rxCookieHigh: 0x11223344,
  rxCookieLow: 0xaabbccdd,
};

function header(config: Partial<l2tp.L2tpv3Config>): string {
  const layout = new l2tp.L2tpv3Header({ ...BASE, ...config });
  const bytes = new Uint8Array(300).fill(0xee);
  expect(layout.write(bytes, 0, 7)).toBe(layout.headerBytes);
  expect(bytes[layout.headerBytes]).toBe(0xee);
  return toHex(bytes, 0, layout.headerBytes);
}

describe('l2tpv3', () => {
  it.each([
    [{}, 'ffffffff'],
    [{ udp: true }, '00030000ffffffff'],
    [{ cookieBytes: 4 as const }, 'ffffffffaabbccdd'],
    [{ cookieBytes: 8 as const }, 'ffffffff11223344aabbccdd'],
    [{ counter: true }, 'ffffffff00000007'],
    [{ offsetBytes: 3 }, 'ffffffff000000'],
    [
      { udp: true, cookieBytes: 8 as const, counter: true, offsetBytes: 2 },
      '00030000ffffffff11223344aabbccdd000000070000',
    ],
  ])('the layout of %j', (config, expected) => expect(header(config)).toBe(expected));

  it('takes what it writes, and names what is wrong with anything else', () => {
    fc.assert(
      fc.property(
        fc.boolean(),
        fc.constantFrom(0 as const, 4 as const, 8 as const),
        fc.boolean(),
        fc.nat(255),
        fc.nat(1000),
        (udp, cookieBytes, counter, offsetBytes, bit) => {
          const layout = new l2tp.L2tpv3Header({ ...BASE, udp, cookieBytes, counter, offsetBytes });
          const bytes = new Uint8Array(400).fill(0xee);
          const end = 5 + layout.write(bytes, 5, 0xfedcba98);
          expect(layout.check(bytes, 5, end)).toBe(l2tp.L2TPV3_OK);
          expect(layout.counter(bytes, 5)).toBe(counter ? 0xfedcba98 : 0);
          expect(layout.check(bytes, 5, end - 1)).toBe(l2tp.L2TPV3_SHORT);
          // Any one bit of session and cookie counts.
          const session = udp ? 4 : 0;
          const at = bit % ((4 + cookieBytes) * 8);
          bytes[5 + session + (at >> 3)] ^= 1 << (at & 7);
          expect(layout.check(bytes, 5, end)).toBe(
            at < 32 ? l2tp.L2TPV3_BAD_SESSION : l2tp.L2TPV3_BAD_COOKIE,
          );
        },
      ),
    );
  });

  it('control messages and other versions are no data', () => {
    const layout = new l2tp.L2tpv3Header({ ...BASE, udp: true });
    const bytes = new Uint8Array(8);
    layout.write(bytes, 0, 0);
    bytes[0] = 0x80;
    expect(layout.check(bytes, 0, 8)).toBe(l2tp.L2TPV3_BAD_TYPE);
    bytes[0] = 0x40; // reserved: ignored
    expect(layout.check(bytes, 0, 8)).toBe(l2tp.L2TPV3_OK);
    bytes[1] = 2;
    expect(layout.check(bytes, 0, 8)).toBe(l2tp.L2TPV3_BAD_TYPE);
  });
});
