/**
 * What a tap, a datagram socket and an L2TPv3 tunnel have in common: a port whose frames are read from and written to a descriptor of the
 * host in batches, one native call each way, straight into slots and out of wherever the frames lie.
 *
 * Towards the guest. A wake-up reads at most PASSES batches and then lets others run; readiness is level-triggered, so the rest is told
 * again. A batch is as large as what lately arrived at once. Frames are usually short: each read gives a small slot and, behind it, a large
 * one for what may be longer; where most are long (runs of datagrams, a tap with segmentation left to us) it gives large slots alone. What
 * the peer refuses waits here, at most one batch, and the host is not read meanwhile: frames then wait in the kernel. When the pool is
 * empty nothing is read for STARVED_NS.
 *
 * Towards the host. What the kernel does not take (EAGAIN) is refused to the peer until the descriptor is writable again. When it has no
 * memory or its queue is full (ENOBUFS, of which no descriptor tells the end) the frame is tried again every RETRY_NS, RETRIES_MAX times; then it is lost,
 * and so are the next ones at once until one goes out: what cannot send must not hold the guest. Anything else that goes wrong with a frame costs
 * that frame, counted.
 *
 * Interest in readiness is dropped lazily, when it is told and of no use: a peer that refuses now and then costs no system call.
 */

import { GSO_SIZE, TOTAL } from '../core/pool.ts';
import { type Client, Port } from '../core/port.ts';
import { ERRNO, FAILED, type Handle, type HostIo, HUNG_UP, READABLE, WRITABLE } from '../host-io/host-io.ts';
import type { BackendContext } from './backend.ts';

/** Counters every such port has. */
export class FramePortStats {
  rxFrames = 0;
  /** Shorter than an Ethernet header. */
  rxDropShort = 0;
  /** No record was free for a frame of a received run. */
  rxDropNoRecord = 0;
  /** Times the pool had no slot, and reading paused. */
  rxWaitNoSlot = 0;
  /** Times the peer refused frames. */
  rxRefused = 0;
  /** Frames that waited for the peer when the descriptor was closed. */
  rxDropDisconnected = 0;
  /** Errors of the descriptor told to a reader, such as an ICMP answer to something sent. */
  rxHostErrors = 0;
  txFrames = 0;
  /** Times the host took no more for now. */
  txBlocked = 0;
  /** Times the host had no memory for a frame, and it was kept to be tried again. */
  txRetries = 0;
  txDropTooLong = 0;
  txDropNoBuffers = 0;
  /** Nobody there, or the network or interface is down. */
  txDropUnreachable = 0;
  txDropHostError = 0;
}

const ETHERNET_HEADER_BYTES = 14;
const PASSES = 8;
const FIRST_SLOTS = 8;
/** A request comes alone, a connection with a few frames: slots that are taken and given back cost, too. */
const LEAST_SLOTS = 4;
const SMALL_SLOTS = 64;
const LARGE_SLOTS = 16;
const STARVED_NS = 1_000_000;
const RETRY_NS = 500_000;
const RETRIES_MAX = 8;
const { EAGAIN, ECONNREFUSED, EMSGSIZE, ENOBUFS, ENOMEM } = ERRNO;
const UNREACHABLE: readonly number[] = [
  2, // ENOENT: no such unix socket
  5, // EIO: a tap that is down
  ECONNREFUSED,
  ERRNO.ENETDOWN,
  ERRNO.ENETUNREACH,
  ERRNO.EHOSTDOWN,
  ERRNO.EHOSTUNREACH,
  ERRNO.ENOTCONN,
  ERRNO.ECONNRESET,
];

export abstract class FramePort implements Client {
  readonly port: Port;
  abstract readonly stats: FramePortStats;
  protected readonly context: BackendContext;
  protected readonly hostIo: HostIo;
  /** 0: detached, frames to the host are dropped and none come. */
  protected receiveHandle: Handle = 0;
  protected sendHandle: Handle = 0;
  /** Frames on their way to the peer; `unpack` fills it. */
  protected batch = new Int32Array(SMALL_SLOTS);
  /** One spill slot for each slot, or as many as are likely to be used. */
  protected spillEach = true;

  /** batch[heldFrom..heldTo) was refused. */
  #heldFrom = 0;
  #heldTo = 0;
  readonly #slots = new Int32Array(SMALL_SLOTS);
  readonly #spill = new Int32Array(SMALL_SLOTS);
  #wanted = FIRST_SLOTS;
  #large = false;
  #receiveInterest = 0;
  #sendInterest = 0;
  #writeBlocked = false;
  #idle = false;
  /** How often in a row the host had no memory for a frame. */
  #retries = 0;
  readonly #starved;
  readonly #retry;

  constructor(name: string, context: BackendContext, hostIo: HostIo) {
    this.context = context;
    this.hostIo = hostIo;
    this.port = new Port(name, 'backend', this, context);
    this.#starved = context.loop.timer(() => this.#setInterest(READABLE, true));
    this.#retry = context.loop.timer(() => this.#writeAgain());
  }

  /** Goes to work on descriptors, which are this object's to close from then on; `send` may be another one than `receive`. */
  attach(receive: Handle, send: Handle): void {
    this.receiveHandle = receive;
    this.sendHandle = send;
    this.#receiveInterest = READABLE;
    this.#sendInterest = 0;
    this.#writeBlocked = false;
    this.hostIo.watch(receive, READABLE, (ready) => {
      if ((ready & WRITABLE) !== 0) this.#writable();
      if ((ready & (READABLE | FAILED | HUNG_UP)) !== 0) this.#readable();
    });
    if (send !== receive) {
      this.hostIo.watch(send, 0, (ready) => {
        if ((ready & WRITABLE) !== 0) this.#writable();
      });
    }
  }

  /** Closes the descriptors; frames that wait for the peer are dropped. Harmless when repeated. */
  detach(): void {
    const { receiveHandle, sendHandle } = this;
    if (receiveHandle === 0) return;
    this.receiveHandle = this.sendHandle = 0;
    this.#starved.cancel();
    this.#retry.cancel();
    this.#retries = 0;
    this.stats.rxDropDisconnected += this.waiting;
    this.context.pool.releaseAll(this.batch, this.#heldFrom, this.#heldTo);
    this.#heldFrom = this.#heldTo = 0;
    this.#writeBlocked = false;
    this.hostIo.close(receiveHandle);
    if (sendHandle !== receiveHandle) this.hostIo.close(sendHandle);
  }

  /** Reads into slots[0..count), with spill slots beside; returns how many, or a negative errno. */
  protected abstract read(slots: Int32Array, count: number, spill: Int32Array): number;
  /** Writes frames[from..to); returns how many, or a negative errno if none. */
  protected abstract write(frames: Int32Array, from: number, to: number): number;
  /** The descriptor is of no more use (it was told so by `errno`); the port's link goes down. */
  protected abstract gone(errno: number): void;

  /** Whether `errno` of a read or write means that the descriptor is lost. */
  protected isGone(_errno: number): boolean {
    return false;
  }

  /** A write failed; true when it is worth trying again at once. Called at most once for a frame. */
  protected mend(errno: number): boolean {
    return errno === ECONNREFUSED;
  }

  /** Makes batch[0..n) of what was read, and returns n. Each frame read is either in it or released. */
  protected unpack(frames: Int32Array, count: number): number {
    const { pool } = this.context;
    const t = pool.table;
    let n = 0;
    for (let i = 0; i < count; i++) {
      const frame = frames[i]!;
      if (t[frame + TOTAL]! < ETHERNET_HEADER_BYTES) {
        this.stats.rxDropShort++;
        pool.release(frame);
      } else this.batch[n++] = frame;
    }
    return n;
  }

  /** While true nothing is read: somebody else does. */
  protected set idle(idle: boolean) {
    this.#idle = idle;
    this.#setInterest(READABLE, !idle && this.#heldTo === 0);
  }

  #setInterest(bit: number, on: boolean): void {
    if (this.receiveHandle === 0 || (this.#idle && bit === READABLE && on)) return;
    if (bit === READABLE || this.receiveHandle === this.sendHandle) {
      this.#receiveInterest = on ? this.#receiveInterest | bit : this.#receiveInterest & ~bit;
      this.hostIo.setInterest(this.receiveHandle, this.#receiveInterest);
    } else {
      this.#sendInterest = on ? WRITABLE : 0;
      this.hostIo.setInterest(this.sendHandle, this.#sendInterest);
    }
  }

  #readable(): void {
    const { pool } = this.context;
    const t = pool.table;
    const slots = this.#slots;
    for (let pass = 0; pass < PASSES; pass++) {
      if (this.receiveHandle === 0) return;
      if (this.#heldTo !== 0) {
        this.#setInterest(READABLE, false);
        return;
      }
      const wasLarge = this.#large;
      const count = this.#takeSlots();
      if (count === 0) {
        this.stats.rxWaitNoSlot++;
        this.#setInterest(READABLE, false);
        this.#starved.armIn(STARVED_NS);
        return;
      }
      const got = this.read(slots, count, this.#spill);
      const filled = Math.max(0, got);
      for (let i = filled; i < count; i++) pool.release(slots[i]!);
      this.#releaseSpill(count);
      if (got <= 0) {
        if (got === -EAGAIN || got === 0) return;
        if (this.isGone(-got)) {
          this.gone(-got);
          return;
        }
        // An error that waited in the socket: it is told once, and what came in lies behind it.
        this.stats.rxHostErrors++;
        continue;
      }
      let long = 0;
      for (let i = 0; i < got; i++) if (t[slots[i]! + TOTAL]! > pool.smallBytes) long++;
      this.#large = long * 2 > got || (wasLarge && long * 4 > got);
      if (got === count) this.#wanted = Math.min(SMALL_SLOTS, this.#wanted * 2);
      else if (got * 2 < count) this.#wanted = Math.max(LEAST_SLOTS, this.#wanted >> 1);
      const n = this.unpack(slots, got);
      if (n > 0) this.#deliver(n);
      if (got < count) return;
    }
  }

  /** Fills #slots and #spill; returns how many can be read into. */
  #takeSlots(): number {
    const { pool } = this.context;
    const t = pool.table;
    const slots = this.#slots;
    const spill = this.#spill;
    const large = this.#large && pool.freeLarge > 0;
    let count = large ? Math.min(LARGE_SLOTS, pool.freeLarge) : this.#wanted;
    let spills = large ? 0 : this.spillEach ? count : Math.min(count, LARGE_SLOTS);
    // Without any large slot long frames are lost, but short ones go on.
    if (spills > pool.freeLarge) {
      spills = pool.freeLarge;
      if (this.spillEach && spills > 0) count = spills;
    }
    for (let i = 0; i < count; i++) {
      const slot = large ? pool.allocLarge() : pool.alloc(0);
      if (slot === 0) {
        count = i;
        break;
      }
      t[slot + GSO_SIZE] = 0;
      slots[i] = slot;
    }
    for (let i = 0; i < count; i++) spill[i] = i < spills ? pool.allocLarge() : 0;
    if (count < spill.length) spill[count] = 0;
    return count;
  }

  #releaseSpill(count: number): void {
    const spill = this.#spill;
    for (let i = 0; i < count; i++) if (spill[i] !== 0) this.context.pool.release(spill[i]!);
  }

  #deliver(count: number): void {
    const taken = this.port.send(this.batch, 0, count);
    this.stats.rxFrames += taken;
    if (taken === count) return;
    this.stats.rxRefused++;
    this.#heldFrom = taken;
    this.#heldTo = count;
  }

  /** Frames that wait for the peer. */
  get waiting(): number {
    return this.#heldTo - this.#heldFrom;
  }

  peerReady(): void {
    if (this.#heldTo !== 0) {
      const taken = this.port.send(this.batch, this.#heldFrom, this.#heldTo);
      this.stats.rxFrames += taken;
      this.#heldFrom += taken;
      if (this.#heldFrom < this.#heldTo) return;
      this.#heldFrom = this.#heldTo = 0;
    }
    if (!this.#starved.armed) this.#setInterest(READABLE, true);
  }

  receive(frames: Int32Array, from: number, to: number): number {
    if (this.#writeBlocked) return 0;
    const { pool } = this.context;
    const { stats } = this;
    let at = from;
    let mended = false;
    while (at < to) {
      const sent = this.sendHandle === 0 ? -ERRNO.ENOTCONN : this.write(frames, at, to);
      if (sent > 0) {
        stats.txFrames += sent;
        pool.releaseAll(frames, at, at + sent);
        at += sent;
        mended = false;
        this.#retries = 0;
        continue;
      }
      const errno = -sent;
      if (errno === EAGAIN) {
        stats.txBlocked++;
        this.#writeBlocked = true;
        this.#setInterest(WRITABLE, true);
        break;
      }
      const noMemory = errno === ENOBUFS || errno === ENOMEM;
      if (noMemory && this.#retries < RETRIES_MAX) {
        this.#retries++;
        stats.txRetries++;
        this.#writeBlocked = true;
        this.#retry.armIn(RETRY_NS);
        break;
      }
      if (!mended && this.mend(errno)) {
        mended = true;
        continue;
      }
      if (errno === EMSGSIZE) stats.txDropTooLong++;
      else if (noMemory) stats.txDropNoBuffers++;
      else if (UNREACHABLE.includes(errno)) stats.txDropUnreachable++;
      else stats.txDropHostError++;
      pool.release(frames[at]!);
      at++;
      mended = false;
      if (this.isGone(errno)) this.gone(errno);
    }
    return at - from;
  }

  #writable(): void {
    if (!this.#writeBlocked || this.#retry.armed) this.#setInterest(WRITABLE, false);
    else this.#writeAgain();
  }

  #writeAgain(): void {
    this.#writeBlocked = false;
    this.port.ready();
  }

  /** True while the host takes no frames. */
  get blocked(): boolean {
    return this.#writeBlocked;
  }
}
