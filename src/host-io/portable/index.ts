/**
 * Host I/O without the addon: node:net, dgram-as-promised and raw-socket, for `user`, `socket`, `stream`, `dgram` and `l2tpv3` where no
 * addon can be loaded. The same calls and the same answers, slower: each message is an object, bytes are copied once more, and timers are as
 * coarse as Node's (1 ms). Unix datagram sockets, taps, descriptors and shared memory need the addon and say so.
 *
 * Node's events change what an entry holds (see entry.ts) and mark it; once a turn, all marked entries that somebody watches are told, and
 * what is then still ready stays marked: level-triggered, as the native implementation. Handles are never reused.
 */

import { lstatSync, readFileSync, unlinkSync } from 'node:fs';
import { connect, isIP, type Socket } from 'node:net';
import { HostIoError, InvariantError, UnsupportedError } from '../../core/errors.ts';
import type { Loop } from '../../core/loop.ts';
import type { FramePool } from '../../core/pool.ts';
import { LoopDriver } from '../driver.ts';
import { hostIoError } from '../errno.ts';
import {
  type Endpoint,
  ERRNO,
  FAILED,
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
} from '../host-io.ts';
import { UdpEntry } from './datagram.ts';
import type { Entry, EntryOwner } from './entry.ts';
import { ListenerEntry } from './listener.ts';
import { RawIpEntry } from './raw-ip.ts';
import { StreamEntry } from './stream.ts';

const BACKLOG = 128;
const { EBADF, EOPNOTSUPP } = ERRNO;

interface Watch {
  interest: number;
  listener: ReadyListener;
  /** HUNG_UP and FAILED as last told: they are told when they come, not for as long as they last. */
  told: number;
}

export class PortableHostIo implements HostIo, EntryOwner {
  readonly implementation = 'portable';
  pool: FramePool | null = null;
  readonly #entries = new Map<Handle, Entry>();
  readonly #watches = new Map<Handle, Watch>();
  #marked = new Set<Entry>();
  #spare = new Set<Entry>();
  #immediate: NodeJS.Immediate | null = null;
  #timer: NodeJS.Timeout | null = null;
  #driver: LoopDriver | null = null;
  #nextHandle = 1;
  #closed = false;

  // The loop and readiness.

  attachPool(pool: FramePool): void {
    if (this.pool !== null) throw new InvariantError('a HostIo works with one pool');
    this.pool = pool;
  }

  drive(loop: Loop): void {
    if (this.#driver !== null) throw new InvariantError('a HostIo drives one loop');
    const driver = new LoopDriver(loop, (delayNs) => {
      if (this.#timer !== null) clearTimeout(this.#timer);
      this.#timer = null;
      if (delayNs === Number.POSITIVE_INFINITY) return;
      // Longer than Node's timers reach: an early wake-up arms it again.
      const delayMs = Math.min(Math.ceil(delayNs / 1e6), 0x7fff_ffff);
      this.#timer = setTimeout(() => {
        this.#timer = null;
        driver.timerFired();
        driver.turn();
      }, delayMs);
    });
    this.#driver = driver;
  }

  changed(entry: Entry): void {
    if (entry.closed || !this.#watches.has(entry.handle)) return;
    this.#marked.add(entry);
    this.#immediate ??= setImmediate(this.#tell);
  }

  readonly #tell = (): void => {
    this.#immediate = null;
    const marked = this.#marked;
    this.#marked = this.#spare;
    this.#spare = marked;
    const driver = this.#driver;
    driver?.hold();
    try {
      for (const entry of marked) {
        marked.delete(entry);
        this.#tellOne(entry);
      }
    } finally {
      // After an exception: those not told yet.
      for (const entry of marked) this.changed(entry);
      marked.clear();
      driver?.turn();
    }
  };

  #tellOne(entry: Entry): void {
    const watch = this.#watches.get(entry.handle);
    if (watch === undefined) return;
    const states = (entry.hungUp ? HUNG_UP : 0) | (entry.error !== 0 ? FAILED : 0);
    const ready = this.#ready(entry, watch);
    const news = states & ~watch.told;
    watch.told = states;
    if (ready === 0 && news === 0) return;
    watch.listener(ready | states);
    const after = this.#watches.get(entry.handle);
    if (after !== undefined && this.#ready(entry, after) !== 0) this.changed(entry);
  }

  #ready(entry: Entry, watch: Watch): number {
    let ready = 0;
    if ((watch.interest & READABLE) !== 0 && entry.readable) ready |= READABLE;
    if ((watch.interest & WRITABLE) !== 0 && entry.writable) ready |= WRITABLE;
    return ready;
  }

  watch(handle: Handle, interest: number, listener: ReadyListener): void {
    const entry = this.#entries.get(handle);
    if (entry === undefined) throw hostIoError('epoll_ctl', EBADF, `watch handle ${handle}`);
    if (interest < 0 || interest > (READABLE | WRITABLE))
      throw hostIoError('epoll_ctl', ERRNO.EINVAL, `watch handle ${handle}`);
    this.#watches.set(handle, { interest, listener, told: 0 });
    entry.keepAlive(true);
    this.changed(entry);
  }

  setInterest(handle: Handle, interest: number): void {
    const watch = this.#watches.get(handle);
    if (watch === undefined || watch.interest === interest) return;
    if (interest < 0 || interest > (READABLE | WRITABLE))
      throw hostIoError('epoll_ctl', ERRNO.EINVAL, `watch handle ${handle}`);
    watch.interest = interest;
    if (interest !== 0) this.changed(this.#entries.get(handle)!);
  }

  #add(entry: Entry): Handle {
    if (this.#closed) {
      entry.close();
      throw new HostIoError('open', 'EBADF', 'this HostIo is shut down');
    }
    const handle = this.#nextHandle++;
    entry.handle = handle;
    this.#entries.set(handle, entry);
    return handle;
  }

  #drop(handle: Handle): Entry | undefined {
    const entry = this.#entries.get(handle);
    if (entry === undefined) return undefined;
    this.#entries.delete(handle);
    this.#watches.delete(handle);
    this.#marked.delete(entry);
    return entry;
  }

  close(handle: Handle): void {
    this.#drop(handle)?.close();
  }

  reset(handle: Handle): void {
    const entry = this.#drop(handle);
    if (entry instanceof StreamEntry) entry.reset();
    else entry?.close();
  }

  takeError(handle: Handle): number {
    const entry = this.#entries.get(handle);
    return entry === undefined ? EBADF : entry.takeError();
  }

  localEndpoint(handle: Handle): Endpoint {
    const entry = this.#entries.get(handle);
    const local = entry?.local ?? null;
    if (local === null)
      throw hostIoError('getsockname', entry ? ERRNO.ENOTCONN : EBADF, `getsockname of handle ${handle}`);
    return local;
  }

  remoteEndpoint(handle: Handle): Endpoint {
    const entry = this.#entries.get(handle);
    const remote = entry?.remote ?? null;
    if (remote === null)
      throw hostIoError('getpeername', entry ? ERRNO.ENOTCONN : EBADF, `getpeername of handle ${handle}`);
    return remote;
  }

  pendingBytes(handle: Handle): number {
    return this.#entries.get(handle)?.pendingBytes ?? -EBADF;
  }

  // Streams.

  tcpConnect(remote: Endpoint, options: TcpOptions = {}): Handle {
    const { local, noDelay = true, bindInterface } = options;
    if (bindInterface !== undefined) return needsAddon('binding to an interface');
    const bad =
      isIP(remote.address) === 0 ||
      !(remote.port >= 0 && remote.port <= 0xffff) ||
      (local && isIP(local.address) === 0);
    if (bad) throw hostIoError('connect', ERRNO.EINVAL, `connect to ${remote.address}:${remote.port}`);
    const socket = connect({
      host: remote.address,
      port: remote.port,
      noDelay,
      allowHalfOpen: true,
      ...(local === undefined
        ? {}
        : { localAddress: local.address, ...(local.port === 0 ? {} : { localPort: local.port }) }),
    });
    return this.#add(new StreamEntry(this, socket, false, null));
  }

  isConnected(): boolean {
    return false;
  }

  tcpListen(local: Endpoint, options: { backlog?: number; v6Only?: boolean } = {}): Handle {
    return this.#add(ListenerEntry.tcp(this, local, options.backlog ?? BACKLOG, options.v6Only ?? true));
  }

  unixConnect(path: string): Handle {
    return this.#add(new StreamEntry(this, connect({ path, allowHalfOpen: true }), false, path));
  }

  /**
   * Node cannot try a socket file before this returns, so one that is left over is recognised by /proc/net/unix, where the system has it,
   * and is else refused as in use.
   */
  unixListen(path: string): Handle {
    if (isAbandoned(path)) unlinkSync(path);
    return this.#add(ListenerEntry.unix(this, path, BACKLOG));
  }

  accept(handle: Handle): Handle {
    const listener = this.#entries.get(handle);
    if (listener === undefined) return -EBADF;
    if (!(listener instanceof ListenerEntry)) return -ERRNO.EINVAL;
    const socket = listener.accept();
    if (typeof socket === 'number') return socket;
    return this.#add(new StreamEntry(this, socket as Socket, true, listener.path === null ? null : ''));
  }

  #stream(handle: Handle): StreamEntry | number {
    const entry = this.#entries.get(handle);
    if (entry === undefined) return -EBADF;
    return entry instanceof StreamEntry ? entry : -EOPNOTSUPP;
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
    const stream = this.#stream(handle);
    return typeof stream === 'number' ? stream : stream.receive(frames, from, to, at, each, peek);
  }

  discardStream(handle: Handle, length: number): number {
    const stream = this.#stream(handle);
    return typeof stream === 'number' ? stream : stream.discard(length);
  }

  sendStream(handle: Handle, frames: Int32Array, from: number, to: number, skip: number): number {
    const stream = this.#stream(handle);
    return typeof stream === 'number' ? stream : stream.send(frames, from, to, skip, false);
  }

  sendFramed(handle: Handle, frames: Int32Array, from: number, to: number, skip: number): number {
    const stream = this.#stream(handle);
    return typeof stream === 'number' ? stream : stream.send(frames, from, to, skip, true);
  }

  receiveBytes(handle: Handle, target: Uint8Array, from: number, to: number): number {
    const stream = this.#stream(handle);
    return typeof stream === 'number' ? stream : stream.receiveBytes(target, from, to);
  }

  sendBytes(handle: Handle, source: Uint8Array, from: number, to: number): number {
    const stream = this.#stream(handle);
    return typeof stream === 'number' ? stream : stream.sendBytes(source, from, to);
  }

  shutdownWrite(handle: Handle): void {
    const stream = this.#stream(handle);
    if (typeof stream !== 'number') stream.shutdownWrite();
  }

  // Datagrams.

  udpOpen(options: UdpOptions): Handle {
    if (options.bindInterface !== undefined) return needsAddon('binding to an interface');
    return this.#add(new UdpEntry(this, options));
  }

  pingOpen(family: 4 | 6, { local, bindInterface }: PingOptions = {}): Handle {
    if (local !== undefined) return needsAddon('an ICMP echo socket with a source address');
    if (bindInterface !== undefined) return needsAddon('binding to an interface');
    return this.#add(RawIpEntry.echo(this, family));
  }

  rawIpOpen(family: 4 | 6, protocol: number, options: { local?: string; remote?: string } = {}): Handle {
    return this.#add(new RawIpEntry(this, family, protocol, options));
  }

  unixDatagramOpen(_options: { local?: string; remote?: string }): Handle {
    return needsAddon('a unix datagram socket');
  }

  datagramConnect(_handle: Handle, _path: string): number {
    return -EOPNOTSUPP;
  }

  setKeepAlive(handle: Handle, on: boolean): void {
    const entry = this.#entries.get(handle);
    if (entry instanceof StreamEntry) entry.probe(on);
  }

  #datagrams(handle: Handle): UdpEntry | RawIpEntry | number {
    const entry = this.#entries.get(handle);
    if (entry === undefined) return -EBADF;
    return entry instanceof UdpEntry || entry instanceof RawIpEntry ? entry : -ERRNO.EINVAL;
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
    const entry = this.#datagrams(handle);
    return typeof entry === 'number' ? entry : entry.receive(frames, from, to, at, addresses, spill);
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
    const entry = this.#datagrams(handle);
    return typeof entry === 'number' ? entry : entry.send(frames, from, to, remote, headers, headerBytes);
  }

  // What only the addon can do.

  tapOpen(_options: { name?: string; vnetHeader?: boolean; multiQueue?: boolean }): TapInfo {
    return needsAddon('a tap');
  }

  tapOffloads(_handle: Handle, _accepts: number): boolean {
    return needsAddon('a tap');
  }

  tapOf(_handle: Handle): TapInfo {
    return needsAddon('a tap');
  }

  tapSendBuffer(_handle: Handle, _bytes: number): number {
    return needsAddon('a tap');
  }

  readFrames(_handle: Handle, _frames: Int32Array, _from: number, _to: number, _spill?: Int32Array): number {
    return needsAddon('a tap');
  }

  writeFrames(_handle: Handle, _frames: Int32Array, _from: number, _to: number): number {
    return needsAddon('a tap');
  }

  adopt(_fd: number, _options?: { vnetHeader?: boolean }): Handle {
    return needsAddon('using a descriptor that was opened elsewhere');
  }

  fdOf(_handle: Handle): number {
    return needsAddon('a descriptor of its own');
  }

  socketPair(): [Handle, Handle] {
    return needsAddon('a socket pair');
  }

  sendWithFds(_handle: Handle, _source: Uint8Array, _fds: readonly Handle[]): number {
    return needsAddon('passing descriptors');
  }

  receiveWithFds(
    _handle: Handle,
    _target: Uint8Array,
    _maxFds: number,
  ): { bytes: number; fds: Handle[]; excessFds: number } {
    return needsAddon('passing descriptors');
  }

  eventFd(): Handle {
    return needsAddon('an eventfd');
  }

  signal(_handle: Handle): void {
    needsAddon('an eventfd');
  }

  drain(_handle: Handle): number {
    return needsAddon('an eventfd');
  }

  waitReady(_handle: Handle, _interest: number, _timeoutMs: number): number {
    return needsAddon('waiting for one descriptor');
  }

  memoryFd(_name: string, _bytes: number): Handle {
    return needsAddon('shared memory');
  }

  ptyOpen(): { master: Handle; slave: Handle; name: string } {
    return needsAddon('a pseudo terminal');
  }

  map(_handle: Handle, _offset: number, _length: number, _writable?: boolean): Uint8Array {
    return needsAddon('shared memory');
  }

  unmap(_memory: Uint8Array): void {
    needsAddon('shared memory');
  }

  shutdown(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#driver?.stop();
    this.#driver = null;
    for (const handle of [...this.#entries.keys()]) this.close(handle);
    if (this.#immediate !== null) clearImmediate(this.#immediate);
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#immediate = null;
    this.#timer = null;
    this.pool = null;
  }
}

function needsAddon(what: string): never {
  throw new UnsupportedError(
    `${what} needs the native addon, which this run does without (host I/O is portable)`,
  );
}

function isAbandoned(path: string): boolean {
  if (!lstatSync(path, { throwIfNoEntry: false })?.isSocket()) return false;
  try {
    // The path is the eighth column, and the last.
    return !readFileSync('/proc/net/unix', 'utf8')
      .split('\n')
      .some((line) => line.trim().split(/\s+/).slice(7).join(' ') === path);
  } catch {
    return false;
  }
}

export function createPortableHostIo(): PortableHostIo {
  return new PortableHostIo();
}
