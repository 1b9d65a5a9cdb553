/**
 * A client's interrupts: an eventfd for each of INTx, the MSI vectors and the MSI-X vectors, as SET_IRQS gives them.
 *
 * INTx is a level brought over an event, as VFIO does it: the pin going high signals once and masks itself; the client unmasks when its guest has been at the
 * device, and if the pin is still high then, it is signalled again. So no edge is lost and a level that stays is told again.
 *
 * A client may give an eventfd for the unmask action too (KVM's resampling of level interrupts): when that is signalled, INTx is unmasked.
 */

import { readlinkSync } from 'node:fs';
import { type Handle, type HostIo, READABLE } from '../../host-io/host-io.ts';
import type { PciFunction } from '../../pci/pci-function.ts';
import {
  EINVAL,
  EOPNOTSUPP,
  IRQ_ACTION_MASK,
  IRQ_ACTION_TRIGGER,
  IRQ_ACTION_UNMASK,
  IRQ_ACTIONS,
  IRQ_COUNT,
  IRQ_DATA_BOOL,
  IRQ_DATA_EVENTFD,
  IRQ_DATA_MASK,
  IRQ_DATA_NONE,
  IRQ_INFO_AUTOMASKED,
  IRQ_INFO_EVENTFD,
  IRQ_INFO_MASKABLE,
  IRQ_INFO_NORESIZE,
  IRQ_INTX,
  IRQ_MSI,
  IRQ_MSIX,
} from './protocol.ts';

export class InterruptStats {
  intx = 0;
  messages = 0;
  /** Raised with nobody to tell. */
  unheard = 0;
}

/** What SET_IRQS asks for. */
export interface IrqSet {
  flags: number;
  index: number;
  start: number;
  count: number;
  /** With IRQ_DATA_BOOL: one byte for each, from `boolAt`. */
  bytes: Uint8Array;
  boolAt: number;
  boolEnd: number;
}

export class Interrupts {
  readonly #hostIo: HostIo;
  readonly #device: PciFunction;
  readonly #stats: InterruptStats;
  /** Eventfds by index and vector; 0: none. */
  readonly #triggers: Handle[][];
  #unmaskEvent: Handle = 0;
  #masked = false;
  #level: boolean;

  constructor(hostIo: HostIo, device: PciFunction, level: boolean, stats: InterruptStats) {
    this.#hostIo = hostIo;
    this.#device = device;
    this.#level = level;
    this.#stats = stats;
    this.#triggers = Array.from({ length: IRQ_COUNT }, (_, index) =>
      new Array<Handle>(this.count(index)).fill(0),
    );
  }

  /** How many interrupts of a kind the function has. */
  count(index: number): number {
    if (index === IRQ_INTX) return this.#device.config.bytes[PIN] === 0 ? 0 : 1;
    if (index === IRQ_MSI) return this.#device.msi?.vectors ?? 0;
    if (index === IRQ_MSIX) return this.#device.msix?.vectors ?? 0;
    return 0;
  }

  /** IRQ_INFO_* flags of a kind. */
  flags(index: number): number {
    if (this.count(index) === 0) return 0;
    return index === IRQ_INTX
      ? IRQ_INFO_EVENTFD | IRQ_INFO_MASKABLE | IRQ_INFO_AUTOMASKED
      : IRQ_INFO_EVENTFD | IRQ_INFO_NORESIZE;
  }

  setIntx(level: boolean): void {
    this.#level = level;
    if (level) this.#raise();
  }

  #raise(): void {
    if (!this.#level || this.#masked) return;
    const event = this.#triggers[IRQ_INTX]![0] ?? 0;
    if (event === 0) {
      this.#stats.unheard++;
      return;
    }
    this.#masked = true;
    this.#stats.intx++;
    this.#hostIo.signal(event);
  }

  /** A message of MSI-X when the client has that enabled, else of MSI. */
  signalMessage(vector: number): void {
    const kind = this.#isEnabled(IRQ_MSIX) ? IRQ_MSIX : IRQ_MSI;
    const event = this.#triggers[kind]![vector] ?? 0;
    if (event === 0) {
      this.#stats.unheard++;
      return;
    }
    this.#stats.messages++;
    this.#hostIo.signal(event);
  }

  #isEnabled(index: number): boolean {
    return this.#triggers[index]!.some((event) => event !== 0);
  }

  /** Does what SET_IRQS asks. Returns 0, or an errno, and then nothing has changed; either way every one of `fds` is taken or closed. */
  set(request: IrqSet, fds: readonly Handle[]): number {
    const errno = this.#check(request, fds);
    if (errno !== 0) {
      for (const fd of fds) this.#hostIo.close(fd);
      return errno;
    }
    const { flags, index, start, count } = request;
    switch (flags & IRQ_ACTIONS) {
      case IRQ_ACTION_TRIGGER:
        this.#setTrigger(request, fds);
        break;
      case IRQ_ACTION_MASK:
        for (const fd of fds) this.#hostIo.close(fd);
        if (this.#chosen(request, 0)) this.#masked = true;
        break;
      default:
        if ((flags & IRQ_DATA_MASK) === IRQ_DATA_EVENTFD) this.#setUnmaskEvent(fds[0] ?? 0);
        else if (index === IRQ_INTX && start === 0 && count === 1 && this.#chosen(request, 0)) this.#unmask();
    }
    return 0;
  }

  #check({ flags, index, start, count, boolAt, boolEnd }: IrqSet, fds: readonly Handle[]): number {
    const action = flags & IRQ_ACTIONS;
    const data = flags & IRQ_DATA_MASK;
    if ((flags & ~(IRQ_ACTIONS | IRQ_DATA_MASK)) !== 0) return EINVAL;
    if (action !== IRQ_ACTION_TRIGGER && action !== IRQ_ACTION_MASK && action !== IRQ_ACTION_UNMASK)
      return EINVAL;
    if (data !== IRQ_DATA_NONE && data !== IRQ_DATA_BOOL && data !== IRQ_DATA_EVENTFD) return EINVAL;
    if (index >= IRQ_COUNT || start + count > this.count(index)) return EINVAL;
    // Nothing to set is only said by "disable all".
    if (count === 0 && !(data === IRQ_DATA_NONE && action === IRQ_ACTION_TRIGGER && start === 0))
      return EINVAL;
    if (data !== IRQ_DATA_EVENTFD && fds.length > 0) return EINVAL;
    if (data === IRQ_DATA_EVENTFD && fds.length !== 0 && fds.length !== count) return EINVAL;
    if (data === IRQ_DATA_BOOL && boolEnd - boolAt < count) return EINVAL;
    // MSI and MSI-X are masked in their own tables, which the client keeps.
    if (action !== IRQ_ACTION_TRIGGER && index !== IRQ_INTX) return EOPNOTSUPP;
    if (action === IRQ_ACTION_MASK && data === IRQ_DATA_EVENTFD) return EOPNOTSUPP;
    return fds.every((fd) => isEventFd(this.#hostIo.fdOf(fd))) ? 0 : EINVAL;
  }

  /** Whether the request means vector `i` of its run. */
  #chosen({ flags, bytes, boolAt }: IrqSet, i: number): boolean {
    return (flags & IRQ_DATA_MASK) !== IRQ_DATA_BOOL || bytes[boolAt + i] !== 0;
  }

  #setTrigger(request: IrqSet, fds: readonly Handle[]): void {
    const { flags, index, start, count } = request;
    const events = this.#triggers[index]!;
    const data = flags & IRQ_DATA_MASK;
    if (data === IRQ_DATA_EVENTFD) {
      for (let i = 0; i < count; i++) this.#replace(events, start + i, fds[i] ?? 0);
    } else if (count === 0) {
      for (let i = 0; i < events.length; i++) this.#replace(events, i, 0);
      if (index === IRQ_INTX) this.#setUnmaskEvent(0);
    } else {
      // The client asks for an interrupt itself.
      for (let i = 0; i < count; i++) {
        const event = events[start + i]!;
        if (event !== 0 && this.#chosen(request, i)) this.#hostIo.signal(event);
      }
      return;
    }
    if (index === IRQ_INTX) {
      this.#masked = false;
      if (this.#isEnabled(IRQ_INTX)) this.#raise();
    }
    this.#device.setExternalInterrupts(
      this.#isEnabled(IRQ_MSIX) ? 'msix' : this.#isEnabled(IRQ_MSI) ? 'msi' : 'none',
    );
  }

  #replace(events: Handle[], vector: number, event: Handle): void {
    const old = events[vector]!;
    if (old !== 0) this.#hostIo.close(old);
    events[vector] = event;
  }

  #setUnmaskEvent(event: Handle): void {
    if (this.#unmaskEvent !== 0) this.#hostIo.close(this.#unmaskEvent);
    this.#unmaskEvent = event;
    if (event === 0) return;
    this.#hostIo.watch(event, READABLE, () => {
      if (this.#hostIo.drain(event) !== 0) this.#unmask();
    });
  }

  #unmask(): void {
    this.#masked = false;
    this.#raise();
  }

  /** The device was reset: nothing is masked any more. */
  reset(): void {
    this.#masked = false;
  }

  /** Closes every eventfd. */
  close(): void {
    this.#setUnmaskEvent(0);
    for (const events of this.#triggers) for (let i = 0; i < events.length; i++) this.#replace(events, i, 0);
    this.#device.setExternalInterrupts('none');
  }
}

/** Interrupt pin register of the configuration space. */
const PIN = 0x3d;

/** Only an eventfd is ever written to: a client might pass a pipe that is full, or a file that matters. */
function isEventFd(fd: number): boolean {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`).startsWith('anon_inode:[eventfd');
  } catch {
    return false;
  }
}
