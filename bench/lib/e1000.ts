/** What the e1000 benches share: a machine with a real clock's loop, the plain-object twins, and measuring. */
import { SystemClock, seededRandom } from '../../src/core/clock.ts';
import { copyRounded } from '../../src/core/copy.ts';
import { silentLogger } from '../../src/core/log.ts';
import { Loop } from '../../src/core/loop.ts';
import { FramePool, OFFSET } from '../../src/core/pool.ts';
import { ACCEPT_ALL, Port } from '../../src/core/port.ts';
import { GuestRam } from '../../src/guest/driver/guest-ram.ts';
import { E1000 } from '../../src/nic/e1000/index.ts';
import { adapt } from '../../src/nic/offload.ts';
import type { DeviceHost } from '../../src/pci/device-host.ts';
import { DMA_READ, GuestMemory } from '../../src/pci/guest-memory.ts';
import { median } from './report.ts';

export const MAC = Uint8Array.of(0x52, 0x54, 0, 0x12, 0x34, 0x56);

/** RAM and time around one NIC. */
export class Machine implements DeviceHost {
  readonly loop = new Loop(new SystemClock(() => performance.now()));
  readonly random = seededRandom(1);
  readonly log = silentLogger;
  readonly pool = new FramePool({ smallSlots: 4096, largeSlots: 64, bareRecords: 8192 });
  readonly memory = new GuestMemory(this.pool);
  readonly ram = new GuestRam(16 << 20);
  interrupts = 0;

  constructor() {
    this.memory.add(this.ram.address, this.ram.bytes);
  }

  setIntx(level: boolean): void {
    if (level) this.interrupts++;
  }

  signalMsi(): void {}
}

/** One e1000 whose peer is `sink`. */
export class E1000Bench {
  readonly machine = new Machine();
  readonly nic: E1000;
  readonly peer: Port;
  sink: (frames: Int32Array, from: number, to: number) => number;

  constructor(_ringSize: number) {
    const { machine } = this;
    const link = { pool: machine.pool, loop: machine.loop, adapt };
    this.nic = new E1000({ host: machine, link, name: 'e1000' }, { mac: MAC });
    this.sink = (frames, from, to) => {
      machine.pool.releaseAll(frames, from, to);
      return to - from;
    };
    const receive = (frames: Int32Array, from: number, to: number): number => this.sink(frames, from, to);
    this.peer = new Port('peer', 'backend', { receive, peerReady() {} }, link);
    this.peer.accepts = ACCEPT_ALL;
    Port.connect(this.nic.port, this.peer);
  }

  close(): void {
    this.nic.close();
    this.machine.loop.run();
    if (this.machine.pool.free !== this.machine.pool.capacity) throw new Error('frames leaked');
  }
}

/** An Ethernet, IPv4 and TCP header in front of `length` bytes in all. */
export function tcpHeaders(length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  bytes.set(MAC, 0);
  bytes.set([2, 0, 0, 0, 0, 1], 6);
  bytes.set(
    [
      8,
      0,
      0x45,
      0,
      (length - 14) >> 8,
      (length - 14) & 255,
      0,
      1,
      0x40,
      0,
      64,
      6,
      0,
      0,
      10,
      0,
      2,
      15,
      10,
      0,
      2,
      2,
    ],
    12,
  );
  bytes.set([0x30, 0x39, 0, 80, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 255, 255, 0, 0, 0, 0], 34);
  return bytes;
}

/** Median ns of CPU time a frame of each way (all threads of the process), the ways alternating: wall time would count who else runs here. */
export function rates(
  rounds: number,
  frames: number,
  ways: Record<string, () => void>,
): Record<string, number> {
  const samples: Record<string, number[]> = {};
  for (const run of Object.values(ways)) run();
  for (let round = 0; round < rounds; round++) {
    for (const [name, run] of Object.entries(ways)) {
      const before = process.cpuUsage();
      run();
      const { user, system } = process.cpuUsage(before);
      (samples[name] ??= []).push((1000 * (user + system)) / frames);
    }
  }
  return Object.fromEntries(Object.entries(samples).map(([name, list]) => [name, median(list)]));
}

/** Heap bytes allocated a frame, as far as no collection hides them: the least of several runs. */
export function heapPerFrame(frames: number, run: () => void): number {
  let least = Number.POSITIVE_INFINITY;
  for (let i = 0; i < 5; i++) {
    const before = process.memoryUsage().heapUsed;
    run();
    const grown = process.memoryUsage().heapUsed - before;
    if (grown >= 0 && grown < least) least = grown;
  }
  return least / frames;
}

interface Descriptor {
  buffer: Uint8Array;
  offset: number;
  length: number;
  done: boolean;
}

/** The same job with an object for each descriptor and a fresh array for each frame; returns ns a frame. */
export function twinTransmit(length: number, frames: number, rounds: number): number {
  const ram = new Uint8Array(4 << 20);
  const ring: Descriptor[] = [];
  for (let i = 0; i < 1024; i++)
    ring.push({ buffer: ram, offset: (i * 2048) % (2 << 20), length, done: false });
  const counters = { frames: 0, bytes: 0 };
  let touched = 0;
  const receive = (batch: Uint8Array[]): void => {
    for (const frame of batch) touched += frame[0]! + frame[frame.length - 1]!;
  };
  let head = 0;
  const run = (): void => {
    for (let done = 0; done < frames; done += 256) {
      const batch: Uint8Array[] = [];
      for (let i = 0; i < 256; i++) {
        const descriptor = ring[head]!;
        head = (head + 1) % ring.length;
        batch.push(descriptor.buffer.slice(descriptor.offset, descriptor.offset + descriptor.length));
        counters.frames++;
        counters.bytes += descriptor.length;
        descriptor.done = true;
      }
      receive(batch);
    }
  };
  const result = rates(rounds, frames, { run }).run!;
  if (counters.frames === 0 || touched < 0) throw new Error('nothing was sent');
  return result;
}

/** Receiving, in the same way: a fresh array for each frame is copied to the guest's buffer. */
export function twinReceive(length: number, frames: number, rounds: number): number {
  const ram = new Uint8Array(4 << 20);
  const ring: Descriptor[] = [];
  for (let i = 0; i < 1024; i++)
    ring.push({ buffer: ram, offset: (i * 2048) % (2 << 20), length: 0, done: false });
  const source = tcpHeaders(length);
  const counters = { frames: 0, bytes: 0 };
  let head = 0;
  const mac = [...MAC];
  const run = (): void => {
    for (let done = 0; done < frames; done += 256) {
      const batch: Uint8Array[] = [];
      for (let i = 0; i < 256; i++) batch.push(source.slice());
      for (const frame of batch) {
        if (!mac.every((byte, i) => frame[i] === byte)) continue;
        const descriptor = ring[head]!;
        head = (head + 1) % ring.length;
        descriptor.buffer.set(frame, descriptor.offset);
        descriptor.length = frame.length;
        descriptor.done = true;
        counters.frames++;
        counters.bytes += frame.length;
      }
    }
  };
  const result = rates(rounds, frames, { run }).run!;
  if (counters.frames === 0) throw new Error('nothing was received');
  return result;
}

/**
 * The least that any model of a NIC does for a frame on this pool: take a slot, copy the bytes between guest RAM and it, let go of it. What the model
 * costs is judged by its ratio to this, measured in the same run. Returns a function that does it `frames` times.
 */
export function floorOf(bench: { readonly machine: Machine }, length: number, frames: number): () => void {
  const { pool, ram, memory } = bench.machine;
  const slots = pool.memories[0]!;
  const t = pool.table;
  const base = ram.allocate(256 * 2048, 64);
  memory.translate(base, 1, DMA_READ);
  const guest = memory.hit;
  const at = ram.offset(base);
  const batch = new Int32Array(64);
  return () => {
    for (let done = 0; done < frames; done += batch.length) {
      for (let i = 0; i < batch.length; i++) {
        const frame = pool.alloc(length);
        copyRounded(guest, at + (((done + i) & 255) << 11), slots, t[frame + OFFSET]!, length);
        pool.setLength(frame, length);
        batch[i] = frame;
      }
      pool.releaseAll(batch, 0, batch.length);
    }
  };
}
