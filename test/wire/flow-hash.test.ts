import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { fromHex, parseIpv4, parseIpv6, putU16be } from '../../src/wire/bytes.ts';
import { ToeplitzHash } from '../../src/wire/flow-hash.ts';
import { SipHash } from '../../src/wire/siphash.ts';

/** The key and the tuples of Microsoft's published "Verifying the RSS Hash Calculation". */
const KEY = fromHex(
  '6d5a56da255b0ec24167253d43a38fb0d0ca2bcbae7b30b477cb2da38030f20c6a42b73bbeac01fa',
) as Uint8Array;

const V4: [string, number, string, number, number, number][] = [
  ['66.9.149.187', 2794, '161.142.100.80', 1766, 0x323e8fc2, 0x51ccc178],
  ['199.92.111.2', 14230, '65.69.140.83', 4739, 0xd718262a, 0xc626b0ea],
  ['24.19.198.95', 12898, '12.22.207.184', 38024, 0xd2d0a5de, 0x5c2b394a],
  ['38.27.205.30', 48228, '209.142.163.6', 2217, 0x82989176, 0xafc7327f],
  ['153.39.163.191', 44251, '202.188.127.2', 1303, 0x5d1809c5, 0x10e828a2],
];

const V6: [string, number, string, number, number, number][] = [
  ['3ffe:2501:200:1fff::7', 2794, '3ffe:2501:200:3::1', 1766, 0x2cc18cd5, 0x40207d3d],
  ['3ffe:501:8::260:97ff:fe40:efab', 14230, 'ff02::1', 4739, 0x0f0c461c, 0xdde51bbf],
  ['3ffe:1900:4545:3:200:f8ff:fe21:67cf', 44251, 'fe80::200:f8ff:fe21:67cf', 38024, 0x4b61e985, 0x02d1feef],
];

/** Bit by bit, the key shifted along. */
function naiveToeplitz(key: Uint8Array, input: Uint8Array): number {
  let window = BigInt(`0x${Array.from(key, (byte) => byte.toString(16).padStart(2, '0')).join('')}`);
  const bits = BigInt(key.length * 8);
  let hash = 0n;
  for (const byte of input) {
    for (let bit = 7; bit >= 0; bit--) {
      if ((byte >> bit) & 1) hash ^= window >> (bits - 32n);
      window = (window << 1n) & ((1n << bits) - 1n);
    }
  }
  return Number(hash);
}

describe('toeplitz', () => {
  const toeplitz = new ToeplitzHash(KEY);

  it.each(V4)('%s:%i to %s:%i', (src, srcPort, dst, dstPort, addresses, ports) => {
    expect(toeplitz.hashV4(parseIpv4(src), parseIpv4(dst))).toBe(addresses);
    expect(toeplitz.hashV4Ports(parseIpv4(src), parseIpv4(dst), srcPort, dstPort)).toBe(ports);
  });

  it.each(V6)('%s:%i to %s:%i', (src, srcPort, dst, dstPort, addresses, ports) => {
    const input = new Uint8Array(37);
    input.set(parseIpv6(src) as Uint8Array, 1);
    input.set(parseIpv6(dst) as Uint8Array, 17);
    expect(toeplitz.hashV6(input, 1)).toBe(addresses);
    expect(toeplitz.hashV6Ports(input, 1, srcPort, dstPort)).toBe(ports);
    putU16be(input, 33, srcPort);
    putU16be(input, 35, dstPort);
    expect(toeplitz.hash(input, 1, 36)).toBe(ports);
  });

  it('agrees with the naive twin for any key and input', () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ minLength: 40, maxLength: 40 }),
        fc.uint8Array({ maxLength: 36 }),
        (key, input) => {
          expect(new ToeplitzHash(key).hash(input, 0, input.length)).toBe(naiveToeplitz(key, input));
        },
      ),
      { numRuns: 30 },
    );
  });

  it('ignores input past 36 bytes, and forgives a short key', () => {
    expect(toeplitz.hash(new Uint8Array(100).fill(255), 0, 100)).toBe(
      toeplitz.hash(new Uint8Array(36).fill(255), 0, 36),
    );
    expect(new ToeplitzHash(new Uint8Array(0)).hashV4(1, 2)).toBe(0);
  });
});

/** The outputs of the reference implementation for the key 00..0f and the inputs '', 00, 00 01, … */
const SIPHASH =
  `310e0edd47db6f72 fd67dc93c539f874 5a4fa9d909806c0d 2d7efbd796666785 b7877127e09427cf 8da699cd64557618
  cee3fe586e46c9cb 37d1018bf50002ab 6224939a79f5f593 b0e4a90bdf82009e f3b9dd94c5bb5d7a a7ad6b22462fb3f4
  fbe50e86bc8f1e75 903d84c02756ea14 eef27a8e90ca23f7 e545be4961ca29a1`.split(/\s+/);

const MASK = (1n << 64n) - 1n;
const rotl = (value: bigint, bits: bigint) => ((value << bits) | (value >> (64n - bits))) & MASK;

/** With 64-bit words, as the paper writes it. */
function naiveSipHash(key: Uint8Array, input: Uint8Array): bigint {
  const word = (bytes: Uint8Array, at: number) =>
    new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(at, true);
  const k0 = word(key, 0);
  const k1 = word(key, 8);
  let v0 = k0 ^ 0x736f6d6570736575n;
  let v1 = k1 ^ 0x646f72616e646f6dn;
  let v2 = k0 ^ 0x6c7967656e657261n;
  let v3 = k1 ^ 0x7465646279746573n;
  const round = () => {
    v0 = (v0 + v1) & MASK;
    v1 = rotl(v1, 13n) ^ v0;
    v0 = rotl(v0, 32n);
    v2 = (v2 + v3) & MASK;
    v3 = rotl(v3, 16n) ^ v2;
    v0 = (v0 + v3) & MASK;
    v3 = rotl(v3, 21n) ^ v0;
    v2 = (v2 + v1) & MASK;
    v1 = rotl(v1, 17n) ^ v2;
    v2 = rotl(v2, 32n);
  };
  const padded = new Uint8Array((input.length & ~7) + 8);
  padded.set(input);
  padded[padded.length - 1] = input.length;
  for (let at = 0; at < padded.length; at += 8) {
    v3 ^= word(padded, at);
    round();
    round();
    v0 ^= word(padded, at);
  }
  v2 ^= 0xffn;
  for (let i = 0; i < 4; i++) round();
  return v0 ^ v1 ^ v2 ^ v3;
}

describe('siphash', () => {
  it('gives the published values', () => {
    const hash = new SipHash(Uint8Array.from({ length: 16 }, (_, i) => i));
    const input = Uint8Array.from({ length: 20 }, (_, i) => i - 3);
    SIPHASH.forEach((expected, length) => {
      hash.hash(input, 3, length);
      const bytes = new Uint8Array(8);
      const view = new DataView(bytes.buffer);
      view.setUint32(0, hash.low, true);
      view.setUint32(4, hash.high, true);
      expect(bytes).toEqual(fromHex(expected));
    });
  });

  it('agrees with the naive twin for any key and input', () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ minLength: 16, maxLength: 16 }),
        fc.uint8Array({ maxLength: 300 }),
        (key, input) => {
          const hash = new SipHash(key);
          const low = hash.hash(input, 0, input.length);
          expect(low).toBe(hash.low);
          expect((BigInt(hash.high) << 32n) | BigInt(low)).toBe(naiveSipHash(key, input));
        },
      ),
    );
  });
});
