/**
 * One client's session: every command of the protocol, done to the device. A command that is malformed, out of its bounds or unknown gets an error reply and changes nothing;
 * no client can make this throw. Each handler returns 0 when it has written its reply, or the errno to reply with.
 *
 * A session ends when its client leaves: its memory is unmapped, its eventfds closed, and the device reset, since for a NIC a VMM that is gone is a machine whose
 * power was cut (and whoever comes next must not get frames by the rings of the one before).
 */

import type { Logger } from '../../core/log.ts';
import type { Loop } from '../../core/loop.ts';
import type { Handle, HostIo } from '../../host-io/host-io.ts';
import type { PciFunction } from '../../pci/pci-function.ts';
import { DmaMap, type DmaStats } from './dma.ts';
import type { VfioUserHost } from './host.ts';
import { type InterruptStats, Interrupts, type IrqSet } from './interrupts.ts';
import * as p from './protocol.ts';
import { Regions } from './regions.ts';
import { acceptVersion } from './version.ts';
import { Wire, type WireStats } from './wire.ts';

export interface SessionParts {
  hostIo: HostIo;
  loop: Loop;
  log: Logger;
  host: VfioUserHost;
  device: PciFunction;
  wireStats: WireStats;
  dmaStats: DmaStats;
  interruptStats: InterruptStats;
  /** The client is gone and everything of it is cleaned up. */
  ended: (reason: string) => void;
}

/** Does a command whose payload is [from, to) of the wire's buffer and at least its fixed size; `fds` are closed for it unless it takes them. */
type Handler = (at: number, from: number, to: number, fds: readonly Handle[]) => number;

interface Command {
  readonly payloadBytes: number;
  readonly handle: Handler;
  /** Descriptors may come along, and the handler takes or closes them. */
  readonly takesFds?: boolean;
}

export class Session {
  readonly #parts: SessionParts;
  readonly #wire: Wire;
  readonly #dma: DmaMap;
  readonly #interrupts: Interrupts;
  readonly #regions: Regions;
  readonly #commands: ReadonlyMap<number, Command>;
  #negotiated = false;

  constructor(handle: Handle, parts: SessionParts) {
    const { hostIo, loop, host, device } = parts;
    this.#parts = parts;
    this.#regions = new Regions(device);
    this.#interrupts = new Interrupts(hostIo, device, host.intxLevel, parts.interruptStats);
    host.interrupts = this.#interrupts;
    this.#wire = new Wire(hostIo, handle, loop, this, parts.wireStats);
    this.#dma = new DmaMap(hostIo, host.memory, this.#wire, parts.dmaStats, () =>
      host.sharedRam.onChanged?.(),
    );
    host.sharedRam.source = () => this.#dma.sharedRanges;
    this.#commands = new Map<number, Command>([
      [p.VERSION, { payloadBytes: 4, handle: (at, from, to) => this.#version(at, from, to) }],
      [
        p.DMA_MAP,
        {
          payloadBytes: p.DMA_MAP_BYTES,
          handle: (at, from, _to, fds) => this.#dmaMap(at, from, fds),
          takesFds: true,
        },
      ],
      [p.DMA_UNMAP, { payloadBytes: p.DMA_UNMAP_BYTES, handle: (at, from) => this.#dmaUnmap(at, from) }],
      [
        p.DEVICE_GET_INFO,
        { payloadBytes: p.DEVICE_INFO_BYTES, handle: (at, from) => this.#deviceInfo(at, from) },
      ],
      [
        p.DEVICE_GET_REGION_INFO,
        { payloadBytes: p.REGION_INFO_BYTES, handle: (at, from) => this.#regionInfo(at, from) },
      ],
      [
        p.DEVICE_GET_REGION_IO_FDS,
        { payloadBytes: p.REGION_IO_FDS_BYTES, handle: (at, from) => this.#regionIoFds(at, from) },
      ],
      [
        p.DEVICE_GET_IRQ_INFO,
        { payloadBytes: p.IRQ_INFO_BYTES, handle: (at, from) => this.#irqInfo(at, from) },
      ],
      [
        p.DEVICE_SET_IRQS,
        {
          payloadBytes: p.IRQ_SET_BYTES,
          handle: (at, from, to, fds) => this.#setIrqs(at, from, to, fds),
          takesFds: true,
        },
      ],
      [
        p.REGION_READ,
        { payloadBytes: p.REGION_ACCESS_BYTES, handle: (at, from) => this.#regionRead(at, from) },
      ],
      [
        p.REGION_WRITE,
        { payloadBytes: p.REGION_ACCESS_BYTES, handle: (at, from, to) => this.#regionWrite(at, from, to) },
      ],
      [
        p.REGION_WRITE_MULTI,
        { payloadBytes: p.WRITE_MULTI_BYTES, handle: (at, from, to) => this.#writeMulti(at, from, to) },
      ],
      [p.DEVICE_RESET, { payloadBytes: 0, handle: (at) => this.#reset(at) }],
      [p.DEVICE_FEATURE, { payloadBytes: p.FEATURE_BYTES, handle: (_at, from) => this.#feature(from) }],
    ]);
  }

  close(reason: string): void {
    this.#wire.close(reason);
  }

  /** The wire: the connection has ended. */
  closed(reason: string): void {
    const { host, device, ended } = this.#parts;
    host.interrupts = null;
    this.#interrupts.close();
    device.reset();
    host.sharedRam.source = null;
    this.#dma.unmapAll();
    ended(reason);
  }

  /** The wire: a whole command lies at `at`. */
  command(at: number, end: number, fds: readonly Handle[], excessFds: number): void {
    const { view } = this.#wire;
    const noReply = (view.getUint32(at + p.FLAGS, true) & p.FLAG_NO_REPLY) !== 0;
    let errno = p.EIO;
    try {
      errno = this.#dispatch(at, end, fds, excessFds);
    } catch (error) {
      // Ours to mend, not the client's to suffer: the device and every other client go on.
      this.#parts.log.error(
        { err: error, command: view.getUint16(at + p.COMMAND, true) },
        'vfio-user: a command failed',
      );
    }
    if (!this.#wire.open) return;
    if (errno !== 0 || noReply) this.#wire.withdraw();
    if (errno !== 0 && !noReply) this.#wire.replyError(at, errno);
  }

  #dispatch(at: number, end: number, fds: readonly Handle[], excessFds: number): number {
    const { view } = this.#wire;
    const number = view.getUint16(at + p.COMMAND, true);
    const command = this.#commands.get(number);
    const from = at + p.HEADER_BYTES;
    let errno = 0;
    if (command === undefined) errno = p.EOPNOTSUPP;
    else if (this.#negotiated === (number === p.VERSION)) errno = p.EINVAL;
    else if (end - from < command.payloadBytes || excessFds > 0) errno = p.EINVAL;
    else if (fds.length > 0 && command.takesFds !== true) errno = p.EINVAL;
    if (errno === 0) return command!.handle(at, from, end, fds);
    for (const fd of fds) this.#parts.hostIo.close(fd);
    return errno;
  }

  #version(at: number, from: number, to: number): number {
    const answer = acceptVersion(this.#wire.view, from, to);
    if (answer === null) return p.EINVAL;
    this.#dma.transferBytes = answer.transferBytes;
    const out = this.#wire.reply(at, 4 + answer.data.length);
    this.#wire.outView.setUint16(out, p.MAJOR, true);
    this.#wire.outView.setUint16(out + 2, p.MINOR, true);
    this.#wire.out.set(answer.data, out + 4);
    this.#negotiated = true;
    return 0;
  }

  #dmaMap(at: number, from: number, fds: readonly Handle[]): number {
    const { view } = this.#wire;
    if (fds.length > 1) {
      for (const fd of fds) this.#parts.hostIo.close(fd);
      return p.EINVAL;
    }
    const errno = this.#dma.map(
      view.getUint32(from + 4, true),
      p.u64(view, from + 8),
      p.u64(view, from + 16),
      p.u64(view, from + 24),
      fds[0] ?? 0,
    );
    if (errno === 0) this.#wire.reply(at, 0);
    return errno;
  }

  #dmaUnmap(at: number, from: number): number {
    const { view, bytes } = this.#wire;
    const flags = view.getUint32(from + 4, true);
    const address = p.u64(view, from + 8);
    const length = p.u64(view, from + 16);
    if ((flags & ~p.UNMAP_ALL) !== 0) return p.EINVAL;
    if ((flags & p.UNMAP_ALL) !== 0) {
      if (address !== 0 || length !== 0) return p.EINVAL;
      this.#dma.unmapAll();
    } else {
      const errno = this.#dma.unmap(address, length);
      if (errno !== 0) return errno;
    }
    const out = this.#wire.reply(at, p.DMA_UNMAP_BYTES);
    this.#wire.out.set(bytes.subarray(from, from + p.DMA_UNMAP_BYTES), out);
    return 0;
  }

  #deviceInfo(at: number, from: number): number {
    if (this.#wire.view.getUint32(from, true) < p.DEVICE_INFO_BYTES) return p.EINVAL;
    const out = this.#wire.reply(at, p.DEVICE_INFO_BYTES);
    const view = this.#wire.outView;
    view.setUint32(out, p.DEVICE_INFO_BYTES, true);
    view.setUint32(out + 4, p.DEVICE_FLAG_RESET | p.DEVICE_FLAG_PCI, true);
    view.setUint32(out + 8, p.REGION_COUNT, true);
    view.setUint32(out + 12, p.IRQ_COUNT, true);
    return 0;
  }

  #regionInfo(at: number, from: number): number {
    const index = this.#wire.view.getUint32(from + 8, true);
    if (this.#wire.view.getUint32(from, true) < p.REGION_INFO_BYTES || index >= p.REGION_COUNT)
      return p.EINVAL;
    const out = this.#wire.reply(at, p.REGION_INFO_BYTES);
    const view = this.#wire.outView;
    view.setUint32(out, p.REGION_INFO_BYTES, true);
    view.setUint32(out + 4, this.#regions.flags(index), true);
    view.setUint32(out + 8, index, true);
    p.putU64(view, out + 16, this.#regions.bytes(index));
    return 0;
  }

  /** No sub-region has a descriptor of its own: register writes are ordered with reads only on the socket. */
  #regionIoFds(at: number, from: number): number {
    const { view } = this.#wire;
    const index = view.getUint32(from + 8, true);
    if (view.getUint32(from, true) < p.REGION_IO_FDS_BYTES || view.getUint32(from + 4, true) !== 0)
      return p.EINVAL;
    if (index >= p.REGION_COUNT) return p.EINVAL;
    const out = this.#wire.reply(at, p.REGION_IO_FDS_BYTES);
    this.#wire.outView.setUint32(out, p.REGION_IO_FDS_BYTES, true);
    this.#wire.outView.setUint32(out + 8, index, true);
    return 0;
  }

  #irqInfo(at: number, from: number): number {
    const index = this.#wire.view.getUint32(from + 8, true);
    if (this.#wire.view.getUint32(from, true) < p.IRQ_INFO_BYTES) return p.EINVAL;
    // Errors (AER) and unplug requests are told by interrupts only where there are any: VFIO gives a conventional PCI device none.
    if (index >= p.IRQ_COUNT || index > p.IRQ_MSIX) return p.EINVAL;
    const out = this.#wire.reply(at, p.IRQ_INFO_BYTES);
    const view = this.#wire.outView;
    view.setUint32(out, p.IRQ_INFO_BYTES, true);
    view.setUint32(out + 4, this.#interrupts.flags(index), true);
    view.setUint32(out + 8, index, true);
    view.setUint32(out + 12, this.#interrupts.count(index), true);
    return 0;
  }

  #setIrqs(at: number, from: number, to: number, fds: readonly Handle[]): number {
    const { view, bytes } = this.#wire;
    const request: IrqSet = {
      flags: view.getUint32(from + 4, true),
      index: view.getUint32(from + 8, true),
      start: view.getUint32(from + 12, true),
      count: view.getUint32(from + 16, true),
      bytes,
      boolAt: from + p.IRQ_SET_BYTES,
      boolEnd: to,
    };
    const errno = this.#interrupts.set(request, fds);
    if (errno === 0) this.#wire.reply(at, 0);
    return errno;
  }

  #regionRead(at: number, from: number): number {
    const { view } = this.#wire;
    const offset = p.u64(view, from);
    const region = view.getUint32(from + 8, true);
    const count = view.getUint32(from + 12, true);
    if (!this.#regions.holds(region, offset, count) || count > p.MAX_TRANSFER_BYTES) return p.EINVAL;
    // The reply is begun when the device has been read: within its DMA, other commands may be answered.
    // A guest's own access, which its CPU waits for, needs no array.
    const isOne = count === 4 || count === 2 || count === 1;
    const value = isOne ? this.#regions.readOne(region, offset, count) : 0;
    const data = isOne ? null : this.#regions.read(region, offset, count);
    const out = this.#wire.reply(at, p.REGION_ACCESS_BYTES + count);
    const reply = this.#wire.outView;
    p.putU64(reply, out, offset);
    reply.setUint32(out + 8, region, true);
    reply.setUint32(out + 12, count, true);
    const place = out + p.REGION_ACCESS_BYTES;
    if (data !== null) this.#wire.out.set(data, place);
    else if (count === 4) reply.setUint32(place, value, true);
    else if (count === 2) reply.setUint16(place, value, true);
    else reply.setUint8(place, value);
    return 0;
  }

  #regionWrite(at: number, from: number, to: number): number {
    const { view } = this.#wire;
    const offset = p.u64(view, from);
    const region = view.getUint32(from + 8, true);
    const count = view.getUint32(from + 12, true);
    const data = from + p.REGION_ACCESS_BYTES;
    if (to - data < count || count > p.MAX_TRANSFER_BYTES) return p.EINVAL;
    if (!this.#regions.holds(region, offset, count) || !this.#regions.isWritable(region)) return p.EINVAL;
    this.#regions.write(region, offset, view, data, count);
    const out = this.#wire.reply(at, p.REGION_ACCESS_BYTES);
    const reply = this.#wire.outView;
    p.putU64(reply, out, offset);
    reply.setUint32(out + 8, region, true);
    reply.setUint32(out + 12, count, true);
    return 0;
  }

  #writeMulti(at: number, from: number, to: number): number {
    const { view } = this.#wire;
    const count = p.u64(view, from);
    const first = from + p.WRITE_MULTI_BYTES;
    if (count > (to - first) / p.WRITE_MULTI_ENTRY_BYTES) return p.EINVAL;
    const end = first + count * p.WRITE_MULTI_ENTRY_BYTES;
    for (let entry = first; entry < end; entry += p.WRITE_MULTI_ENTRY_BYTES) {
      const region = view.getUint32(entry + 8, true);
      const length = view.getUint32(entry + 12, true);
      if (
        length > 8 ||
        !this.#regions.holds(region, p.u64(view, entry), length) ||
        !this.#regions.isWritable(region)
      )
        return p.EINVAL;
    }
    for (let entry = first; entry < end; entry += p.WRITE_MULTI_ENTRY_BYTES) {
      const length = view.getUint32(entry + 12, true);
      this.#regions.write(view.getUint32(entry + 8, true), p.u64(view, entry), view, entry + 16, length);
    }
    const out = this.#wire.reply(at, p.WRITE_MULTI_BYTES);
    p.putU64(this.#wire.outView, out, count);
    return 0;
  }

  #reset(at: number): number {
    this.#parts.device.reset();
    this.#interrupts.reset();
    this.#wire.reply(at, 0);
    return 0;
  }

  /** The features there are all serve migration, which this device does not offer: VFIO's own answer for that is ENOTTY. */
  #feature(from: number): number {
    const flags = this.#wire.view.getUint32(from + 4, true);
    const method = flags & (p.FEATURE_GET | p.FEATURE_SET | p.FEATURE_PROBE);
    if ((flags & ~p.FEATURE_INDEX_MASK) !== method || method === 0) return p.EINVAL;
    if (method === (p.FEATURE_GET | p.FEATURE_SET)) return p.EINVAL;
    return p.ENOTTY;
  }
}
