/**
 * Host I/O by the addon. Nearly every call is one call into native code, which reads frame records in place; here are the listeners, the
 * errors of opening calls, the loop's driver, and what is policy rather than a system call:
 *
 * - A unix socket path left behind by a process that is gone (connecting to it is refused) is taken over.
 * - A listener whose accept ends with -EMFILE or -ENFILE would be ready again at once, for ever. It is muted, its connections wait in the
 *   kernel's backlog, and it is asked again when a handle of this HostIo closes, or after MUTE_MS at the latest.
 */

import { lstatSync, unlinkSync } from 'node:fs';
import { HostIoError, InvariantError, UnsupportedError } from '../core/errors.ts';
import type { Loop } from '../core/loop.ts';
import type { FramePool } from '../core/pool.ts';
import {
  type Addon,
  BLOCK_FRAMES,
  BLOCK_FRAMES_MAX,
  BLOCK_SPILL,
  BLOCK_WORDS,
  type BoundAddon,
  loadAddon,
} from './addon.ts';
import { packAddress } from './address.ts';
import { LoopDriver } from './driver.ts';
import { errnoName, hostIoError } from './errno.ts';
import {
  ADDRESS_BYTES,
  type Endpoint,
  ERRNO,
  FAILED,
  type FilePlace,
  type Handle,
  type HostIo,
  HUNG_UP,
  type PingOptions,
  READABLE,
  type ReadyListener,
  type TapInfo,
  type TcpOptions,
  type UdpOptions,
  WRITABLE,
} from './host-io.ts';

const EVENT_PAIRS = 64;
const MUTE_MS = 100;
const BACKLOG = 128;
/** The addon's bits for what may be done in a place. */
const FILE_RIGHTS: Readonly<Record<FilePlace['may'], number>> = { read: 1, write: 2, bind: 4, drive: 8 };

/** What the addon has counted since the HostIo was made. */
export interface NativeStats {
  receiveCalls: number;
  sendCalls: number;
  pollCalls: number;
  /** Datagrams and tap frames longer than their slot, or malformed raw IP messages, thrown away. */
  dropTruncated: number;
  wakeups: number;
  /** Empty looks of the busy-polling loop. */
  busyPolls: number;
  openHandles: number;
}

interface Watch {
  handle: Handle;
  interest: number;
  listener: ReadyListener;
  muted: boolean;
}

export interface NativeOptions {
  /** Look again for up to this long before sleeping, while that has paid lately. 0 (default): never. */
  busyPollNs?: number;
}

export class NativeHostIo implements HostIo {
  readonly implementation = 'native';
  readonly #addon: BoundAddon;
  readonly #hot: ReturnType<typeof hotCalls>;
  #inSandbox = false;
  #filesRestricted = false;
  readonly #events = new Int32Array(2 * EVENT_PAIRS);
  readonly #mailbox = new Uint8Array(ADDRESS_BYTES);
  readonly #block = new Int32Array(BLOCK_WORDS);
  readonly #pair = new Int32Array(2);
  /** What came with a message: how many descriptors, how many too many, and the handles. */
  #passed = new Int32Array(2);
  readonly #watches: (Watch | undefined)[] = [];
  readonly #maps = new WeakMap<Uint8Array, object>();
  readonly #mapped = new Set<WeakRef<Uint8Array>>();
  readonly #muted = new Set<Watch>();
  #muteTimer: NodeJS.Timeout | null = null;
  #pool: FramePool | null = null;
  #driver: LoopDriver | null = null;
  #closed = false;
  #lastRemote: Endpoint | null = null;
  #lastAddress = '';
  #lastPort = -1;

  constructor(addon: Addon = loadAddon(), options: NativeOptions = {}) {
    this.#addon = addon.open((pairs) => this.#onReady(pairs), this.#events, this.#mailbox, this.#block);
    this.#hot = hotCalls(this.#addon);
    if (options.busyPollNs !== undefined) this.busyPoll(options.busyPollNs);
  }

  /** Sets how long to look again before sleeping (0: never; at most 1 ms). */
  busyPoll(ns: number): void {
    if (this.#addon.busyPoll(ns) < 0) throw new InvariantError('busyPollNs is 0 to 1,000,000');
  }

  stats(): NativeStats {
    const out = new Float64Array(7);
    this.#addon.stats(out);
    const [receiveCalls, sendCalls, pollCalls, dropTruncated, wakeups, busyPolls, openHandles] =
      out as unknown as number[];
    return {
      receiveCalls,
      sendCalls,
      pollCalls,
      dropTruncated,
      wakeups,
      busyPolls,
      openHandles,
    } as NativeStats;
  }

  // The loop and readiness.

  attachPool(pool: FramePool): void {
    if (this.#pool !== null) throw new InvariantError('a HostIo works with one pool');
    this.#pool = pool;
    this.#check(this.#addon.attachTable(pool.table), 'attach', 'frame table');
    pool.watchRegions(this.#regions);
    this.#check(this.#addon.attachCopies(pool.copies.list), 'attach', 'list of copies');
    pool.copies.setEngine(this.#addon.copyAll);
  }

  readonly #regions = {
    regionChanged: (region: number, bytes: Uint8Array): void => {
      this.#check(this.#addon.setRegion(region, bytes), 'attach', `memory region ${region}`);
    },
  };

  drive(loop: Loop): void {
    if (this.#driver !== null) throw new InvariantError('a HostIo drives one loop');
    this.#driver = new LoopDriver(loop, (delayNs) => {
      this.#addon.setTimer(delayNs === Number.POSITIVE_INFINITY ? -1 : delayNs);
    });
  }

  /** The event loop's call: tells listeners, and goes on as long as there is more. */
  #onReady(pairs: number): void {
    for (let found = pairs; found > 0; found = this.#hot.lookAgain()) {
      this.#tell(found);
      // Somebody wants the next turn of the event loop.
      if (this.#driver?.busy) return;
    }
  }

  #tell(pairs: number): void {
    const events = this.#events;
    const driver = this.#driver;
    driver?.hold();
    try {
      for (let i = 0; i < pairs; i++) {
        const handle = events[2 * i]!;
        if (handle === 0) {
          driver?.timerFired();
          continue;
        }
        const watch = this.#watches[handle & 0xffff];
        if (watch === undefined || watch.handle !== handle) continue;
        const bits = events[2 * i + 1]! & (watch.interest | HUNG_UP | FAILED);
        if (bits !== 0) watch.listener(bits);
      }
    } finally {
      driver?.turn();
    }
  }

  /** Tells listeners what is ready now, without waiting, as the event loop does; returns how many. For who cannot return to it: tests, benches. */
  look(): number {
    const pairs = this.#addon.poll();
    if (pairs > 0) this.#tell(pairs);
    return pairs;
  }

  watch(handle: Handle, interest: number, listener: ReadyListener): void {
    this.#setWatch(handle, interest);
    const before = this.#watches[handle & 0xffff];
    if (before?.muted) this.#muted.delete(before);
    this.#watches[handle & 0xffff] = { handle, interest, listener, muted: false };
  }

  setInterest(handle: Handle, interest: number): void {
    const watch = this.#watches[handle & 0xffff];
    if (watch === undefined || watch.handle !== handle) return;
    if (watch.interest === interest) return;
    watch.interest = interest;
    if (!watch.muted) this.#setWatch(handle, interest);
  }

  #setWatch(handle: Handle, interest: number): void {
    const result = this.#hot.watch(handle, interest);
    if (result < 0) this.#check(result, 'epoll_ctl', `watch handle ${handle}`);
  }

  close(handle: Handle): void {
    this.#forget(handle);
    this.#hot.close(handle);
    if (this.#muted.size > 0) this.#unmute();
  }

  reset(handle: Handle): void {
    this.#forget(handle);
    this.#addon.reset(handle);
    if (this.#muted.size > 0) this.#unmute();
  }

  #forget(handle: Handle): void {
    const watch = this.#watches[handle & 0xffff];
    if (watch === undefined || watch.handle !== handle) return;
    this.#watches[handle & 0xffff] = undefined;
    if (watch.muted) this.#muted.delete(watch);
  }

  #mute(handle: Handle): void {
    const watch = this.#watches[handle & 0xffff];
    if (watch === undefined || watch.handle !== handle || watch.muted) return;
    watch.muted = true;
    this.#muted.add(watch);
    this.#addon.watch(handle, watch.interest & ~READABLE);
    this.#muteTimer ??= setTimeout(() => this.#unmute(), MUTE_MS);
  }

  #unmute(): void {
    if (this.#muteTimer !== null) clearTimeout(this.#muteTimer);
    this.#muteTimer = null;
    for (const watch of this.#muted) {
      watch.muted = false;
      this.#addon.watch(watch.handle, watch.interest);
    }
    this.#muted.clear();
  }

  takeError(handle: Handle): number {
    return this.#addon.takeError(handle);
  }

  localEndpoint(handle: Handle): Endpoint {
    return this.#endpoint(handle, false);
  }

  remoteEndpoint(handle: Handle): Endpoint {
    return this.#endpoint(handle, true);
  }

  #endpoint(handle: Handle, remote: boolean): Endpoint {
    const syscall = remote ? 'getpeername' : 'getsockname';
    const pair = this.#addon.endpoint(handle, remote);
    if (typeof pair === 'number') throw hostIoError(syscall, pair, `${syscall} of handle ${handle}`);
    return { address: pair[0], port: pair[1] };
  }

  pendingBytes(handle: Handle): number {
    return this.#addon.pendingBytes(handle);
  }

  /** Throws the HostIoError of a negative number; returns any other. */
  #check(result: number, syscall: string, what: string): number {
    if (result >= 0) return result;
    if (this.#closed) throw new HostIoError(syscall, 'EBADF', `${what}: this HostIo is shut down`);
    throw hostIoError(syscall, result, what);
  }

  /** Puts the frames of a call into the block; there are BLOCK_FRAMES_MAX at most. A range that is none becomes a count that the addon refuses. */
  #fill(handle: Handle, frames: Int32Array, from: number, to: number): Int32Array {
    const block = this.#block;
    block[0] = handle;
    block[1] = from >= 0 && to <= frames.length ? to - from : -1;
    for (let i = from, at = BLOCK_FRAMES; i < to; i++, at++) block[at] = frames[i]!;
    return block;
  }

  // Streams.

  tcpConnect(remote: Endpoint, options: TcpOptions = {}): Handle {
    const { local, noDelay = true, bindInterface, hopLimit = 0 } = options;
    const handle = this.#hot.tcpConnect(
      remote.address,
      remote.port,
      local?.address,
      local?.port ?? 0,
      noDelay,
      bindInterface,
      hopLimit,
    );
    return handle > 0 ? handle : this.#check(handle, 'connect', `connect to ${show(remote)}`);
  }

  isConnected(handle: Handle): boolean {
    return this.#hot.waitReady(handle, WRITABLE, 0) === WRITABLE;
  }

  tcpListen(local: Endpoint, options: { backlog?: number; v6Only?: boolean } = {}): Handle {
    const handle = this.#addon.tcpListen(
      local.address,
      local.port,
      options.backlog ?? BACKLOG,
      options.v6Only ?? true,
    );
    return this.#check(handle, 'listen', `listen on ${show(local)}`);
  }

  unixConnect(path: string): Handle {
    return this.#check(this.#addon.unixConnect(path), 'connect', `connect to ${path}`);
  }

  unixListen(path: string): Handle {
    const handle = this.#addon.unixListen(path, BACKLOG);
    if (handle !== -ERRNO.EADDRINUSE || !this.#isAbandoned(path))
      return this.#check(handle, 'listen', `listen on ${path}`);
    unlinkSync(path);
    return this.#check(this.#addon.unixListen(path, BACKLOG), 'listen', `listen on ${path}`);
  }

  /** True for a socket file that nobody serves. */
  #isAbandoned(path: string): boolean {
    if (!lstatSync(path, { throwIfNoEntry: false })?.isSocket()) return false;
    const probe = this.#addon.unixConnect(path);
    if (probe < 0) return false;
    const error = this.#addon.takeError(probe);
    this.#addon.close(probe);
    return error === ERRNO.ECONNREFUSED;
  }

  accept(handle: Handle): Handle {
    const accepted = this.#addon.accept(handle);
    if (accepted === -ERRNO.EMFILE || accepted === -ERRNO.ENFILE) this.#mute(handle);
    return accepted;
  }

  receiveStream(
    handle: Handle,
    frames: Int32Array,
    from: number,
    to: number,
    at: number,
    each: number,
    peek = false,
  ): number {
    if (peek || to - from > BLOCK_FRAMES_MAX)
      return this.#addon.receiveStream(handle, frames, from, to, at, each, peek);
    const block = this.#fill(handle, frames, from, to);
    block[2] = at;
    block[3] = each;
    return this.#hot.blockReceiveStream();
  }

  discardStream(handle: Handle, length: number): number {
    return this.#addon.discardStream(handle, length);
  }

  sendStream(handle: Handle, frames: Int32Array, from: number, to: number, skip: number): number {
    if (to - from > BLOCK_FRAMES_MAX) return this.#addon.sendStream(handle, frames, from, to, skip);
    this.#fill(handle, frames, from, to)[2] = skip;
    return this.#hot.blockSendStream();
  }

  sendFramed(handle: Handle, frames: Int32Array, from: number, to: number, skip: number): number {
    return this.#addon.sendFramed(handle, frames, from, to, skip);
  }

  receiveBytes(handle: Handle, target: Uint8Array, from: number, to: number): number {
    return this.#addon.receiveBytes(handle, target, from, to);
  }

  sendBytes(handle: Handle, source: Uint8Array, from: number, to: number): number {
    return this.#addon.sendBytes(handle, source, from, to);
  }

  setKeepAlive(handle: Handle, on: boolean): void {
    this.#addon.keepAlive(handle, on);
  }

  setHopLimit(handle: Handle, hops: number): number {
    return this.#addon.hopLimit(handle, hops);
  }

  networkError(handle: Handle, into: Uint8Array): boolean {
    return this.#addon.networkError(handle, into) === 1;
  }

  shutdownWrite(handle: Handle): void {
    this.#hot.shutdownWrite(handle);
  }

  // Datagrams.

  udpOpen(options: UdpOptions): Handle {
    const { local, remote, multicast } = options;
    const flags =
      (options.reuseAddress ? 1 : 0) |
      (options.gro ? 2 : 0) |
      ((multicast?.loop ?? true) ? 4 : 0) |
      (options.networkErrors ? 8 : 0);
    const handle = this.#addon.udpOpen(
      local?.address,
      local?.port ?? 0,
      remote?.address,
      remote?.port ?? 0,
      options.family ?? 0,
      flags,
      options.receiveBufferBytes ?? 0,
      options.sendBufferBytes ?? 0,
      multicast?.group,
      multicast?.interface,
      options.bindInterface,
    );
    return this.#check(
      handle,
      'socket',
      `UDP socket${local ? ` on ${show(local)}` : ''}${remote ? ` to ${show(remote)}` : ''}`,
    );
  }

  pingOpen(family: 4 | 6, { local, bindInterface }: PingOptions = {}): Handle {
    return this.#check(this.#addon.pingOpen(family, local, bindInterface), 'socket', 'ICMP echo socket');
  }

  rawIpOpen(family: 4 | 6, protocol: number, options: { local?: string; remote?: string } = {}): Handle {
    const handle = this.#addon.rawOpen(family, protocol, options.local, options.remote);
    return this.#check(handle, 'socket', `raw IP socket of protocol ${protocol}`);
  }

  unixDatagramOpen(options: { local?: string; remote?: string }): Handle {
    const { local, remote } = options;
    let handle = this.#addon.unixDatagramOpen(local, remote);
    if (handle === -ERRNO.EADDRINUSE && local !== undefined && this.#isAbandonedDatagram(local)) {
      unlinkSync(local);
      handle = this.#addon.unixDatagramOpen(local, remote);
    }
    return this.#check(
      handle,
      'socket',
      `unix datagram socket${local ? ` on ${local}` : ''}${remote ? ` to ${remote}` : ''}`,
    );
  }

  #isAbandonedDatagram(path: string): boolean {
    if (!lstatSync(path, { throwIfNoEntry: false })?.isSocket()) return false;
    const probe = this.#addon.unixDatagramOpen(undefined, path);
    if (probe > 0) this.#addon.close(probe);
    return probe === -ERRNO.ECONNREFUSED;
  }

  datagramConnect(handle: Handle, path: string): number {
    return this.#addon.datagramConnect(handle, path);
  }

  receiveDatagrams(
    handle: Handle,
    frames: Int32Array,
    from: number,
    to: number,
    at: number,
    addresses?: Uint8Array,
    spill?: Int32Array,
  ): number {
    return this.#addon.receiveDatagrams(handle, frames, from, to, at, addresses, spill);
  }

  sendDatagrams(
    handle: Handle,
    frames: Int32Array,
    from: number,
    to: number,
    remote?: Endpoint,
    headers?: Uint8Array,
    headerBytes = 0,
  ): number {
    if (remote === undefined)
      return this.#addon.sendDatagrams(handle, frames, from, to, false, headers, headerBytes);
    // The mailbox still holds the last destination; parsing text is for another one.
    if (
      remote !== this.#lastRemote ||
      remote.address !== this.#lastAddress ||
      remote.port !== this.#lastPort
    ) {
      this.#lastRemote = null;
      if (!packAddress(remote, this.#mailbox, 0)) return -ERRNO.EINVAL;
      this.#lastRemote = remote;
      this.#lastAddress = remote.address;
      this.#lastPort = remote.port;
    }
    return this.#addon.sendDatagrams(handle, frames, from, to, true, headers, headerBytes);
  }

  // Taps, descriptors, memory.

  tapOpen(options: { name?: string; vnetHeader?: boolean; multiQueue?: boolean }): TapInfo {
    const vnetHeader = options.vnetHeader ?? true;
    const made = this.#addon.tapOpen(options.name, vnetHeader, options.multiQueue ?? false);
    if (typeof made === 'number') throw hostIoError('TUNSETIFF', made, `tap ${options.name ?? '(any name)'}`);
    return { handle: made[0], name: made[1], vnetHeader };
  }

  tapOffloads(handle: Handle, accepts: number): boolean {
    return this.#addon.tapOffloads(handle, accepts) === 0;
  }

  tapOf(handle: Handle): TapInfo {
    const known = this.#addon.tapOf(handle);
    if (typeof known === 'number') throw hostIoError('TUNGETIFF', known, `handle ${handle} as a tap`);
    return { handle, name: known[1], vnetHeader: known[0] === 1 };
  }

  enterSandbox(): void {
    this.#check(this.#addon.sandbox(), 'seccomp', 'the sandbox');
    this.#inSandbox = true;
  }

  get inSandbox(): boolean {
    return this.#inSandbox;
  }

  get fileRulesVersion(): number {
    return Math.max(0, this.#addon.landlockAbi());
  }

  restrictFiles(places: readonly FilePlace[]): void {
    const paths = places.map(({ path }) => path);
    const rights = Int32Array.from(places, ({ may }) => FILE_RIGHTS[may]);
    this.#check(this.#addon.landlock(paths, rights), 'landlock_restrict_self', 'the sandbox');
    this.#filesRestricted = true;
  }

  get filesRestricted(): boolean {
    return this.#filesRestricted;
  }

  tapSendBuffer(handle: Handle, bytes: number): number {
    return this.#addon.tapSendBuffer(handle, bytes);
  }

  readFrames(handle: Handle, frames: Int32Array, from: number, to: number, spill?: Int32Array): number {
    if (to - from > BLOCK_FRAMES_MAX) return this.#addon.readFrames(handle, frames, from, to, spill);
    const block = this.#fill(handle, frames, from, to);
    let spills = 0;
    if (spill !== undefined) {
      const most = Math.min(spill.length, BLOCK_FRAMES_MAX);
      while (spills < most && spill[spills] !== 0) block[BLOCK_SPILL + spills] = spill[spills++]!;
    }
    block[2] = spills;
    const got = this.#hot.blockReadFrames();
    // Those used became 0.
    for (let i = 0; i < spills && block[BLOCK_SPILL + i] === 0; i++) spill![i] = 0;
    return got;
  }

  writeFrames(handle: Handle, frames: Int32Array, from: number, to: number): number {
    if (to - from > BLOCK_FRAMES_MAX) return this.#addon.writeFrames(handle, frames, from, to);
    this.#fill(handle, frames, from, to);
    return this.#hot.blockWriteFrames();
  }

  adopt(fd: number, options: { vnetHeader?: boolean } = {}): Handle {
    return this.#check(this.#addon.adopt(fd, options.vnetHeader ?? false), 'fcntl', `descriptor ${fd}`);
  }

  fdOf(handle: Handle): number {
    return this.#check(this.#addon.fdOf(handle), 'fdOf', `handle ${handle}`);
  }

  control(handle: Handle, request: number, argument?: Uint8Array): number {
    return this.#addon.control(handle, request, argument);
  }

  addressOf(memory: Uint8Array): number {
    return this.#check(this.#addon.addressOf(memory), 'addressOf', 'memory');
  }

  socketPair(): [Handle, Handle] {
    this.#check(this.#addon.socketPair(this.#pair), 'socketpair', 'socket pair');
    return [this.#pair[0]!, this.#pair[1]!];
  }

  sendWithFds(handle: Handle, source: Uint8Array, fds: readonly Handle[]): number {
    return this.#addon.sendWithFds(handle, source, Int32Array.from(fds));
  }

  receiveWithFds(
    handle: Handle,
    target: Uint8Array,
    maxFds: number,
  ): { bytes: number; fds: Handle[]; excessFds: number } {
    if (this.#passed.length < 2 + maxFds) this.#passed = new Int32Array(2 + maxFds);
    const passed = this.#passed;
    passed[0] = 0;
    passed[1] = 0;
    const bytes = this.#addon.receiveWithFds(handle, target, maxFds, passed);
    const fds: Handle[] = [];
    for (let i = 0; i < passed[0]!; i++) fds.push(passed[2 + i]!);
    return { bytes, fds, excessFds: passed[1]! };
  }

  eventFd(): Handle {
    return this.#check(this.#addon.eventFd(), 'eventfd', 'eventfd');
  }

  signal(handle: Handle): void {
    this.#addon.signal(handle);
  }

  drain(handle: Handle): number {
    return this.#addon.drain(handle);
  }

  waitReady(handle: Handle, interest: number, timeoutMs: number): number {
    return this.#addon.waitReady(handle, interest, timeoutMs);
  }

  ptyOpen(): { master: Handle; slave: Handle; name: string } {
    const made = this.#addon.ptyOpen();
    if (typeof made === 'number') throw hostIoError('posix_openpt', made, 'pseudo terminal');
    const [master, name, slave] = made;
    return { master, slave, name };
  }

  memoryFd(name: string, bytes: number): Handle {
    return this.#check(this.#addon.memoryFd(name, bytes), 'memfd_create', `${bytes} bytes of shared memory`);
  }

  map(handle: Handle, offset: number, length: number, writable = true): Uint8Array {
    const made = this.#addon.map(handle, offset, length, writable);
    if (typeof made === 'number') throw hostIoError('mmap', made, `map ${length} bytes at ${offset}`);
    this.#maps.set(made[0], made[1]);
    this.#mapped.add(new WeakRef(made[0]));
    return made[0];
  }

  unmap(memory: Uint8Array): void {
    const owner = this.#maps.get(memory);
    if (owner === undefined) return;
    this.#maps.delete(memory);
    for (const reference of this.#mapped) {
      const there = reference.deref();
      if (there === memory || there === undefined) this.#mapped.delete(reference);
    }
    this.#check(this.#addon.unmap(memory, owner), 'munmap', 'unmap');
  }

  shutdown(): void {
    if (this.#closed) return;
    this.#driver?.stop();
    this.#driver = null;
    if (this.#muteTimer !== null) clearTimeout(this.#muteTimer);
    this.#muteTimer = null;
    this.#muted.clear();
    this.#watches.length = 0;
    if (this.#pool !== null) {
      this.#pool.unwatchRegions(this.#regions);
      this.#pool.copies.setEngine(null);
    }
    this.#pool = null;
    for (const reference of this.#mapped) {
      const memory = reference.deref();
      if (memory !== undefined) this.unmap(memory);
    }
    this.#closed = true;
    this.#addon.shutdown();
  }
}

/**
 * What each connection and each request calls, in an object of its own: the addon's has so many functions that the engine keeps it as a
 * dictionary, where each call begins with a search.
 */
function hotCalls(addon: BoundAddon) {
  return {
    watch: addon.watch,
    close: addon.close,
    lookAgain: addon.lookAgain,
    shutdownWrite: addon.shutdownWrite,
    tcpConnect: addon.tcpConnect,
    waitReady: addon.waitReady,
    blockReceiveStream: addon.blockReceiveStream,
    blockSendStream: addon.blockSendStream,
    blockReadFrames: addon.blockReadFrames,
    blockWriteFrames: addon.blockWriteFrames,
  };
}

function show(endpoint: Endpoint): string {
  return endpoint.address.includes(':')
    ? `[${endpoint.address}]:${endpoint.port}`
    : `${endpoint.address}:${endpoint.port}`;
}

/** A native HostIo, or UnsupportedError with the reason why there can be none. */
export function createNativeHostIo(options: NativeOptions = {}): NativeHostIo {
  try {
    return new NativeHostIo(loadAddon(), options);
  } catch (error) {
    if (error instanceof UnsupportedError) throw error;
    throw new UnsupportedError(
      `the native addon cannot work here: ${error instanceof Error ? error.message : errnoName(0)}`,
    );
  }
}
