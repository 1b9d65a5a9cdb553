/** The offload routine against a naive twin that works on whole byte arrays, and against facts that lie. */
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import {
  CSUM_OFFSET,
  CSUM_START,
  FACT_CSUM_VALID,
  FACT_NEEDS_CSUM,
  FACTS,
  FramePool,
  GSO_ECN,
  GSO_SIZE,
  GSO_TCPV4,
  GSO_TCPV6,
  GSO_UDP,
  GSO_UDP_L4,
  HEADER_LENGTH,
  OFFSET,
} from '../../src/core/pool.ts';
import { ACCEPT_ALL, ACCEPT_CSUM, ACCEPT_ECN, ACCEPT_TSO4 } from '../../src/core/port.ts';
import {
  adapt,
  BAD_IP,
  BAD_L4,
  CHECKED_IP,
  CHECKED_L4,
  HeaderLayout,
  isPlainTcp4,
  verifyFrame,
  verifyPlainTcp4,
} from '../../src/nic/offload.ts';

interface Shape {
  version: 4 | 6;
  protocol: 6 | 17;
  tags: number;
  ipOptions: number;
  tcpOptions: number;
  payload: number;
  flags: number;
}

/** The ones' complement sum of a byte array, the slow way. */
function naiveSum(bytes: number[]): number {
  let sum = 0;
  for (let i = 0; i < bytes.length; i += 2) {
    sum += (bytes[i]! << 8) | (bytes[i + 1] ?? 0);
    if (sum > 0xffff) sum = (sum & 0xffff) + 1;
  }
  return sum;
}

const be16 = (value: number): number[] => [(value >> 8) & 255, value & 255];
const be32 = (value: number): number[] => [...be16(value >>> 16), ...be16(value)];

/** Builds one whole packet with right lengths and checksums. `part` and `index` say which piece of the payload it carries. */
function naivePacket(
  shape: Shape,
  start: number,
  end: number,
  id: number,
  sequence: number,
  flags: number,
): number[] {
  const payload = Array.from({ length: end - start }, (_, i) => ((start + i) * 13 + 5) & 255);
  const ethernet = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
  for (let i = 0; i < shape.tags; i++) ethernet.push(0x81, 0, 0, 5 + i);
  ethernet.push(...(shape.version === 4 ? [8, 0] : [0x86, 0xdd]));
  const l4: number[] = [...be16(1234), ...be16(80)];
  if (shape.protocol === 6) {
    l4.push(
      ...be32(sequence),
      ...be32(99),
      ((20 + shape.tcpOptions) / 4) << 4,
      flags,
      ...be16(500),
      0,
      0,
      0,
      0,
    );
    for (let i = 0; i < shape.tcpOptions; i++) l4.push(1);
  } else {
    l4.push(...be16(8 + payload.length), 0, 0);
  }
  const addresses =
    shape.version === 4
      ? [10, 0, 2, 15, 10, 0, 2, 2]
      : [...Array.from({ length: 32 }, (_, i) => (i * 7) & 255)];
  const l4Length = l4.length + payload.length;
  const pseudo =
    shape.version === 4
      ? [...addresses, 0, shape.protocol, ...be16(l4Length)]
      : [...addresses, ...be32(l4Length), 0, 0, 0, shape.protocol];
  const checksum = ~naiveSum([...pseudo, ...l4, ...payload]) & 0xffff;
  const at = shape.protocol === 6 ? 16 : 6;
  const stored = checksum === 0 && shape.protocol === 17 ? 0xffff : checksum;
  l4.splice(at, 2, ...be16(stored));
  let ip: number[];
  if (shape.version === 4) {
    const headerBytes = 20 + shape.ipOptions;
    ip = [
      0x40 | (headerBytes / 4),
      0,
      ...be16(headerBytes + l4Length),
      ...be16(id),
      0x40,
      0,
      64,
      shape.protocol,
      0,
      0,
    ];
    ip.push(...addresses);
    for (let i = 0; i < shape.ipOptions; i++) ip.push(1);
    ip.splice(10, 2, ...be16(~naiveSum(ip) & 0xffff));
  } else {
    ip = [0x60, 0, 0, 0, ...be16(l4Length), shape.protocol, 64, ...addresses];
  }
  return [...ethernet, ...ip, ...l4, ...payload];
}

/** What a driver hands over: the same packet with only the pseudo header in its checksum field. */
function unfinished(
  shape: Shape,
  id: number,
  sequence: number,
): { bytes: Uint8Array; l4: number; header: number } {
  const bytes = naivePacket(shape, 0, shape.payload, id, sequence, shape.flags);
  const ip = 14 + 4 * shape.tags;
  const l4 = ip + (shape.version === 4 ? 20 + shape.ipOptions : 40);
  const l4Length = bytes.length - l4;
  const addresses = shape.version === 4 ? bytes.slice(ip + 12, ip + 20) : bytes.slice(ip + 8, ip + 40);
  const partial = naiveSum([...addresses, 0, shape.protocol, ...be32(l4Length)]);
  bytes.splice(l4 + (shape.protocol === 6 ? 16 : 6), 2, ...be16(partial));
  return {
    bytes: Uint8Array.from(bytes),
    l4,
    header: l4 + (shape.protocol === 6 ? 20 + shape.tcpOptions : 8),
  };
}

const shapes = fc.record({
  version: fc.constantFrom<4 | 6>(4, 6),
  protocol: fc.constantFrom<6 | 17>(6, 17),
  tags: fc.integer({ min: 0, max: 2 }),
  ipOptions: fc.constantFrom(0, 4, 40),
  tcpOptions: fc.constantFrom(0, 12, 40),
  payload: fc.oneof(fc.integer({ min: 1, max: 4000 }), fc.integer({ min: 1, max: 60_000 })),
  flags: fc.constantFrom(0x10, 0x18, 0x19, 0x90, 0x99),
});

let pool: FramePool;
const out = new Int32Array(2048);
let region = 0;
let ram: Uint8Array;

beforeEach(() => {
  pool = new FramePool({ smallSlots: 2100, largeSlots: 48, bareRecords: 64, debug: true });
  ram = new Uint8Array(1 << 17);
  region = pool.addRegion(ram);
});

afterEach(() => {
  expect(pool.free).toBe(pool.capacity);
  expect(pool.freeBare).toBe(64);
});

/** A frame with these bytes, cut into a private head and borrowed pieces of `cut` bytes when given. */
function frameOf(bytes: Uint8Array, cut: number): number {
  if (cut === 0 || bytes.length <= 200) return pool.from(bytes);
  const frame = pool.from(bytes, 0, 200);
  let tail = frame;
  // Fifty pieces at most, at odd places.
  const step = Math.max(cut, Math.ceil((bytes.length - 200) / 50));
  for (let at = 200; at < bytes.length; at += step) {
    const length = Math.min(step, bytes.length - at);
    const place = at + 3 * Math.floor(at / step);
    ram.set(bytes.subarray(at, at + length), place);
    tail = pool.borrow(frame, tail, region, place, length);
  }
  return frame;
}

function setFacts(
  frame: number,
  facts: number,
  size: number,
  header: number,
  start: number,
  offset: number,
): void {
  const t = pool.table;
  t[frame + FACTS] = facts;
  t[frame + GSO_SIZE] = size;
  t[frame + HEADER_LENGTH] = header;
  t[frame + CSUM_START] = start;
  t[frame + CSUM_OFFSET] = offset;
}

function take(count: number): Uint8Array[] {
  const list: Uint8Array[] = [];
  for (let i = 0; i < count; i++) {
    expect(pool.table[out[i]! + FACTS]).toBe(FACT_CSUM_VALID);
    list.push(pool.toBytes(out[i]!));
    pool.release(out[i]!);
  }
  return list;
}

describe('adapt, against a naive twin', () => {
  it('fills checksums', () => {
    fc.assert(
      fc.property(shapes, fc.integer({ min: 0, max: 3000 }), (shape, cut) => {
        const { bytes, l4 } = unfinished(shape, 7, 1000);
        const frame = frameOf(bytes, cut);
        setFacts(frame, FACT_NEEDS_CSUM, 0, 0, l4, shape.protocol === 6 ? 16 : 6);
        expect(adapt(pool, frame, 0, out)).toBe(1);
        const expected = naivePacket(shape, 0, shape.payload, 7, 1000, shape.flags);
        const [got] = take(1);
        // Ones' complement zero has two faces; either is right on the wire, and UDP must not send 0.
        const at = l4 + (shape.protocol === 6 ? 16 : 6);
        if (expected[at] === 0 && expected[at + 1] === 0) expected.splice(at, 2, 0xff, 0xff);
        expect(got!.findIndex((byte, i) => byte !== expected[i])).toBe(-1);
        expect(got!.length).toBe(expected.length);
      }),
      { numRuns: 150 },
    );
  });

  it('cuts TCP over IPv4 and IPv6, and UDP datagrams, into packets', () => {
    fc.assert(
      fc.property(
        shapes,
        fc.integer({ min: 40, max: 9000 }),
        fc.integer({ min: 0, max: 4000 }),
        fc.integer({ min: 0, max: 2 ** 32 - 1 }),
        (shape, size, cut, sequence) => {
          fc.pre(Math.ceil(shape.payload / size) <= 1500);
          const { bytes, l4, header } = unfinished(shape, 65_530, sequence);
          const frame = frameOf(bytes, cut);
          const isTcp = shape.protocol === 6;
          let type = isTcp ? (shape.version === 4 ? GSO_TCPV4 : GSO_TCPV6) : GSO_UDP_L4;
          if (isTcp && (shape.flags & 0x80) !== 0) type |= GSO_ECN;
          setFacts(frame, FACT_NEEDS_CSUM | (type << 8), size, header, l4, isTcp ? 16 : 6);
          const pieces = Math.ceil(shape.payload / size);
          expect(adapt(pool, frame, ACCEPT_CSUM, out)).toBe(pieces);
          for (const [i, got] of take(pieces).entries()) {
            let flags = shape.flags;
            if (i > 0) flags &= ~0x80;
            if (i < pieces - 1) flags &= ~0x09;
            const end = Math.min(shape.payload, (i + 1) * size);
            const expected = naivePacket(
              shape,
              i * size,
              end,
              (65_530 + i) & 0xffff,
              (sequence + i * size) >>> 0,
              flags,
            );
            expect(got.length).toBe(expected.length);
            expect(got.findIndex((byte, k) => byte !== expected[k])).toBe(-1);
          }
        },
      ),
      { numRuns: 100 },
    );
  });

  it('fragments a UDP datagram (UFO), whose payload and checksum come together again', () => {
    for (const version of [4, 6] as const) {
      const shape: Shape = {
        version,
        protocol: 17,
        tags: 1,
        ipOptions: 0,
        tcpOptions: 0,
        payload: 5000,
        flags: 0,
      };
      const { bytes, l4, header } = unfinished(shape, 7, 0);
      const frame = frameOf(bytes, 700);
      setFacts(frame, FACT_NEEDS_CSUM | (GSO_UDP << 8), 1480, header, l4, 6);
      const count = adapt(pool, frame, 0, out);
      expect(count).toBe(4);
      const whole = naivePacket(shape, 0, 5000, 7, 0, 0);
      const payload: number[] = [];
      for (const piece of take(count)) {
        const ip = 18;
        const data = version === 4 ? ip + 20 : ip + 48;
        const field =
          version === 4 ? (piece[ip + 6]! << 8) | piece[ip + 7]! : (piece[ip + 42]! << 8) | piece[ip + 43]!;
        const offset = version === 4 ? (field & 0x1fff) * 8 : field & 0xfff8;
        const more = version === 4 ? (field & 0x2000) !== 0 : (field & 1) !== 0;
        expect(offset).toBe(payload.length);
        expect(more).toBe(offset + 1480 < 5008);
        if (version === 4) {
          expect(naiveSum([...piece.subarray(ip, ip + 20)])).toBe(0xffff);
          expect((piece[ip + 2]! << 8) | piece[ip + 3]!).toBe(piece.length - ip);
        } else {
          expect(piece[ip + 6]).toBe(44);
          expect(piece[ip + 40]).toBe(17);
        }
        payload.push(...piece.subarray(data));
      }
      expect(payload).toEqual(whole.slice(l4));
    }
  });

  it('leaves alone what the client accepts', () => {
    const shape: Shape = {
      version: 4,
      protocol: 6,
      tags: 0,
      ipOptions: 0,
      tcpOptions: 0,
      payload: 5000,
      flags: 0x90,
    };
    const { bytes, l4, header } = unfinished(shape, 7, 1);
    for (const [accepts, same] of [
      [ACCEPT_ALL, true],
      [ACCEPT_CSUM | ACCEPT_TSO4 | ACCEPT_ECN, true],
      [ACCEPT_CSUM | ACCEPT_TSO4, false],
      [ACCEPT_TSO4 | ACCEPT_ECN, false],
    ] as const) {
      const frame = frameOf(bytes, 0);
      setFacts(frame, FACT_NEEDS_CSUM | ((GSO_TCPV4 | GSO_ECN) << 8), 1460, header, l4, 16);
      const count = adapt(pool, frame, accepts, out);
      expect(count === 1 && out[0] === frame).toBe(same);
      pool.releaseAll(out, 0, count);
    }
  });

  it('never writes into a shared frame', () => {
    const shape: Shape = {
      version: 4,
      protocol: 6,
      tags: 0,
      ipOptions: 0,
      tcpOptions: 0,
      payload: 100,
      flags: 0x10,
    };
    const { bytes, l4 } = unfinished(shape, 7, 1);
    const frame = frameOf(bytes, 0);
    setFacts(frame, FACT_NEEDS_CSUM, 0, 0, l4, 16);
    pool.retain(frame);
    expect(adapt(pool, frame, 0, out)).toBe(1);
    expect(out[0]).not.toBe(frame);
    expect(pool.toBytes(frame)).toEqual(bytes);
    pool.release(out[0]!);
    pool.release(frame);
  });
});

describe('facts that lie', () => {
  const shape: Shape = {
    version: 4,
    protocol: 6,
    tags: 0,
    ipOptions: 0,
    tcpOptions: 0,
    payload: 3000,
    flags: 0x10,
  };

  function lie(
    change: (bytes: Uint8Array, l4: number) => void,
    facts: Partial<Record<string, number>>,
  ): number {
    const { bytes, l4, header } = unfinished(shape, 7, 1);
    change(bytes, l4);
    const frame = frameOf(bytes, 0);
    setFacts(
      frame,
      facts.facts ?? FACT_NEEDS_CSUM | (GSO_TCPV4 << 8),
      facts.size ?? 1460,
      header,
      facts.start ?? l4,
      facts.offset ?? 16,
    );
    const count = adapt(pool, frame, 0, out);
    for (let i = 0; i < count; i++) pool.check(out[i]!);
    pool.releaseAll(out, 0, count);
    return count;
  }
  const none = (): void => {};

  it('hardening 13: lying IP and TCP lengths are checked against the frame', () => {
    // The total length field is not believed: the real length is what counts.
    expect(lie((bytes) => bytes.set([0xff, 0xff], 16), {})).toBe(3);
    expect(lie((bytes, l4) => bytes.fill(0xf0, l4 + 12, l4 + 13), {})).toBe(3);
    expect(lie((bytes, l4) => bytes.fill(0x40, l4 + 12, l4 + 13), {})).toBe(0);
    expect(lie((bytes) => bytes.fill(17, 23, 24), {})).toBe(0);
    expect(lie((bytes) => bytes.set([0x86, 0xdd], 12), {})).toBe(0);
    expect(lie(none, { facts: FACT_NEEDS_CSUM | (GSO_TCPV6 << 8) })).toBe(0);
    expect(lie(none, { facts: FACT_NEEDS_CSUM | (0x3f << 8) })).toBe(0);
    expect(lie((bytes) => bytes.set([0x20, 0], 20), {})).toBe(0);
  });

  it('hardening 16: lengths that would underflow are refused', () => {
    for (const length of [0, 1, 5, 13, 14, 17, 33, 34, 53, 54]) {
      const { bytes } = unfinished(shape, 7, 1);
      const frame = pool.from(bytes, 0, length);
      setFacts(frame, FACT_NEEDS_CSUM | (GSO_TCPV4 << 8), 1460, 54, 34, 16);
      expect(adapt(pool, frame, 0, out)).toBe(0);
    }
  });

  it('hardening 17: IHL below 5 or past the end, and checksum places past the end, are refused', () => {
    expect(lie((bytes) => bytes.fill(0x44, 14, 15), {})).toBe(0);
    expect(lie((bytes) => bytes.fill(0x4f, 14, 15).fill(0, 74 + 12, 74 + 13), {})).toBe(0);
    const csum = { facts: FACT_NEEDS_CSUM };
    expect(lie(none, { ...csum, start: 3053 })).toBe(0);
    expect(lie(none, { ...csum, start: 3052, offset: 1 })).toBe(0);
    expect(lie(none, { ...csum, start: 65_535, offset: 65_535 })).toBe(0);
    expect(lie(none, { ...csum, start: -20 })).toBe(0);
    expect(lie(none, { ...csum, start: 34, offset: -2 })).toBe(0);
    expect(lie(none, { ...csum, start: 34, offset: 16 })).toBe(1);
  });

  it('hardening 18: a segment size of 0 is refused', () => {
    expect(lie(none, { size: 0 })).toBe(0);
    expect(lie(none, { size: -1 })).toBe(0);
    expect(lie(none, { facts: FACT_NEEDS_CSUM | (GSO_UDP << 8), size: 7 })).toBe(0);
  });

  it('hardening 19: more pieces than the port can hold are refused, and a pool that runs dry drops the frame', () => {
    expect(lie(none, { size: 1 })).toBe(0);
    const held = Array.from({ length: 2095 }, () => pool.alloc(60));
    expect(lie(none, { size: 100 })).toBe(0);
    for (const frame of held) pool.release(frame);
  });

  it('any facts over any bytes: no exception, nothing lost', () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ maxLength: 400 }),
        fc.array(fc.integer({ min: 0, max: 0xffff }), { minLength: 5, maxLength: 5 }),
        fc.integer({ min: 0, max: 63 }),
        fc.boolean(),
        (bytes, [facts, size, header, start, offset], accepts, looksLikeIp) => {
          if (looksLikeIp && bytes.length > 30) bytes.set([8, 0, 0x45], 12);
          const frame = pool.from(bytes);
          setFacts(frame, facts!, size!, header!, start!, offset!);
          const count = adapt(pool, frame, accepts, out);
          for (let i = 0; i < count; i++) pool.check(out[i]!);
          pool.releaseAll(out, 0, count);
          expect(pool.free).toBe(pool.capacity);
        },
      ),
      { numRuns: 1000 },
    );
  });
});

describe('verifyFrame', () => {
  const layout = new HeaderLayout();
  it('finds what is right and what is wrong', () => {
    for (const version of [4, 6] as const) {
      for (const protocol of [6, 17] as const) {
        const shape: Shape = {
          version,
          protocol,
          tags: 1,
          ipOptions: 4,
          tcpOptions: 12,
          payload: 333,
          flags: 0x10,
        };
        const bytes = Uint8Array.from(naivePacket(shape, 0, 333, 7, 1, 0x10));
        const ip = version === 4 ? CHECKED_IP : 0;
        const check = (facts = 0): number => {
          const frame = frameOf(bytes, 50);
          pool.table[frame + FACTS] = facts;
          const found = verifyFrame(pool, frame, layout);
          pool.release(frame);
          return found;
        };
        expect(check()).toBe(ip | CHECKED_L4);
        bytes[bytes.length - 1]! ^= 1;
        expect(check()).toBe(ip | CHECKED_L4 | BAD_L4);
        expect(check(FACT_CSUM_VALID)).toBe(ip | CHECKED_L4);
        if (version === 4) {
          bytes[18 + 8]! ^= 1;
          expect(check()).toBe(CHECKED_IP | BAD_IP | CHECKED_L4 | BAD_L4);
        }
      }
    }
  });

  it('does not judge fragments, other protocols, truncated packets and UDP without checksum', () => {
    const shape: Shape = {
      version: 4,
      protocol: 17,
      tags: 0,
      ipOptions: 0,
      tcpOptions: 0,
      payload: 100,
      flags: 0,
    };
    const check = (change: (bytes: Uint8Array) => void, length?: number): number => {
      const bytes = Uint8Array.from(naivePacket(shape, 0, 100, 7, 1, 0));
      change(bytes);
      const frame = pool.from(bytes, 0, length ?? bytes.length);
      const found = verifyFrame(pool, frame, layout) & ~BAD_IP;
      pool.release(frame);
      return found;
    };
    expect(check((bytes) => bytes.set([0x20, 0], 20))).toBe(CHECKED_IP);
    expect(check((bytes) => bytes.fill(1, 23, 24))).toBe(CHECKED_IP);
    expect(check((bytes) => bytes.set([0, 0], 40))).toBe(CHECKED_IP);
    expect(check(() => {}, 100)).toBe(CHECKED_IP);
    expect(check((bytes) => bytes.set([8, 6], 12))).toBe(0);
    expect(check(() => {}, 20)).toBe(0);
  });

  it('is what verifyPlainTcp4 finds of a plain TCP packet, at every alignment, whatever bit is turned', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 0, max: 1460 }),
        fc.integer({ min: 0, max: 7 }),
        fc.option(fc.nat(), { nil: undefined }),
        (payload, skew, turned) => {
          const shape: Shape = {
            version: 4,
            protocol: 6,
            tags: 0,
            ipOptions: 0,
            tcpOptions: 0,
            payload,
            flags: 0x10,
          };
          const bytes = Uint8Array.from(naivePacket(shape, 0, payload, 7, 1, 0x10));
          if (turned !== undefined) bytes[14 + (turned % (bytes.length - 14))]! ^= 1 << (turned & 7);
          const frame = pool.alloc(bytes.length + 8);
          pool.table[frame + OFFSET] = pool.table[frame + OFFSET]! + skew;
          const at = pool.table[frame + OFFSET]!;
          pool.bytes.set(bytes, at);
          pool.setLength(frame, bytes.length);
          const plain = isPlainTcp4(pool.memories[0]!.view, at, bytes.length);
          if (turned === undefined) expect(plain).toBe(true);
          if (plain) expect(verifyPlainTcp4(pool, at)).toBe(verifyFrame(pool, frame, layout));
          pool.release(frame);
        },
      ),
    );
  });
});
