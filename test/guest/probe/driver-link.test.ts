import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  CSUM_OFFSET,
  CSUM_START,
  FACT_NEEDS_CSUM,
  FACTS,
  FramePool,
  GSO_SIZE,
  GSO_TCPV4,
  GSO_TCPV6,
  HEADER_LENGTH,
  OFFSET,
} from '../../../src/core/pool.ts';
import type { DriverListener, NicDriver, PacketBatch } from '../../../src/guest/driver/driver.ts';
import { RX_CSUM_BAD, RX_CSUM_OK, SEGMENT_NONE, SEGMENT_TCP4 } from '../../../src/guest/driver/driver.ts';
import { GuestRam } from '../../../src/guest/driver/guest-ram.ts';
import { DriverLink } from '../../../src/guest/probe/driver-link.ts';
import { putU16be, u16be } from '../../../src/wire/bytes.ts';
import { foldSum } from '../../../src/wire/checksum.ts';

const POOL_ADDRESS = 0x1000_0000;

/** A driver whose ring holds `size` packets; the test completes them. */
class FakeDriver implements NicDriver {
  readonly mac = Uint8Array.of(2, 0, 0, 0, 0, 1);
  linkUp = true;
  readonly ipMtuBytes = 1500;
  capabilities = { checksum: true, segmentTcp4: true, segmentTcp6: false, vlan: false };
  listener: DriverListener = { received() {}, sent() {} };
  closed = false;
  /** First payload byte of each packet the ring took. */
  readonly taken: number[] = [];
  readonly lengths: number[] = [];
  readonly kinds: number[] = [];
  inRing = 0;
  refused = false;
  /** Completes this many old packets within the next `send`. */
  completesInSend = 0;
  readonly #size: number;
  readonly #bytes: Uint8Array;

  constructor(size: number, bytes: Uint8Array) {
    this.#size = size;
    this.#bytes = bytes;
  }

  get room(): number {
    return this.#size - this.inRing;
  }

  open(): boolean {
    return true;
  }

  send(batch: PacketBatch, from: number, to: number): number {
    if (this.completesInSend > 0) this.complete(this.completesInSend);
    let i = from;
    for (; i < to && this.inRing < this.#size; i++) {
      this.inRing++;
      this.taken.push(this.#bytes[batch.address[i] - POOL_ADDRESS + 14]);
      this.lengths.push(batch.length[i]);
      this.kinds.push(batch.segment[i]);
    }
    if (i < to) this.refused = true;
    return i - from;
  }

  /** The NIC transmitted the oldest `count` packets. */
  complete(count: number): void {
    const done = Math.min(count, this.inRing);
    if (done === 0) return;
    this.inRing -= done;
    this.listener.sent(done);
    if (!this.refused) return;
    this.refused = false;
    this.listener.sendReady?.();
  }

  interrupt(): boolean {
    return false;
  }

  close(): void {
    this.closed = true;
  }
}

function bench(size = 4) {
  const pool = new FramePool({ smallSlots: 600, largeSlots: 2, bareRecords: 1, debug: true });
  const driver = new FakeDriver(size, pool.bytes);
  const ram = new GuestRam(4096);
  const link = new DriverLink(driver, ram, pool, POOL_ADDRESS, '1 Gb/s');
  const events: string[] = [];
  link.receiver = {
    receive: (_memory, offset, length, facts) => events.push(`rx ${offset} ${length} ${facts}`),
    endOfBatch: () => events.push('end'),
    linkChanged: (up) => events.push(up ? 'up' : 'down'),
    room: () => events.push('room'),
  };
  link.open();
  const send = (mark: number): boolean => {
    const at = link.reserve(100);
    if (at < 0) return false;
    pool.bytes.fill(mark, at, at + 100);
    link.send(100);
    return true;
  };
  return { pool, driver, ram, link, events, send };
}

describe('driver link', () => {
  test('many frames, one doorbell; buffers come back when the NIC is done', () => {
    const { pool, driver, link, send } = bench();
    for (let i = 0; i < 4; i++) send(i);
    expect(driver.taken).toEqual([]);
    link.flush();
    expect(driver.taken).toEqual([0, 1, 2, 3]);
    expect(pool.free).toBe(pool.capacity - 4);
    driver.complete(3);
    expect(pool.free).toBe(pool.capacity - 1);
    driver.complete(1);
    expect(pool.free).toBe(pool.capacity);
    link.close();
  });

  test('what the ring does not take waits, in order, until there is room', () => {
    const { pool, driver, link, send } = bench(3);
    for (let i = 0; i < 8; i++) send(i);
    link.flush();
    send(8);
    link.flush();
    expect(driver.taken).toEqual([0, 1, 2]);
    while (driver.inRing > 0) driver.complete(2);
    expect(driver.taken).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8]);
    expect(pool.free).toBe(pool.capacity);
    link.close();
  });

  test('a full queue refuses, and tells when it takes again', () => {
    const { pool, driver, link, events, send } = bench(1);
    let sent = 0;
    while (send(sent & 255)) sent++;
    expect(sent).toBe(256);
    expect(link.room).toBe(0);
    expect(link.stats.txNoRoom).toBe(1);
    expect(events).toEqual([]);
    for (let i = 0; i < 300 && driver.inRing > 0; i++) driver.complete(1);
    expect(events).toEqual(['room']);
    expect(driver.taken).toEqual(Array.from({ length: 256 }, (_, i) => i & 255));
    expect(pool.free).toBe(pool.capacity);
    link.close();
  });

  test('packets that complete within a send, and senders that then send more', () => {
    const { pool, driver, link, events, send } = bench(4);
    for (let i = 0; i < 4; i++) send(i);
    link.flush();
    const count = events.length;
    let more = 4;
    link.receiver.room = () => {
      while (more < 300 && send(more & 255)) more++;
    };
    while (send(more & 255)) more++;
    driver.completesInSend = 2;
    for (let i = 0; i < 400 && driver.inRing > 0; i++) driver.complete(1);
    link.flush();
    for (let i = 0; i < 400 && driver.inRing > 0; i++) driver.complete(4);
    expect(driver.taken).toEqual(Array.from({ length: more }, (_, i) => i & 255));
    expect(events.length).toBe(count);
    expect(pool.free).toBe(pool.capacity);
    link.close();
  });

  test('facts become what the NIC is asked for; the length leaves the pseudo-header sum of a segmented packet', () => {
    const { pool, driver, link } = bench();
    const frame = pool.alloc(3000);
    const t = pool.table;
    pool.setLength(frame, 3054);
    t[frame + FACTS] = FACT_NEEDS_CSUM | (GSO_TCPV4 << 8);
    t[frame + GSO_SIZE] = 1460;
    t[frame + HEADER_LENGTH] = 54;
    t[frame + CSUM_START] = 34;
    t[frame + CSUM_OFFSET] = 16;
    const field = t[frame + OFFSET] + 50;
    putU16be(pool.bytes, field, foldSum(0x1234 + 3020));
    expect(link.sendFrame(frame)).toBe(3054);
    link.flush();
    expect(driver.kinds).toEqual([SEGMENT_TCP4]);
    expect(u16be(pool.bytes, field)).toBe(0x1234);
    driver.complete(1);
    link.close();
    expect(pool.free).toBe(pool.capacity);
  });

  test('a frame the NIC cannot serve is dropped and counted', () => {
    const { pool, driver, link } = bench();
    const frame = pool.alloc(3000);
    pool.setLength(frame, 3000);
    pool.table[frame + FACTS] = FACT_NEEDS_CSUM | (GSO_TCPV6 << 8);
    expect(link.sendFrame(frame)).toBe(0);
    driver.capabilities = { checksum: false, segmentTcp4: false, segmentTcp6: false, vlan: false };
    const other = pool.alloc(100);
    pool.setLength(other, 100);
    pool.table[other + FACTS] = FACT_NEEDS_CSUM;
    expect(link.sendFrame(other)).toBe(0);
    expect(link.stats.txDropUnsuitable).toBe(2);
    expect(pool.free).toBe(pool.capacity);
    link.close();
  });

  test('hardening 9: a short frame is padded with zeros behind it, not with what lay there', () => {
    const { pool, driver, link } = bench();
    const frame = pool.alloc(100);
    const at = pool.table[frame + OFFSET];
    pool.bytes.fill(0xaa, at, at + 100);
    pool.setLength(frame, 54);
    link.sendFrame(frame);
    link.flush();
    expect(driver.lengths).toEqual([60]);
    expect(driver.kinds).toEqual([SEGMENT_NONE]);
    expect([...pool.bytes.subarray(at + 53, at + 61)]).toEqual([0xaa, 0, 0, 0, 0, 0, 0, 0xaa]);
    driver.complete(1);
    link.close();
  });

  test('receiving: where the bytes lie, what was checked, and the end of the batch', () => {
    const { driver, ram, link, events } = bench();
    const address = ram.allocate(2048);
    driver.listener.received(address, 60, RX_CSUM_OK, 0);
    driver.listener.received(address, 61, 0, 0);
    driver.listener.received(address, 62, RX_CSUM_BAD, 0);
    driver.listener.receivedAll?.();
    driver.listener.linkChanged?.(false);
    driver.listener.linkChanged?.(false);
    expect(events).toEqual([`rx ${address} 60 1`, `rx ${address} 61 0`, 'end', 'down']);
    expect(link.stats.rxDropChecksum).toBe(1);
    link.close();
  });

  test('in whatever order frames are sent, flushed and completed, all leave in order and all buffers come back', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 8 }), fc.array(fc.nat(9), { maxLength: 400 }), (size, script) => {
        const { pool, driver, link, send } = bench(size);
        let sent = 0;
        for (const act of script) {
          if (act < 5) sent += send(sent & 255) ? 1 : 0;
          else if (act < 7) link.flush();
          else driver.complete(act - 6);
        }
        link.flush();
        for (let i = 0; i < 1000 && driver.inRing > 0; i++) driver.complete(1);
        expect(driver.taken).toEqual(Array.from({ length: sent }, (_, i) => i & 255));
        expect(pool.free).toBe(pool.capacity);
        link.close();
      }),
    );
  });

  test('closing gives back what the NIC has and what it never saw', () => {
    const { pool, driver, link, send } = bench(2);
    for (let i = 0; i < 6; i++) send(i);
    link.flush();
    send(6);
    link.reserve(100);
    link.close();
    expect(driver.closed).toBe(true);
    expect(pool.free).toBe(pool.capacity);
  });
});
