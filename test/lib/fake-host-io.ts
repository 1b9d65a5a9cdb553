/**
 * A host of sockets in memory, on the test's own loop: the far ends are played by the test. Readiness is level-triggered like the real one;
 * a listener that is told the same thing again and again without doing anything about it fails the test.
 */
import { HostIoError, UnsupportedError } from '../../src/core/errors.ts';
import type { Loop } from '../../src/core/loop.ts';
import { type FramePool, GSO_SIZE, LENGTH, OFFSET, ROOM, SLOT, TOTAL } from '../../src/core/pool.ts';
import {
  type Endpoint,
  ERRNO,
  FAILED,
  type Handle,
  type HostIo,
  type PingOptions,
  READABLE,
  type ReadyListener,
  type TcpOptions,
  type UdpOptions,
  WRITABLE,
} from '../../src/host-io/host-io.ts';
import { parseIpv6 } from '../../src/wire/bytes.ts';

const SPINS_MAX = 200;

export class FakeSocket {
  kind: 'tcp' | 'listener' | 'udp' | 'ping' = 'tcp';
  readonly handle: Handle;
  local: Endpoint = { address: '', port: 0 };
  remote: Endpoint = { address: '', port: 0 };
  connecting = false;
  connected = false;
  closed = false;
  wasReset = false;
  writeShut = false;
  /** A pending error, positive. */
  error = 0;
  /** What the far end sent. */
  incoming: number[] = [];
  incomingEnd = false;
  /** What we sent. */
  readonly sent: number[] = [];
  /** Bytes it still takes. */
  sendRoom = Number.POSITIVE_INFINITY;
  /** `each`: a run of datagrams, as UDP_GRO makes them. */
  readonly datagramsIn: { data: Uint8Array; from: Endpoint; each: number }[] = [];
  gro = false;
  /** As setHopLimit said, now and for each datagram that went out. */
  hops = 0;
  readonly hopsOut: number[] = [];
  /** What the network says, as `networkError` gives it. */
  readonly networkErrors: Uint8Array[] = [];
  readonly datagramsOut: { data: Uint8Array; to: Endpoint | null }[] = [];
  bindInterface: string | undefined;
  readonly waiting: FakeSocket[] = [];
  interest = 0;
  listener: ReadyListener | null = null;
  posted = false;
  spins = 0;
  receiveCalls = 0;
  sendCalls = 0;

  constructor(handle: Handle) {
    this.handle = handle;
  }

  get sentBytes(): Uint8Array {
    return Uint8Array.from(this.sent);
  }
}

type Refusal = { syscall: string; code: string };

class Fake {
  readonly sockets = new Map<Handle, FakeSocket>();
  readonly all: FakeSocket[] = [];
  /** Makes the next opening calls fail. */
  refuse: Refusal | null = null;
  /** How many sockets may be open. */
  descriptorsMax = Number.POSITIVE_INFINITY;
  /** Whether the host lets us ping. */
  pings = true;
  /** Whether by a raw socket, which hears the replies to everybody. */
  rawPings = false;
  /** What this host is called on the network; what goes there leaves from there. */
  ownAddress = '';
  interestCalls = 0;
  /** As over the loopback. */
  connectsAtOnce = false;
  readonly implementation = 'fake';
  readonly #loop: Loop;
  readonly #pool: FramePool;
  #next = 1;
  #port = 40_000;

  constructor(loop: Loop, pool: FramePool) {
    this.#loop = loop;
    this.#pool = pool;
  }

  // The test's side.

  get latest(): FakeSocket {
    return this.all[this.all.length - 1]!;
  }

  get openCount(): number {
    return this.sockets.size;
  }

  finishConnect(s: FakeSocket, errno = 0): void {
    s.connecting = false;
    if (errno === 0) s.connected = true;
    else s.error = errno;
    this.kick(s);
  }

  push(s: FakeSocket, data: Uint8Array): void {
    for (const byte of data) s.incoming.push(byte);
    this.kick(s);
  }

  end(s: FakeSocket): void {
    s.incomingEnd = true;
    this.kick(s);
  }

  fail(s: FakeSocket, errno: number): void {
    s.error = errno;
    this.kick(s);
  }

  /** The network says something about a packet of a socket's. */
  networkSays(s: FakeSocket, what: Uint8Array, errno = 0): void {
    s.networkErrors.push(what);
    s.error = errno;
    this.kick(s);
  }

  allow(s: FakeSocket, bytes: number): void {
    s.sendRoom = bytes;
    this.kick(s);
  }

  pushDatagram(s: FakeSocket, data: Uint8Array, from: Endpoint = s.remote, each = 0): void {
    if (each > 0 && !s.gro) throw new Error('runs were not asked for');
    s.datagramsIn.push({ data, from, each });
    this.kick(s);
  }

  /** Somebody connects to a listener. */
  knock(listener: FakeSocket, from: Endpoint = { address: '198.51.100.7', port: 50_001 }): FakeSocket {
    const s = this.#make('tcp');
    s.connected = true;
    s.local = listener.local;
    s.remote = from;
    listener.waiting.push(s);
    this.kick(listener);
    return s;
  }

  kick(s: FakeSocket): void {
    if (s.posted || s.closed) return;
    s.posted = true;
    this.#loop.post(() => {
      s.posted = false;
      this.#tell(s);
    });
  }

  #bits(s: FakeSocket): number {
    let bits = 0;
    if (s.kind === 'listener') return s.waiting.length > 0 ? READABLE : 0;
    if (s.kind === 'tcp') {
      if (s.connected && (s.incoming.length > 0 || s.incomingEnd)) bits |= READABLE;
      if (s.connected && s.sendRoom > 0) bits |= WRITABLE;
    } else if (s.datagramsIn.length > 0) bits |= READABLE;
    bits &= s.interest;
    if (s.error !== 0 || s.networkErrors.length > 0) bits |= FAILED;
    return bits;
  }

  #tell(s: FakeSocket): void {
    if (s.closed || s.listener === null) return;
    const bits = this.#bits(s);
    if (bits === 0) {
      s.spins = 0;
      return;
    }
    const before = s.incoming.length + s.datagramsIn.length + s.waiting.length;
    s.listener(bits);
    const after = s.incoming.length + s.datagramsIn.length + s.waiting.length;
    s.spins = after < before ? 0 : s.spins + 1;
    if (s.spins > SPINS_MAX)
      throw new Error(`handle ${s.handle} (${s.kind}) is told ${bits} again and again`);
    if (!s.closed && this.#bits(s) !== 0) this.kick(s);
  }

  // HostIo.

  #open(kind: FakeSocket['kind']): FakeSocket {
    if (this.refuse !== null) throw new HostIoError(this.refuse.syscall, this.refuse.code, this.refuse.code);
    if (this.#isFull()) throw new HostIoError('socket', 'EMFILE', 'Too many open files');
    return this.#make(kind);
  }

  /** Connections that wait to be accepted have no descriptor. */
  #isFull(): boolean {
    if (this.descriptorsMax === Number.POSITIVE_INFINITY) return false;
    let open = 0;
    for (const s of this.sockets.values()) open += 1 - s.waiting.length;
    return open >= this.descriptorsMax;
  }

  #make(kind: FakeSocket['kind']): FakeSocket {
    const s = new FakeSocket(this.#next++);
    s.kind = kind;
    this.sockets.set(s.handle, s);
    this.all.push(s);
    return s;
  }

  #of(handle: Handle): FakeSocket {
    const s = this.sockets.get(handle);
    if (s === undefined) throw new Error(`handle ${handle} is not open`);
    return s;
  }

  attachPool(): void {}
  drive(): void {}
  watch(handle: Handle, interest: number, listener: ReadyListener): void {
    const s = this.#of(handle);
    s.interest = interest;
    s.listener = listener;
    this.kick(s);
  }
  setInterest(handle: Handle, interest: number): void {
    const s = this.#of(handle);
    this.interestCalls++;
    s.interest = interest;
    this.kick(s);
  }
  close(handle: Handle): void {
    const s = this.sockets.get(handle);
    if (s === undefined) return;
    s.closed = true;
    this.sockets.delete(handle);
  }
  reset(handle: Handle): void {
    const s = this.#of(handle);
    s.wasReset = true;
    this.close(handle);
  }
  takeError(handle: Handle): number {
    const s = this.#of(handle);
    const { error } = s;
    s.error = 0;
    return error;
  }
  setHopLimit(handle: Handle, hops: number): number {
    this.#of(handle).hops = hops;
    return 0;
  }
  networkError(handle: Handle, into: Uint8Array): boolean {
    const s = this.#of(handle);
    const error = s.networkErrors.shift();
    if (error === undefined) return false;
    into.set(error);
    s.error = 0;
    return true;
  }
  localEndpoint(handle: Handle): Endpoint {
    return this.#of(handle).local;
  }
  remoteEndpoint(handle: Handle): Endpoint {
    return this.#of(handle).remote;
  }
  pendingBytes(handle: Handle): number {
    const s = this.#of(handle);
    return s.kind === 'tcp' ? s.incoming.length : (s.datagramsIn[0]?.data.length ?? 0);
  }
  tcpConnect(remote: Endpoint, options: TcpOptions = {}): Handle {
    const s = this.#open('tcp');
    s.remote = remote;
    if (options.local !== undefined) s.local = options.local;
    s.bindInterface = options.bindInterface;
    s.hops = options.hopLimit ?? 0;
    s.connecting = !this.connectsAtOnce;
    s.connected = this.connectsAtOnce;
    return s.handle;
  }
  #listen(local: Endpoint): Handle {
    const s = this.#open('listener');
    s.local = { address: local.address, port: local.port || this.#port++ };
    return s.handle;
  }
  isConnected(handle: Handle): boolean {
    return this.#of(handle).connected;
  }

  tcpListen(local: Endpoint): Handle {
    return this.#listen(local);
  }
  unixListen(path: string): Handle {
    return this.#listen({ address: path, port: 0 });
  }
  accept(handle: Handle): Handle {
    const { waiting } = this.#of(handle);
    if (waiting.length > 0 && this.#isFull()) return -ERRNO.EMFILE;
    return waiting.shift()?.handle ?? -ERRNO.EAGAIN;
  }
  receiveStream(
    handle: Handle,
    frames: Int32Array,
    from: number,
    to: number,
    at: number,
    each: number,
  ): number {
    const s = this.#of(handle);
    s.receiveCalls++;
    if (s.error !== 0) {
      const { error } = s;
      s.error = 0;
      return -error;
    }
    if (s.incoming.length === 0) return s.incomingEnd ? 0 : -ERRNO.EAGAIN;
    const { table, bytes } = this.#pool;
    let got = 0;
    for (let i = from; i < to && s.incoming.length > 0; i++) {
      if (at + each > table[frames[i]! + ROOM]!) throw new Error('a slot would overflow');
      const part = s.incoming.splice(0, each);
      bytes.set(part, table[frames[i]! + SLOT]! + at);
      got += part.length;
    }
    return got;
  }
  sendStream(handle: Handle, frames: Int32Array, from: number, to: number, skip: number): number {
    const s = this.#of(handle);
    s.sendCalls++;
    if (s.error !== 0) {
      const { error } = s;
      s.error = 0;
      return -error;
    }
    if (s.writeShut) return -ERRNO.EPIPE;
    if (s.sendRoom === 0) return -ERRNO.EAGAIN;
    let taken = 0;
    for (let i = from; i < to && s.sendRoom > 0; i++) {
      const frame = frames[i]!;
      const part = Math.min(this.#pool.table[frame + TOTAL]! - skip, s.sendRoom);
      const bytes = new Uint8Array(part);
      this.#pool.read(frame, skip, bytes, 0, part);
      for (const byte of bytes) s.sent.push(byte);
      s.sendRoom -= part;
      taken += part;
      skip = 0;
    }
    return taken;
  }
  receiveBytes(handle: Handle, target: Uint8Array, from: number, to: number): number {
    const s = this.#of(handle);
    s.receiveCalls++;
    if (s.error !== 0) {
      const { error } = s;
      s.error = 0;
      return -error;
    }
    if (s.incoming.length === 0) return s.incomingEnd ? 0 : -ERRNO.EAGAIN;
    const part = s.incoming.splice(0, to - from);
    target.set(part, from);
    return part.length;
  }
  sendBytes(handle: Handle, source: Uint8Array, from: number, to: number): number {
    const s = this.#of(handle);
    s.sendCalls++;
    if (s.sendRoom === 0) return -ERRNO.EAGAIN;
    const part = source.subarray(from, Math.min(to, from + s.sendRoom));
    s.sent.push(...part);
    s.sendRoom -= part.length;
    return part.length;
  }
  shutdownWrite(handle: Handle): void {
    this.#of(handle).writeShut = true;
  }
  udpOpen(options: UdpOptions): Handle {
    const s = this.#open('udp');
    s.bindInterface = options.bindInterface;
    s.gro = options.gro ?? false;
    if (options.remote !== undefined) s.remote = options.remote;
    if (options.remote?.address === this.ownAddress)
      s.local = { address: this.ownAddress, port: this.#port++ };
    if (options.local !== undefined) s.local = { ...options.local, port: options.local.port || this.#port++ };
    return s.handle;
  }
  pingOpen(_family: 4 | 6, options: PingOptions = {}): Handle {
    if (!this.pings) throw new HostIoError('socket', 'EACCES', 'Permission denied');
    const s = this.#open('ping');
    s.local = { address: options.local ?? '0.0.0.0', port: this.rawPings ? 0 : this.#port++ };
    s.bindInterface = options.bindInterface;
    return s.handle;
  }
  receiveDatagrams(
    handle: Handle,
    frames: Int32Array,
    from: number,
    to: number,
    at: number,
    addresses?: Uint8Array,
  ): number {
    const s = this.#of(handle);
    s.receiveCalls++;
    if (s.error !== 0) {
      const { error } = s;
      s.error = 0;
      return -error;
    }
    const { table, bytes } = this.#pool;
    let i = from;
    while (i < to && s.datagramsIn.length > 0) {
      const { data, from: source, each } = s.datagramsIn.shift()!;
      const frame = frames[i]!;
      if (at + data.length > table[frame + ROOM]!) continue; // truncated ones are dropped by the host I/O
      bytes.set(data, table[frame + SLOT]! + at);
      table[frame + OFFSET] = table[frame + SLOT]! + at;
      table[frame + LENGTH] = data.length;
      table[frame + TOTAL] = data.length;
      table[frame + GSO_SIZE] = each;
      if (addresses !== undefined) {
        const a = (i - from) * 20;
        addresses.fill(0, a, a + 20);
        const six = source.address.includes(':');
        addresses.set(six ? parseIpv6(source.address)! : source.address.split('.').map(Number), a);
        addresses[a + 16] = source.port >> 8;
        addresses[a + 17] = source.port;
        addresses[a + 18] = six ? 6 : 4;
      }
      i++;
    }
    return i > from ? i - from : -ERRNO.EAGAIN;
  }
  sendDatagrams(handle: Handle, frames: Int32Array, from: number, to: number, remote?: Endpoint): number {
    const s = this.#of(handle);
    s.sendCalls++;
    if (s.error !== 0) {
      const { error } = s;
      s.error = 0;
      return -error;
    }
    let i = from;
    if (s.kind === 'ping') s.remote = remote!;
    for (; i < to && s.sendRoom > 0; i++) {
      s.hopsOut.push(s.hops);
      s.datagramsOut.push({ data: this.#pool.toBytes(frames[i]!), to: remote ?? null });
      s.sendRoom--;
    }
    return i > from ? i - from : -ERRNO.EAGAIN;
  }
}

export type FakeHostIo = Fake & HostIo;

/** The parts of HostIo that are not played refuse as a platform without them would. */
export function fakeHostIo(loop: Loop, pool: FramePool): FakeHostIo {
  const fake = new Fake(loop, pool);
  return new Proxy(fake, {
    get: (target, name) => {
      const value = Reflect.get(target, name, target) as unknown;
      if (value === undefined && typeof name === 'string' && name !== 'then') {
        return () => {
          throw new UnsupportedError(`the fake host has no ${name}`);
        };
      }
      return typeof value === 'function' ? (value as () => unknown).bind(target) : value;
    },
    set: (target, name, value) => Reflect.set(target, name, value, target),
  }) as unknown as FakeHostIo;
}
