/**
 * A netmap module for tests: memory laid out as net/netmap.h publishes it, and the ioctls that move slots between the rings. Written from the layout, apart
 * from src/backends/netmap-rings.ts, with DataViews.
 *
 * Two ports lie in one region, joined as by a cable: what one sends (NIOCTXSYNC) arrives in a receive ring of the other's, or
 * is lost when it is full. `lend` says whether a device's file is readable or writable, as poll would.
 */

import { expect } from 'vitest';
import { type Handle, READABLE, type ReadyListener, WRITABLE } from '../../src/host-io/host-io.ts';
import type { NativeHostIo } from '../../src/host-io/native.ts';

const NIOCREGIF = 0xc03c6992;
const NIOCTXSYNC = 0x6994;
const NIOCRXSYNC = 0x6995;
const little = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1;

export interface KernelOptions {
  api?: number;
  slots?: number;
  bufferBytes?: number;
  rxRings?: number;
  /** As API 12 on tells them; 0: the word is spare. */
  hostRings?: number;
  /** The errno that NIOCREGIF ends with. */
  refuse?: number;
}

interface Ring {
  at: number;
  slots: number;
  /** First slot that the kernel owns of those the program gave it: what is between here and head is to be sent, or to be filled again. */
  kernelHead: number;
}

interface Port {
  handle: Handle;
  tx: Ring[];
  rx: Ring[];
  listener: ReadyListener | null;
  interest: number;
  gone: boolean;
}

const IF_AT = [4096, 8192] as const;
const RING_HEADER = 256;

export class NetmapKernel {
  readonly memory: Uint8Array;
  readonly view: DataView;
  readonly ports: Port[] = [];
  readonly names: string[] = [];
  readonly versions: number[] = [];
  txSyncs = 0;
  rxSyncs = 0;
  unmapped = 0;
  /** While false, what is sent stays in its ring. */
  cableTakes = true;
  /** Which receive ring the next frame goes to. */
  pickRing: () => number = () => 0;
  readonly #options: Required<KernelOptions>;
  readonly #buffers: number;

  constructor(hostIo: NativeHostIo, options: KernelOptions = {}) {
    this.#options = {
      api: 14,
      slots: 16,
      bufferBytes: 2048,
      rxRings: 1,
      hostRings: 1,
      refuse: 0,
      ...options,
    };
    const { slots, bufferBytes, rxRings, hostRings } = this.#options;
    const ringBytes = Math.ceil((RING_HEADER + slots * 16) / 256) * 256;
    const ringsOfPort = 2 + 2 * (hostRings || 1) + rxRings;
    const rings = 12_288;
    this.#buffers = Math.ceil((rings + 2 * ringsOfPort * ringBytes) / 4096) * 4096;
    const buffers = 2 * ringsOfPort * slots + 2;
    this.memory = new Uint8Array(this.#buffers + buffers * bufferBytes);
    this.view = new DataView(this.memory.buffer);
    let ringAt = rings;
    let buffer = 2;
    for (const at of IF_AT) {
      const port: Port = { handle: 0, tx: [], rx: [], listener: null, interest: 0, gone: false };
      this.#u32(at + 24, 1);
      this.#u32(at + 28, rxRings);
      this.#u32(at + 36, hostRings);
      this.#u32(at + 40, hostRings);
      const hosts = hostRings || 1;
      const kinds = [
        ...['tx'],
        ...Array(hosts).fill('host'),
        ...Array(rxRings).fill('rx'),
        ...Array(hosts).fill('host'),
      ];
      for (const [i, kind] of kinds.entries()) {
        this.view.setBigInt64(at + 56 + 8 * i, BigInt(ringAt - at), little);
        this.view.setBigInt64(ringAt, BigInt(this.#buffers - ringAt), little);
        this.#u32(ringAt + 8, slots);
        this.#u32(ringAt + 12, bufferBytes);
        for (let slot = 0; slot < slots; slot++) this.#u32(ringAt + RING_HEADER + 16 * slot, buffer++);
        const ring = { at: ringAt, slots, kernelHead: 0 };
        if (kind === 'tx') {
          this.#u32(ringAt + 28, slots - 1);
          port.tx.push(ring);
        }
        if (kind === 'rx') port.rx.push(ring);
        ringAt += ringBytes;
      }
      this.ports.push(port);
    }
    this.#install(hostIo);
  }

  #u32(at: number, value: number): void {
    this.view.setUint32(at, value, little);
  }

  u32(at: number): number {
    return this.view.getUint32(at, little);
  }

  /** Puts itself in place of the device's ioctls and readiness. */
  #install(hostIo: NativeHostIo): void {
    const real = {
      look: hostIo.look.bind(hostIo),
      watch: hostIo.watch.bind(hostIo),
      setInterest: hostIo.setInterest.bind(hostIo),
      control: hostIo.control.bind(hostIo),
      unmap: hostIo.unmap.bind(hostIo),
      close: hostIo.close.bind(hostIo),
    };
    const portOf = (handle: Handle): Port | undefined => this.ports.find((port) => port.handle === handle);
    hostIo.look = () => real.look() + (this.poll() ? 1 : 0);
    hostIo.map = (_handle, offset, length) => {
      expect(offset).toBe(0);
      expect(length).toBe(this.memory.length);
      return this.memory;
    };
    hostIo.unmap = (memory) => {
      if (memory === this.memory) this.unmapped++;
      else real.unmap(memory);
    };
    hostIo.close = (handle) => {
      const port = portOf(handle);
      if (port !== undefined) port.listener = null;
      real.close(handle);
    };
    hostIo.watch = (handle, interest, listener) => {
      const port = portOf(handle);
      if (port === undefined) real.watch(handle, interest, listener);
      else {
        port.listener = listener;
        port.interest = interest;
      }
    };
    hostIo.setInterest = (handle, interest) => {
      const port = portOf(handle);
      if (port === undefined) real.setInterest(handle, interest);
      else port.interest = interest;
    };
    hostIo.control = (handle, request, argument) => {
      if (request === NIOCREGIF) return this.#register(handle, argument!);
      const port = portOf(handle);
      if (port === undefined) return real.control(handle, request, argument);
      if (port.gone) return -6;
      if (request === NIOCTXSYNC) this.#txSync(port);
      else if (request === NIOCRXSYNC) this.#rxSync(port);
      else throw new Error(`ioctl ${request.toString(16)}`);
      return 0;
    };
  }

  #register(handle: Handle, request: Uint8Array): number {
    expect(request.length).toBe(60);
    const view = new DataView(request.buffer, request.byteOffset);
    this.versions.push(view.getUint32(16, little));
    if (view.getUint32(16, little) !== this.#options.api) {
      view.setUint32(16, this.#options.api, little);
      return -22;
    }
    if (this.#options.refuse !== 0) return -this.#options.refuse;
    expect(view.getUint32(52, little)).toBe(1);
    const index = this.ports.findIndex((one) => one.handle === 0);
    const port = this.ports[index]!;
    port.handle = handle;
    this.names.push(new TextDecoder().decode(request.subarray(0, request.indexOf(0))));
    view.setUint32(20, IF_AT[index]!, little);
    view.setUint32(24, this.memory.length, little);
    return 0;
  }

  #buffer(ring: Ring, slot: number): number {
    return this.#buffers + this.u32(ring.at + RING_HEADER + 16 * slot) * this.#options.bufferBytes;
  }

  #txSync(port: Port): void {
    this.txSyncs++;
    this.#push(port);
  }

  #push(port: Port): void {
    const peer = this.ports[1 - this.ports.indexOf(port)]!;
    for (const ring of port.tx) {
      const head = this.u32(ring.at + 20);
      expect(head, 'head').toBeLessThan(ring.slots);
      while (this.cableTakes && ring.kernelHead !== head) {
        // A frame goes whole.
        const slots: number[] = [];
        for (let at = ring.kernelHead, more = true; more; at = (at + 1) % ring.slots) {
          expect(at, 'a frame whose last slot is missing').not.toBe(head);
          slots.push(at);
          more = (this.view.getUint16(ring.at + RING_HEADER + 16 * at + 6, little) & 0x20) !== 0;
        }
        if (!this.#deliver(ring, slots, peer)) break;
        ring.kernelHead = (slots.at(-1)! + 1) % ring.slots;
      }
      this.#u32(ring.at + 28, (ring.kernelHead + ring.slots - 1) % ring.slots);
    }
  }

  #deliver(from: Ring, slots: readonly number[], peer: Port): boolean {
    const ring = peer.rx[this.pickRing()]!;
    const tail = this.u32(ring.at + 28);
    const free = (ring.kernelHead - tail - 1 + ring.slots) % ring.slots;
    if (free < slots.length) return false;
    for (const [i, slot] of slots.entries()) {
      const to = (tail + i) % ring.slots;
      const source = from.at + RING_HEADER + 16 * slot;
      const target = ring.at + RING_HEADER + 16 * to;
      const length = this.view.getUint16(source + 4, little);
      this.memory.copyWithin(
        this.#buffer(ring, to),
        this.#buffer(from, slot),
        this.#buffer(from, slot) + length,
      );
      this.view.setUint16(target + 4, length, little);
      this.view.setUint16(target + 6, i + 1 < slots.length ? 0x20 : 0, little);
    }
    this.#u32(ring.at + 28, (tail + slots.length) % ring.slots);
    return true;
  }

  #rxSync(port: Port): void {
    this.rxSyncs++;
    for (const ring of port.rx) ring.kernelHead = this.u32(ring.at + 20);
  }

  /** What poll does: both rings are looked at, and who waits is told. Returns whether anybody was. */
  poll(): boolean {
    let told = false;
    for (const port of this.ports) {
      if (port.handle === 0 || port.listener === null) continue;
      let ready = port.gone ? 8 : 0;
      if (!port.gone && (port.interest & READABLE) !== 0) {
        for (const ring of port.rx) {
          ring.kernelHead = this.u32(ring.at + 20);
          if (ring.kernelHead !== this.u32(ring.at + 28)) ready |= READABLE;
        }
      }
      if (!port.gone) {
        // Whatever is asked for: what waits in transmit rings goes on.
        this.#push(port);
        if (
          (port.interest & WRITABLE) !== 0 &&
          port.tx.some((ring) => this.u32(ring.at + 24) !== this.u32(ring.at + 28))
        )
          ready |= WRITABLE;
      }
      if (ready !== 0) {
        told = true;
        port.listener(ready);
      }
    }
    return told;
  }
}
