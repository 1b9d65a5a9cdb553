/**
 * One queue of a tap.
 *
 * With a virtio_net_hdr (vnet_hdr) frames carry their offload facts both ways: what the peer accepts is what the kernel may leave undone
 * (TUNSETOFFLOAD), and what the kernel can do, this port accepts. A 64 KiB segment then crosses as one frame. Kernels that know fewer
 * offloads are asked again for less.
 *
 * An interface that is removed while it is open answers EBADFD: the link goes down, the user is told once, and frames are dropped.
 */

import { HostIoError } from '../core/errors.ts';
import { FACTS } from '../core/pool.ts';
import { ACCEPT_ALL, ACCEPT_CSUM, ACCEPT_UFO, ACCEPT_USO } from '../core/port.ts';
import { errnoName, errnoText } from '../host-io/errno.ts';
import type { Handle, HostIo, TapInfo } from '../host-io/host-io.ts';
import type { BackendContext } from './backend.ts';
import { FramePort, FramePortStats } from './frame-port.ts';
import type { ServedTap } from './vhost-net.ts';

export class TapStats extends FramePortStats {
  /** Frames that came with offload facts (a checksum or a segmentation left to us), and that left with some. */
  rxOffloaded = 0;
  txOffloaded = 0;
  /** Frames for the host by way of the port, while the kernel has the NIC's queues (vhost-net). */
  txDropLent = 0;
  vhostStarts = 0;
  vhostStops = 0;
  vhostKicks = 0;
  vhostInterrupts = 0;
  /** Rings that the kernel could not go on with. */
  vhostBrokenRings = 0;
}

/** A checksum to complete (bit 0), or any GSO type. */
const LEFT_TO_DO = 0xff01;
/** _IOW('T', 216, int). */
const TUNSETVNETHDRSZ = 0x4004_54d8;
const OWN_HEADER_BYTES = 10;
const EBADFD = 77;
const ENODEV = 19;

export class TapPort extends FramePort implements ServedTap {
  readonly stats = new TapStats();
  readonly info: TapInfo;
  #lent = false;

  constructor(name: string, context: BackendContext, hostIo: HostIo, info: TapInfo) {
    super(name, context, hostIo);
    this.info = info;
    this.spillEach = false;
    this.attach(info.handle, info.handle);
    if (info.vnetHeader) {
      // The offload that kernels before 6.2 lack is asked for once, to know.
      const knowsUso = hostIo.tapOffloads(info.handle, ACCEPT_CSUM | ACCEPT_USO);
      hostIo.tapOffloads(info.handle, 0);
      this.port.accepts = knowsUso ? ACCEPT_ALL : ACCEPT_ALL & ~ACCEPT_USO;
    }
  }

  peerAcceptsChanged(bits: number): void {
    if (!this.info.vnetHeader || this.receiveHandle === 0) return;
    for (const less of [0, ACCEPT_USO, ACCEPT_USO | ACCEPT_UFO, ACCEPT_ALL & ~ACCEPT_CSUM]) {
      if (this.hostIo.tapOffloads(this.info.handle, bits & ~less)) return;
    }
    this.hostIo.tapOffloads(this.info.handle, 0);
  }

  // Lent to vhost-net.

  get handle(): Handle {
    return this.info.handle;
  }

  get vnetHeader(): boolean {
    return this.info.vnetHeader;
  }

  lend(lent: boolean): void {
    this.#lent = lent;
    if (this.receiveHandle === 0) return;
    if (!lent && this.vnetHeader) this.setHeaderBytes(OWN_HEADER_BYTES);
    this.idle = lent;
  }

  setHeaderBytes(bytes: number): void {
    const result = this.hostIo.control!(
      this.info.handle,
      TUNSETVNETHDRSZ,
      new Uint8Array(new Int32Array([bytes]).buffer),
    );
    if (result < 0) throw new HostIoError('TUNSETVNETHDRSZ', errnoName(-result), errnoText(-result));
  }

  override receive(frames: Int32Array, from: number, to: number): number {
    if (!this.#lent) return super.receive(frames, from, to);
    this.stats.txDropLent += to - from;
    this.context.pool.releaseAll(frames, from, to);
    return to - from;
  }

  protected override unpack(frames: Int32Array, count: number): number {
    const t = this.context.pool.table;
    for (let i = 0; i < count; i++) if ((t[frames[i]! + FACTS]! & LEFT_TO_DO) !== 0) this.stats.rxOffloaded++;
    return super.unpack(frames, count);
  }

  protected read(slots: Int32Array, count: number, spill: Int32Array): number {
    return this.hostIo.readFrames(this.receiveHandle, slots, 0, count, spill);
  }

  protected write(frames: Int32Array, from: number, to: number): number {
    const sent = this.hostIo.writeFrames(this.sendHandle, frames, from, to);
    const t = this.context.pool.table;
    for (let i = from; i < from + sent; i++) {
      if ((t[frames[i]! + FACTS]! & LEFT_TO_DO) !== 0) this.stats.txOffloaded++;
    }
    return sent;
  }

  protected override mend(): boolean {
    return false;
  }

  protected override isGone(errno: number): boolean {
    return errno === EBADFD || errno === ENODEV;
  }

  protected gone(): void {
    this.context.log.warn({ netdev: this.port.name }, `interface ${this.info.name} is gone`);
    this.port.setCarrier(false);
    this.detach();
  }
}
