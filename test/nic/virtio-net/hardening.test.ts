/** Cases of malformed rings, registers, commands and frames; after each the device, reset, works again. */
import { afterEach, describe, expect, it } from 'vitest';
import { FACT_NEEDS_CSUM, REFS } from '../../../src/core/pool.ts';
import { PacketBatch } from '../../../src/guest/driver/driver.ts';
import { AVAIL, INDIRECT, NEXT, PACKED, Raw, type RawQueue, USED, WRITE } from './raw.ts';
import { Rig } from './rig.ts';

const INDIRECT_DESC = 28;
const EVENT_IDX = 29;
const MRG_RXBUF = 15;

let raw: Raw;
let rig: Rig | null = null;
afterEach(() => {
  if (rig === null) {
    raw.expectRecovers();
    raw.close();
  } else {
    rig.close();
    rig = null;
  }
});

/** Starts a device whose transmit ring is then prepared, kicked, and expected to be broken. */
function expectBroken(prepare: (tx: RawQueue) => void, features: readonly number[] = []): void {
  expect(raw.start(features)).toBe(true);
  prepare(raw.tx);
  raw.kick(1);
  expect(raw.needsReset).toBe(true);
  expect(raw.rig.nic.live).toBe(false);
  // Nothing moves any more, and nothing is thrown.
  raw.sendGood();
  raw.kick(0);
  raw.kick(2);
  expect(raw.rig.machine.peer.send(raw.rig.frame(100))).toBe(true);
  expect(raw.rig.nic.stats.rxDropDisabled).toBe(1);
}

describe('split rings', () => {
  it('hardening 24: a chain that loops', () => {
    raw = new Raw();
    expectBroken((tx) => {
      tx.desc(0, tx.buffers, 12, NEXT, 1);
      tx.desc(1, tx.buffers, 60, NEXT, 0);
      tx.offer(0);
    });
    expect(raw.rig.nic.stats.brokenRings).toBe(1);
  });

  it('hardening 24: next and head outside the ring', () => {
    raw = new Raw();
    expectBroken((tx) => {
      tx.desc(0, tx.buffers, 12, NEXT, 64);
      tx.offer(0);
    });
    raw.transport.status = 0;
    raw.rig.nic.stats.rxDropDisabled = 0;
    expectBroken((tx) => tx.offer(64));
    raw.transport.status = 0;
    raw.rig.nic.stats.rxDropDisabled = 0;
    expectBroken((tx) => tx.offer(0xffff));
  });

  it('hardening 24: the frames before a bad chain still go out', () => {
    raw = new Raw();
    expect(raw.start()).toBe(true);
    raw.tx.offer(0, 64);
    raw.tx.desc(0, raw.tx.buffers, 92);
    raw.kick(1);
    expect(raw.rig.machine.peer.frames.length).toBe(1);
    expect(raw.needsReset).toBe(true);
  });

  it('hardening 5: descriptors without bytes', () => {
    raw = new Raw();
    expectBroken((tx) => {
      tx.desc(0, tx.buffers, 0, NEXT, 1);
      tx.desc(1, tx.buffers, 60);
      tx.offer(0);
    });
  });

  it('a part to read behind one to write', () => {
    raw = new Raw();
    expectBroken((tx) => {
      tx.desc(0, tx.buffers, 12, NEXT | WRITE, 1);
      tx.desc(1, tx.buffers, 60);
      tx.offer(0);
    });
  });

  it('hardening 25: more available than the ring holds', () => {
    raw = new Raw();
    expectBroken((tx) => {
      tx.availIdx = 65;
    });
  });

  it('hardening 25: more in flight than the ring holds', () => {
    raw = new Raw();
    expect(raw.start()).toBe(true);
    const { peer, ram } = raw.rig.machine;
    peer.hold = true;
    raw.tx.desc(0, ram.address + 0x40000, 4000);
    for (let i = 0; i < 64; i++) {
      raw.tx.offer(0);
      raw.kick(1);
    }
    expect(peer.held.length).toBe(64);
    expect(raw.needsReset).toBe(false);
    raw.tx.offer(0);
    raw.kick(1);
    expect(peer.held.length).toBe(64);
    expect(raw.needsReset).toBe(true);
    peer.hold = false;
    peer.letGo();
  });

  it('hardening 28: indirect tables that are nested, misshapen, outside RAM or not negotiated', () => {
    raw = new Raw();
    const cases: [string, readonly number[], (tx: RawQueue) => void][] = [
      ['not negotiated', [], (tx) => tx.desc(0, tx.buffers, 32, INDIRECT)],
      ['no whole entries', [INDIRECT_DESC], (tx) => tx.desc(0, tx.buffers, 31, INDIRECT)],
      ['empty', [INDIRECT_DESC], (tx) => tx.desc(0, tx.buffers, 0, INDIRECT)],
      ['beside next', [INDIRECT_DESC], (tx) => tx.desc(0, tx.buffers, 32, INDIRECT | NEXT, 1)],
      ['outside RAM', [INDIRECT_DESC], (tx) => tx.desc(0, 2 ** 40, 32, INDIRECT)],
      [
        'nested',
        [INDIRECT_DESC],
        (tx) => {
          tx.desc(0, tx.buffers, 32, INDIRECT);
          tx.desc(0, tx.buffers, 32, INDIRECT, 0, tx.buffers);
        },
      ],
      [
        'a loop within',
        [INDIRECT_DESC],
        (tx) => {
          tx.desc(0, tx.buffers, 32, INDIRECT);
          tx.desc(0, tx.buffers, 12, NEXT, 1, tx.buffers);
          tx.desc(1, tx.buffers, 60, NEXT, 0, tx.buffers);
        },
      ],
      [
        'next outside the table',
        [INDIRECT_DESC],
        (tx) => {
          tx.desc(0, tx.buffers, 32, INDIRECT);
          tx.desc(0, tx.buffers, 12, NEXT, 2, tx.buffers);
        },
      ],
      [
        'at the end of a chain',
        [INDIRECT_DESC],
        (tx) => {
          tx.desc(0, tx.buffers, 12, NEXT, 1);
          tx.desc(1, tx.buffers, 32, INDIRECT);
        },
      ],
    ];
    for (const [, features, prepare] of cases) {
      raw.transport.status = 0;
      raw.rig.nic.stats.rxDropDisabled = 0;
      expectBroken((tx) => {
        prepare(tx);
        tx.offer(0);
      }, features);
    }
  });

  it('hardening 28: an indirect table is read once, whatever it says the next time', () => {
    raw = new Raw();
    expect(raw.start([INDIRECT_DESC])).toBe(true);
    const { memory, peer } = raw.rig.machine;
    const good = new Int32Array(8);
    good.set([raw.tx.buffers, 0, 12, NEXT | (1 << 16), raw.tx.buffers + 12, 0, 80, 0]);
    let reads = 0;
    memory.addRemote(2 ** 33, {
      length: 4096,
      read(offset, target, at, length) {
        // Good at the first look, a loop of lies from then on.
        const source = new Uint8Array(reads++ === 0 ? good.buffer : new Int32Array(8).fill(-1).buffer);
        for (let i = 0; i < length; i++) target[at + i] = source[offset + i] ?? 0xff;
        return true;
      },
      write: () => true,
    });
    raw.bytes.set(raw.rig.frame(80), raw.offset(raw.tx.buffers) + 12);
    raw.tx.desc(0, 2 ** 33, 32, INDIRECT);
    raw.tx.offer(0);
    raw.kick(1);
    expect(reads).toBe(1);
    expect(peer.frames.map((f) => f.bytes)).toEqual([raw.rig.frame(80)]);
    memory.remove(2 ** 33, 4096);
  });

  it('hardening 19: a thousand parts are one frame, and a thousand and twenty-five are too many', () => {
    raw = new Raw({ properties: { tx_queue_size: 1024 } });
    expect(raw.start([INDIRECT_DESC])).toBe(true);
    const { peer, ram } = raw.rig.machine;
    const table = ram.address + 0x80000;
    for (const parts of [1000, 1025]) {
      for (let i = 0; i < parts; i++) {
        raw.tx.desc(i, raw.tx.buffers + i, 12, i < parts - 1 ? NEXT : 0, i + 1, table);
      }
      raw.tx.desc(0, table, 16 * parts, INDIRECT);
      raw.tx.offer(0);
      raw.kick(1);
    }
    expect(peer.frames.map((f) => f.bytes.length)).toEqual([12 * 1000 - 12]);
    expect(raw.needsReset).toBe(true);
  });

  it('hardening 7, 15: lengths beyond 2^31 and sums beyond any frame are dropped', () => {
    raw = new Raw();
    for (const lengths of [
      [12, 0xffffffff],
      [0xffffffff, 0xffffffff],
      [12, 0x7fffffff, 0x7fffffff, 0x7fffffff],
      [12, 70_000],
    ]) {
      expect(raw.start()).toBe(true);
      const before = raw.rig.nic.stats.txDropTooLong;
      lengths.forEach((length, i) => {
        raw.tx.desc(i, raw.tx.buffers, length, i < lengths.length - 1 ? NEXT : 0, i + 1);
      });
      raw.tx.offer(0);
      raw.kick(1);
      expect(raw.rig.nic.stats.txDropTooLong).toBe(before + 1);
      expect(raw.needsReset).toBe(false);
      expect(raw.tx.usedIdx).toBe(1);
    }
  });

  it('hardening 12: buffers that leave RAM, lie in a hole or wrap', () => {
    raw = new Raw();
    const end = 16 << 20;
    for (const [address, length] of [
      [end - 30, 80],
      [2 ** 50, 80],
      [2 ** 64 - 4096, 80],
      [2 ** 64 - 2048, 4096],
    ] as const) {
      raw.transport.status = 0;
      raw.rig.nic.stats.rxDropDisabled = 0;
      expectBroken((tx) => {
        tx.desc(0, tx.buffers, 12, NEXT, 1);
        tx.desc(1, address, length);
        tx.offer(0);
      });
    }
    expect(raw.rig.nic.stats.txDropBadAddress).toBe(4);
  });

  it('hardening 11: rings and buffers in the own BARs reach no register', () => {
    raw = new Raw();
    const { nic } = raw.rig;
    nic.writeConfig(0x20, 4, 0xfeb00000);
    nic.writeConfig(0x14, 4, 0xfeb80000);
    nic.writeConfig(4, 2, 7);
    for (const bar of [0xfeb00000, 0xfeb80000]) {
      for (const device of [false, true]) {
        raw.transport.status = 0;
        expect(raw.start()).toBe(true);
        const vectors = nic.readBar(1, 0, 4);
        if (device) {
          raw.rx.desc(0, bar, 2048, WRITE);
          raw.rx.offer(0);
          raw.kick(0);
          raw.rig.machine.peer.send(raw.rig.frame(80));
        } else {
          raw.tx.desc(0, bar, 92);
          raw.tx.offer(0);
          raw.kick(1);
        }
        expect(raw.needsReset).toBe(true);
        expect(nic.readBar(1, 0, 4)).toBe(vectors);
        expect(nic.readBar(4, 20, 1)).toBe(0x4f);
      }
    }
    expect(raw.rig.machine.peer.frames).toEqual([]);
    raw.expectRecovers();
  });

  it('rings that do not lie in RAM', () => {
    raw = new Raw();
    for (const area of [32, 40, 48]) {
      const { transport } = raw;
      transport.status = 0;
      transport.status = 3;
      transport.setFeatures(1, 1);
      transport.status = 11;
      const { nic } = raw.rig;
      nic.writeBar(4, 22, 2, 1);
      for (const at of [32, 40, 48]) {
        nic.writeBar(4, at, 4, at === area ? 0xfffff000 : raw.rig.scratch);
        nic.writeBar(4, at + 4, 4, 0);
      }
      nic.writeBar(4, 28, 2, 1);
      transport.status = 15;
      nic.writeBar(4, 0x3004, 2, 1);
      // Descriptors are only looked at when something is available.
      if (area === 32) {
        raw.halves[raw.offset(raw.rig.scratch) / 2 + 1] = 1;
        nic.writeBar(4, 0x3004, 2, 1);
      }
      expect(raw.needsReset).toBe(true);
    }
  });
});

describe('packed rings', () => {
  const start = (): void => {
    raw = new Raw({ properties: { packed: true } });
    expect(raw.start([PACKED, INDIRECT_DESC])).toBe(true);
  };

  it('hardening 37: a bad address in the middle of a batch', () => {
    start();
    const { tx } = raw;
    const at = raw.offset(tx.buffers) + 12;
    raw.bytes.set(raw.rig.frame(80), at);
    tx.packed(2, tx.buffers, 92, 2, AVAIL);
    tx.packed(1, 2 ** 45, 92, 1, AVAIL);
    tx.packed(0, tx.buffers, 92, 0, AVAIL);
    raw.kick(1);
    expect(raw.rig.nic.stats.txDropBadAddress).toBe(1);
    expect(raw.needsReset).toBe(true);
  });

  it('hardening 37: a packet header over three descriptors and more', () => {
    start();
    const { tx } = raw;
    raw.bytes.set(raw.rig.frame(80), raw.offset(tx.buffers) + 12);
    const cuts = [0, 1, 5, 6, 11, 13, 92];
    for (let i = cuts.length - 2; i >= 0; i--) {
      const isLast = i === cuts.length - 2;
      tx.packed(i, tx.buffers + cuts[i]!, cuts[i + 1]! - cuts[i]!, 7, AVAIL | (isLast ? 0 : NEXT));
    }
    raw.kick(1);
    expect(raw.rig.machine.peer.frames.map((f) => f.bytes)).toEqual([raw.rig.frame(80)]);
    // Used once, at the first descriptor's place, under the id of the last.
    const word = raw.words[raw.offset(tx.descriptors) / 4 + 3]!;
    expect(word >>> 0).toBe((((AVAIL | USED) << 16) | 7) >>> 0);
  });

  it('hardening 24: a chain as long as the ring that never ends', () => {
    start();
    for (let i = 63; i >= 0; i--) raw.tx.packed(i, raw.tx.buffers, 12, i, AVAIL | NEXT);
    raw.kick(1);
    expect(raw.needsReset).toBe(true);
  });

  it('hardening 28: nested and misshapen indirect tables', () => {
    raw = new Raw({ properties: { packed: true } });
    for (const [length, flags] of [
      [31, 0],
      [0, 0],
      [16 * 1025, 0],
      [32, NEXT],
    ] as const) {
      expect(raw.start([PACKED, INDIRECT_DESC])).toBe(true);
      raw.tx.packed(0, raw.tx.buffers, length, 0, AVAIL | INDIRECT | flags);
      raw.kick(1);
      expect(raw.needsReset).toBe(true);
    }
    expect(raw.start([PACKED, INDIRECT_DESC])).toBe(true);
    raw.tx.desc(0, raw.tx.buffers, 32, 0, INDIRECT, raw.tx.buffers);
    raw.tx.packed(0, raw.tx.buffers, 32, 0, AVAIL | INDIRECT);
    raw.kick(1);
    expect(raw.needsReset).toBe(true);
  });

  it('hardening 5: descriptors without bytes', () => {
    start();
    raw.tx.packed(0, raw.tx.buffers, 0, 0, AVAIL);
    raw.kick(1);
    expect(raw.needsReset).toBe(true);
  });
});

describe('packet headers', () => {
  /** Sends one packet with this header and returns what arrived. */
  const sendWith = (header: readonly number[], length = 200): Raw['rig']['machine']['peer']['frames'] => {
    const { tx } = raw;
    const { peer } = raw.rig.machine;
    const at = raw.offset(tx.buffers);
    raw.bytes.set(Uint8Array.from(header), at);
    raw.bytes.set(raw.rig.frame(length), at + 12);
    tx.desc(0, tx.buffers, 12, NEXT, 1);
    tx.desc(1, tx.buffers + 12, length);
    peer.frames.length = 0;
    tx.offer(0);
    raw.kick(1);
    return [...peer.frames];
  };
  const offloads = [0, 11, 12];

  it('hardening 13, 17: checksum fields outside the frame, and kinds that are none, are dropped', () => {
    raw = new Raw();
    expect(raw.start(offloads)).toBe(true);
    expect(sendWith([1, 0, 0, 0, 0, 0, 255, 255, 255, 255, 0, 0])).toEqual([]);
    expect(sendWith([1, 0, 0, 0, 0, 0, 199, 0, 0, 0, 0, 0])).toEqual([]);
    expect(sendWith([0, 99, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0])).toEqual([]);
    expect(raw.rig.nic.stats.txDropBadHeader).toBe(3);
    expect(sendWith([1, 0, 0, 0, 0, 0, 34, 0, 16, 0, 0, 0])).toMatchObject([{ facts: FACT_NEEDS_CSUM }]);
    expect(raw.tx.usedIdx).toBe(4);
  });

  it('hardening 18: a segment size of 0 makes an ordinary frame', () => {
    raw = new Raw();
    expect(raw.start(offloads)).toBe(true);
    expect(sendWith([0, 1, 54, 0, 0, 0, 0, 0, 0, 0, 0, 0])).toMatchObject([{ facts: 0 }]);
  });

  it('hardening 16: packets shorter than their headers', () => {
    raw = new Raw();
    expect(raw.start()).toBe(true);
    for (const [i, length] of [1, 11, 12, 13, 25].entries()) {
      raw.tx.desc(i, raw.tx.buffers, length);
      raw.tx.offer(i);
    }
    raw.kick(1);
    expect(raw.rig.nic.stats.txDropRunt).toBe(5);
    expect(raw.tx.usedIdx).toBe(5);
    expect(raw.rig.machine.peer.frames).toEqual([]);
  });

  it('what was not negotiated is not used', () => {
    raw = new Raw();
    expect(raw.start()).toBe(true);
    expect(sendWith([1, 0, 0, 0, 0, 0, 34, 0, 16, 0, 0, 0])).toMatchObject([{ facts: 0 }]);
    expect(sendWith([1, 1, 54, 0, 100, 0, 34, 0, 16, 0, 0, 0])).toEqual([]);
  });

  it('hardening 31: the header is as long as the features say', () => {
    for (const [properties, take, legacy, bytes] of [
      [{}, [], false, 12],
      [{ mrg_rxbuf: false }, [], false, 12],
      [{ hash: true }, [57], false, 20],
      [{}, [], true, 12],
      [{ mrg_rxbuf: false }, [], true, 10],
    ] as const) {
      rig = new Rig({ properties, open: false });
      const driver = rig.makeDriver({ take, legacy, offloads: false });
      // This driver reads headers of 10 and 12 bytes; the hash makes it 20, which is seen in the length.
      driver.open();
      rig.machine.peer.send(rig.frame(100));
      rig.machine.settle();
      const own = legacy && 'mrg_rxbuf' in properties ? 10 : 12;
      expect(rig.received[0]!.bytes.length).toBe(100 + bytes - own);
      driver.close();
      rig.close();
    }
    raw = new Raw();
    rig = null;
  });
});

describe('receiving', () => {
  it('hardening 29: buffers smaller than the header go back, and the frame finds the next one', () => {
    raw = new Raw();
    expect(raw.start([MRG_RXBUF])).toBe(true);
    const { rx } = raw;
    rx.desc(0, rx.buffers, 11, WRITE);
    rx.desc(1, rx.buffers + 64, 1, WRITE);
    rx.desc(2, rx.buffers + 128, 60);
    rx.desc(3, rx.buffers + 256, 200, WRITE);
    rx.offer(0, 1, 2, 3);
    expect(raw.rig.machine.peer.send(raw.rig.frame(100))).toBe(true);
    expect([0, 1, 2, 3].map((i) => rx.used(i))).toEqual([
      { id: 0, length: 0 },
      { id: 1, length: 0 },
      { id: 2, length: 0 },
      { id: 3, length: 112 },
    ]);
    expect(raw.rig.nic.stats.rxBufferTooSmall).toBe(3);
  });

  it('hardening 30: a merged frame that hits a bad address leaks nothing and counts no buffers', () => {
    raw = new Raw();
    expect(raw.start([MRG_RXBUF])).toBe(true);
    const { rx } = raw;
    rx.desc(0, rx.buffers, 100, WRITE);
    rx.desc(1, 2 ** 45, 1000, WRITE);
    rx.offer(0, 1);
    expect(raw.rig.machine.peer.send(raw.rig.frame(500))).toBe(true);
    expect(raw.needsReset).toBe(true);
    expect(rx.usedIdx).toBe(0);
    expect(raw.rig.nic.stats.rxDropBadAddress).toBe(1);
    expect(raw.rig.machine.pool.free).toBe(raw.rig.machine.pool.capacity);
  });

  it('hardening 8: a frame that no number of buffers can hold is dropped, one that waits for more is not', () => {
    raw = new Raw();
    expect(raw.start([MRG_RXBUF])).toBe(true);
    const { rx } = raw;
    for (let i = 0; i < 64; i++) rx.desc(i, rx.buffers + 32 * i, 32, WRITE);
    rx.offer(...Array.from({ length: 40 }, (_, i) => i));
    expect(raw.rig.machine.peer.send(raw.rig.frame(1500))).toBe(false);
    expect(rx.usedIdx).toBe(0);
    rx.offer(...Array.from({ length: 24 }, (_, i) => 40 + i));
    expect(raw.rig.machine.peer.send(raw.rig.frame(3000))).toBe(true);
    expect(raw.rig.nic.stats.rxDropTooLong).toBe(1);
    expect(raw.rig.machine.peer.send(raw.rig.frame(1500))).toBe(true);
    expect(rx.usedIdx).toBe(48);
    // The first buffer's header says how many there are.
    expect(raw.halves[raw.offset(rx.buffers) / 2 + 5]).toBe(48);
  });

  it('hardening 20: nothing but the frame is written, and padding is zeros', () => {
    raw = new Raw();
    expect(raw.start([MRG_RXBUF])).toBe(true);
    const { rx } = raw;
    const at = raw.offset(rx.buffers);
    raw.bytes.fill(0xaa, at, at + 512);
    rx.desc(0, rx.buffers, 256, WRITE);
    rx.desc(1, rx.buffers + 256, 256, WRITE);
    rx.offer(0, 1);
    raw.rig.machine.peer.send(raw.rig.frame(70));
    raw.rig.machine.peer.send(raw.rig.frame(20));
    const header = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0];
    expect([...raw.bytes.subarray(at, at + 256)]).toEqual([
      ...header,
      ...raw.rig.frame(70),
      ...new Array<number>(256 - 82).fill(0xaa),
    ]);
    expect([...raw.bytes.subarray(at + 256, at + 512)]).toEqual([
      ...header,
      ...raw.rig.frame(20),
      ...new Array<number>(40).fill(0),
      ...new Array<number>(256 - 72).fill(0xaa),
    ]);
  });

  it('hardening 9: frames of 0, 1, 13 and 59 bytes are dropped or padded, both ways', () => {
    rig = new Rig();
    for (const length of [0, 1, 13, 59]) expect(rig.machine.peer.send(rig.frame(length))).toBe(true);
    rig.machine.settle();
    expect(rig.nic.stats.rxDropRunt).toBe(3);
    expect(rig.received.map(({ bytes }) => [...bytes])).toEqual([[...rig.frame(59), 0]]);
    rig.sendAll([59]);
    const [sent] = rig.machine.peer.frames;
    expect(sent!.bytes.length).toBe(60);
    expect(sent!.bytes[59]).toBe(0);
    rig.expectWorks();
  });

  it('hardening 36: a flood without buffers is refused, and passes again once there are some', () => {
    rig = new Rig({ driver: { ringSize: 16 } });
    rig.machine.onInterrupt = null;
    let refused = 0;
    for (let i = 0; i < 5000; i++) if (!rig.machine.peer.send(rig.frame(100))) refused++;
    expect(refused).toBe(5000 - 16);
    expect(rig.nic.stats.rxNoBuffer).toBe(refused);
    const driver = rig.driver;
    rig.machine.onInterrupt = () => driver.interrupt();
    rig.driver.interrupt();
    expect(rig.received.length).toBe(16);
    expect(rig.machine.peer.ready).toBeGreaterThan(0);
    rig.expectWorks();
  });

  it('hardening 35: runts with a VLAN type', () => {
    rig = new Rig({ driver: { vlans: [5] } });
    for (const length of [0, 1, 13, 14, 15, 16, 17]) {
      const frame = rig.frame(length);
      if (length >= 14) frame.set([0x81, 0], 12);
      expect(rig.machine.peer.send(frame)).toBe(true);
    }
    rig.machine.settle();
    expect(rig.received).toEqual([]);
    expect(rig.nic.stats.rxDropRunt).toBe(7);
    rig.expectWorks();
  });
});

describe('registers', () => {
  it('hardening 21: accesses of every size and alignment have defined values', () => {
    rig = new Rig();
    const { nic } = rig;
    for (const { index, bytes } of nic.bars) {
      for (let offset = -4; offset < Math.min(bytes, 0x80) + 8; offset++) {
        for (const size of [1, 2, 4, 8]) {
          for (const base of index === 4 ? [0, 0x1000, 0x2000, 0x3000] : [0]) {
            const value = nic.readBar(index, base + offset, size);
            expect(Number.isInteger(value) && value >= 0 && value < 2 ** (8 * size)).toBe(true);
          }
        }
      }
    }
    for (const { index, bytes } of nic.bars) {
      for (let offset = -4; offset < Math.min(bytes, 0x80) + 8; offset++) {
        for (const size of [1, 2, 3, 4, 8]) {
          for (const base of index === 4 ? [0, 0x1000, 0x2000, 0x3000] : [0]) {
            nic.writeBar(index, base + offset, size, 0xa5a5a5a5 % 2 ** (8 * size));
          }
        }
      }
    }
    rig.machine.settle();
    nic.reset();
    rig.driver.open();
    rig.expectWorks();
  });

  it('hardening 21: the registers are also reached through configuration space, in pieces of 1, 2 and 4 bytes only', () => {
    rig = new Rig();
    const { nic } = rig;
    let at = nic.readConfig(0x34, 1);
    while (at !== 0 && !(nic.readConfig(at, 1) === 9 && nic.readConfig(at + 3, 1) === 5))
      at = nic.readConfig(at + 1, 1);
    expect(at).not.toBe(0);
    const through = (offset: number, length: number): number => {
      nic.writeConfig(at + 4, 1, 4);
      nic.writeConfig(at + 8, 4, offset);
      nic.writeConfig(at + 12, 4, length);
      return nic.readConfig(at + 16, 4);
    };
    expect(through(18, 2)).toBe(3);
    expect(through(0x2000, 4)).toBe(nic.readBar(4, 0x2000, 4));
    expect(through(20, 1)).toBe(15);
    for (const length of [0, 3, 5, 0xffffffff]) through(0, length);
    through(0xffffffff, 4);
    nic.writeConfig(at + 8, 4, 20);
    nic.writeConfig(at + 12, 4, 1);
    nic.writeConfig(at + 16, 4, 0);
    expect(nic.status).toBe(0);
    rig.driver.open();
    rig.expectWorks();
  });

  it('hardening 26: kicks for queues that are not there are counted and ignored', () => {
    rig = new Rig();
    const before = rig.nic.stats.badKick;
    for (const index of [3, 4, 100, 1023]) rig.nic.writeBar(4, 0x3000 + 4 * index, 2, index);
    for (const index of [3, 0x8000, 0xffff]) rig.nic.writeBar(0, 16, 2, index);
    expect(rig.nic.stats.badKick).toBe(before + 7);
    rig.expectWorks();
  });

  it("hardening 27: a queue's size is frozen when it is enabled, and one that cannot be is not enabled", () => {
    raw = new Raw();
    expect(raw.start([], 32)).toBe(true);
    const { nic } = raw.rig;
    nic.writeBar(4, 22, 2, 1);
    nic.writeBar(4, 24, 2, 256);
    nic.writeBar(4, 32, 4, 0);
    expect(nic.readBar(4, 24, 2)).toBe(32);
    raw.sendGood();
    expect(raw.rig.machine.peer.frames.length).toBe(1);
    for (const size of [0, 3, 48, 512, 0xffff]) {
      const before = nic.stats.badQueue;
      raw.transport.status = 0;
      raw.transport.status = 3;
      raw.transport.setFeatures(1, 1);
      raw.transport.status = 11;
      nic.writeBar(4, 22, 2, 1);
      nic.writeBar(4, 24, 2, size);
      nic.writeBar(4, 28, 2, 1);
      expect(nic.readBar(4, 28, 2)).toBe(0);
      expect(nic.stats.badQueue).toBe(before + 1);
    }
    // Misaligned, and before FEATURES_OK.
    nic.writeBar(4, 24, 2, 64);
    nic.writeBar(4, 32, 4, 8);
    nic.writeBar(4, 28, 2, 1);
    expect(nic.readBar(4, 28, 2)).toBe(0);
    raw.transport.status = 0;
    nic.writeBar(4, 28, 2, 1);
    expect(nic.readBar(4, 28, 2)).toBe(0);
  });

  it('hardening 32: features that were not offered are refused, and masked for a legacy driver', () => {
    raw = new Raw({ properties: { packed: false, mq: false } });
    for (const bit of [PACKED, 22, 57, 60, 63, 24]) {
      expect(raw.start([bit])).toBe(false);
      expect(raw.transport.status).toBe(3);
      expect(raw.rig.nic.accepted.has(bit)).toBe(false);
    }
    expect(raw.rig.nic.stats.badFeatures).toBe(6);
    // Against their dependencies: TSO without checksums, MAC command without its queue.
    expect(raw.start([11])).toBe(false);
    raw.transport.status = 0;
    raw.rig.nic.writeBar(0, 4, 4, 0xffffffff);
    expect(raw.rig.nic.readBar(0, 4, 4)).toBe(raw.rig.nic.readBar(0, 0, 4));
  });

  it('hardening 22: a reset while frames are being sent', () => {
    for (const accept of [0, 1, 3]) {
      rig = new Rig();
      const { peer } = rig.machine;
      const { driver } = rig;
      const batch = new PacketBatch(6);
      for (let i = 0; i < 6; i++)
        batch.plain(i, rig.packet(i % 2 === 0 ? 60 : 3000), i % 2 === 0 ? 60 : 3000);
      const receive = peer.receive.bind(peer);
      peer.receive = (frames, from, to) => {
        peer.receive = receive;
        driver.close();
        return receive(frames, from, Math.min(to, from + accept));
      };
      driver.send(batch, 0, 6);
      rig.machine.settle();
      expect(peer.frames.length).toBe(accept);
      expect(driver.open()).toBe(true);
      rig.machine.peer.port.ready();
      rig.expectWorks();
      if (accept !== 3) rig.close();
    }
  });

  it('hardening 22: ten thousand activations leave nothing behind', () => {
    raw = new Raw();
    const { peer, pool } = raw.rig.machine;
    peer.hold = true;
    for (let i = 0; i < 10_000; i++) {
      expect(raw.start([EVENT_IDX], 8)).toBe(true);
      raw.tx.desc(0, raw.rig.machine.ram.address + 0x40000, 4000);
      raw.tx.offer(0);
      raw.kick(1);
      if (i % 8 === 7) peer.letGo();
    }
    peer.letGo();
    expect(pool.free).toBe(pool.capacity);
    peer.hold = false;
    peer.frames.length = 0;
  });

  it('a frame lent before a reset is not used in the ring after it', () => {
    raw = new Raw();
    expect(raw.start()).toBe(true);
    const { peer, pool } = raw.rig.machine;
    peer.hold = true;
    raw.tx.desc(0, raw.rig.machine.ram.address + 0x40000, 4000);
    raw.tx.offer(0);
    raw.kick(1);
    expect(raw.start()).toBe(true);
    expect(pool.table[peer.held[0]! + REFS]).toBe(1);
    peer.hold = false;
    peer.letGo();
    raw.rig.machine.settle();
    expect(raw.tx.usedIdx).toBe(0);
  });
});
