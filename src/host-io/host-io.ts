/**
 * Host I/O: the one interface between netemu and the host's sockets, taps and descriptors. Two implementations stand behind it: `native`
 * (the addon: one system call per batch, bytes straight into pool slots and out of frame segments) and `portable` (node:net,
 * dgram-as-promised, raw-socket). Backends get one injected and import nothing else; this file holds types and constants only, so portable
 * code may import it, and a browser may bring an implementation of its own.
 *
 * Nothing here throws for what the network does: a call returns a count, or a negative errno (see ERRNO). Opening calls throw
 * HostIoError (the host said no) or UnsupportedError (this implementation cannot). A `Handle` is a small positive integer that names one
 * open thing until `close`; closing twice is harmless, and events of a closed handle are never delivered.
 */

import type { Loop } from '../core/loop.ts';
import type { FramePool } from '../core/pool.ts';

export type Handle = number;

/** Readiness bits, for `watch` and for what a listener is told. */
export const READABLE = 1;
export const WRITABLE = 2;
/** The peer will send nothing more (told, not asked for). */
export const HUNG_UP = 4;
/** An error waits in the socket: `takeError` has it (told, not asked for). */
export const FAILED = 8;

/** Called at most once per loop turn and handle, with the bits that are ready. Level-triggered: what is left unread is told again. */
export type ReadyListener = (ready: number) => void;

/** An IP endpoint. `address` is a textual IPv4 or IPv6 address without brackets or zone; `port` 0 lets the host choose. */
export interface Endpoint {
  address: string;
  port: number;
}

export interface UdpOptions {
  /** Local address; unbound when absent. */
  local?: Endpoint;
  /** Fixes the far end: only its datagrams arrive, and host errors (ECONNREFUSED …) are reported by receive and send. */
  remote?: Endpoint;
  /** Needed when neither address tells. */
  family?: 4 | 6;
  reuseAddress?: boolean;
  /** Send and receive by this interface alone (SO_BINDTODEVICE), by name. Native only. */
  bindInterface?: string;
  /** Join this group, on the interface with address `interface`. */
  multicast?: { group: string; interface?: string; loop?: boolean };
  /** Ask the kernel to coalesce received runs (UDP_GRO); received frames then carry GSO_SIZE. A host that cannot goes without: GSO_SIZE stays 0. */
  gro?: boolean;
  /** Keep each ICMP error about this socket's datagrams for `networkError`; also those that say less than that there is nobody. A host that cannot goes without. */
  networkErrors?: boolean;
  receiveBufferBytes?: number;
  sendBufferBytes?: number;
}

/** What `networkError` fills in. The quote is the beginning of the packet that the error is about, behind its IP header. */
export const NETWORK_ERROR_BYTES = 64;
/** ICMP's (or ICMPv6's) type and code, as the sender of the error wrote them. */
export const NETWORK_ERROR_TYPE = 0;
export const NETWORK_ERROR_CODE = 1;
/** 4 or 6: of the sender's address; 0: unknown. */
export const NETWORK_ERROR_FAMILY = 2;
/** How many bytes of the quote there are. */
export const NETWORK_ERROR_QUOTED = 3;
/** Who sent it (16 bytes, IPv4 in the first 4), and where the packet was going. */
export const NETWORK_ERROR_FROM = 4;
export const NETWORK_ERROR_ABOUT = 20;
export const NETWORK_ERROR_QUOTE = 40;

export interface TcpOptions {
  /** Connect from this address. */
  local?: Endpoint;
  noDelay?: boolean;
  /** Connect by this interface alone (SO_BINDTODEVICE), by name. Native only. */
  bindInterface?: string;
  /**
   * How far the connection's packets may go until `setHopLimit` says otherwise; 0 or absent: as the system's setting says. An error of the network
   * about one then fails it, and waits for `networkError`. Only where there is a `setHopLimit`.
   */
  hopLimit?: number;
}

export interface PingOptions {
  /** Send from this address. Native only. */
  local?: string;
  /** Send and receive by this interface alone, by name. Native only. */
  bindInterface?: string;
}

/** What may be done with a file, or in a folder and beneath. */
export interface FilePlace {
  readonly path: string;
  /** bind: make and remove sockets. drive: read, write and control devices. */
  readonly may: 'read' | 'write' | 'bind' | 'drive';
}

export interface TapInfo {
  handle: Handle;
  /** What the kernel called it. */
  name: string;
  /** Frames carry a virtio_net_hdr in front; `readFrames` and `writeFrames` translate it to and from offload facts. */
  vnetHeader: boolean;
}

/**
 * Where addresses of datagrams go, when a socket is not connected: 20 bytes per message: 16 address bytes (IPv4 in the first 4), then
 * port (u16, big-endian), then family (4 or 6), then 0.
 */
export const ADDRESS_BYTES = 20;

export interface HostIo {
  readonly implementation: string;

  /** Frames of this pool may be used in calls from now on. One pool per HostIo. */
  attachPool(pool: FramePool): void;
  /** Runs `loop` from now on whenever it has work, on the host's time; stops when `close` is called. */
  drive(loop: Loop): void;

  /** Tells `listener` when any of `interest` holds; interest 0 keeps the registration but asks for nothing. Replaces an earlier watch. */
  watch(handle: Handle, interest: number, listener: ReadyListener): void;
  /** Changes the interest of a watched handle. */
  setInterest(handle: Handle, interest: number): void;
  close(handle: Handle): void;
  /** The pending socket error as a positive errno, and clears it; 0: none. */
  takeError(handle: Handle): number;
  localEndpoint(handle: Handle): Endpoint;
  remoteEndpoint(handle: Handle): Endpoint;
  /** Bytes that can be received now without blocking. */
  pendingBytes(handle: Handle): number;

  // Streams (TCP and unix).

  /**
   * Starts to connect; WRITABLE (or FAILED) tells the end. What the network refuses at once (no route, no address) is told like that too, by
   * FAILED and `takeError`, never thrown; only want of descriptors or memory and an address that is none are. The same for unixConnect.
   */
  tcpConnect(remote: Endpoint, options?: TcpOptions): Handle;
  /**
   * Whether a connection that was just begun stands already, as one over the loopback mostly does. False: WRITABLE or FAILED will tell. Saves a turn, and
   * an implementation need not know.
   */
  isConnected(handle: Handle): boolean;
  tcpListen(local: Endpoint, options?: { backlog?: number; v6Only?: boolean }): Handle;
  unixConnect(path: string): Handle;
  /** Makes the socket file with mode 0600 and unlinks it on close. A socket file that nobody serves any more is taken over. */
  unixListen(path: string): Handle;
  /**
   * The next waiting connection, or a negative errno (-EAGAIN: none). After -EMFILE the listener is silent, its connections waiting in the
   * kernel, until a handle of this HostIo is closed or a moment has passed.
   */
  accept(handle: Handle): Handle;
  /**
   * Receives into slots: up to `each` bytes into every one of frames[from..to), at `at` bytes after the slot's start, in order. Changes no
   * record. Returns the bytes received, 0 at the end of the stream, or a negative errno. With `peek` the bytes stay in the socket.
   */
  receiveStream(
    handle: Handle,
    frames: Int32Array,
    from: number,
    to: number,
    at: number,
    each: number,
    peek?: boolean,
  ): number;
  /** Takes `length` bytes out of the socket unseen (they were peeked). Returns the bytes taken or a negative errno. */
  discardStream(handle: Handle, length: number): number;
  /** Sends the bytes of frames[from..to), without the first `skip` bytes of the first. Returns the bytes taken or a negative errno. */
  sendStream(handle: Handle, frames: Int32Array, from: number, to: number, skip: number): number;
  /** The same with a 4-byte big-endian length before each frame; `skip` counts these too. */
  sendFramed(handle: Handle, frames: Int32Array, from: number, to: number, skip: number): number;
  /** For control data off the fast path: like receiveStream and sendStream on plain bytes. */
  receiveBytes(handle: Handle, target: Uint8Array, from: number, to: number): number;
  sendBytes(handle: Handle, source: Uint8Array, from: number, to: number): number;
  /** Sends FIN. */
  shutdownWrite(handle: Handle): void;
  /** Lets the kernel probe a silent TCP connection (SO_KEEPALIVE). */
  setKeepAlive(handle: Handle, on: boolean): void;
  /**
   * How far packets of a UDP, ping or TCP socket may go from now on, 1 to 255; 0: as the system's setting says. Of a TCP connection 0 also ends
   * what `hopLimit` began. Returns 0 or a negative errno. Absent where there is no such thing.
   */
  setHopLimit?(handle: Handle, hops: number): number;
  /**
   * Takes the oldest ICMP error about packets of this socket into `into` (NETWORK_ERROR_BYTES); false: there is none. As long as one waits, FAILED
   * is told: of ping sockets, and of those that asked for it. Absent where there is no such thing.
   */
  networkError?(handle: Handle, into: Uint8Array): boolean;
  /** Closes with RST (SO_LINGER 0). */
  reset(handle: Handle): void;

  // Datagrams.

  udpOpen(options: UdpOptions): Handle;
  /**
   * An ICMP echo socket: whole ICMP messages without the IP header, requests out and echo replies in. The kernel's own (SOCK_DGRAM) where the
   * system allows it: it replaces the identifier by the socket's, which is the port of `localEndpoint`, and hears no other replies. Else a raw
   * one: its port is 0, identifiers go out as written, and the replies to everybody on this host arrive. So: write the port, or an
   * identifier of your own when it is 0, and drop replies that carry another. IPv6 checksums are the kernel's work.
   */
  pingOpen(family: 4 | 6, options?: PingOptions): Handle;
  /** Raw IP socket of one protocol. Received messages carry no IP header. */
  rawIpOpen(family: 4 | 6, protocol: number, options?: { local?: string; remote?: string }): Handle;
  unixDatagramOpen(options: { local?: string; remote?: string }): Handle;
  /** Fixes, or moves, the far end of an open unix datagram socket. Returns 0 or a negative errno (-ENOENT, -ECONNREFUSED: nobody there). */
  datagramConnect(handle: Handle, path: string): number;
  /**
   * Receives up to one datagram into each of frames[from..to), at `at` bytes after the slot's start, and sets OFFSET, LENGTH, TOTAL (and
   * GSO_SIZE with UDP_GRO). Sources go to `addresses` when given: that of frames[i] to
   * addresses[i * ADDRESS_BYTES]. Returns how many frames were filled, or a negative errno. A datagram too long for frames[i] goes on in the
   * slot of spill[i] (a frame of the caller's, or 0), which is chained behind and becomes 0. One that fits nowhere is thrown away; the order
   * of `frames` may then have changed (filled ones first).
   */
  receiveDatagrams(
    handle: Handle,
    frames: Int32Array,
    from: number,
    to: number,
    at: number,
    addresses?: Uint8Array,
    spill?: Int32Array,
  ): number;
  /**
   * Sends frames[from..to), one datagram each, to `remote` (a connected socket needs none). `headers`, when given, holds
   * `headerBytes` bytes for each frame that go in front of it: those of frames[i] at i * headerBytes. Returns how many were sent, or a negative errno if none.
   */
  sendDatagrams(
    handle: Handle,
    frames: Int32Array,
    from: number,
    to: number,
    remote?: Endpoint,
    headers?: Uint8Array,
    headerBytes?: number,
  ): number;

  // Taps, descriptors, memory: native only (UnsupportedError elsewhere).

  tapOpen(options: { name?: string; vnetHeader?: boolean; multiQueue?: boolean }): TapInfo;
  /** TUNSETOFFLOAD: ACCEPT_* bits (core/port.ts) that netemu's side takes. False when the kernel refuses. */
  tapOffloads(handle: Handle, accepts: number): boolean;
  /**
   * What an adopted or received descriptor is as a tap; its frames carry the header it was made with from then on. Throws HostIoError when it
   * is none.
   */
  tapOf(handle: Handle): TapInfo;
  /** TUNSETSNDBUF: bytes that may wait in the tap. Returns 0 or a negative errno. */
  tapSendBuffer(handle: Handle, bytes: number): number;
  /**
   * Reads one frame into each of frames[from..to) from a tap; sets OFFSET, LENGTH, TOTAL and facts. The ends of frames too long for their
   * slot go to the slots of spill[0..) in order, up to the first 0; used ones are chained behind and become 0, and no frame is read when
   * all are used. Returns how many, or a negative errno.
   */
  readFrames(handle: Handle, frames: Int32Array, from: number, to: number, spill?: Int32Array): number;
  /** Writes frames[from..to) to a tap, facts included. Returns how many, or a negative errno if none. */
  writeFrames(handle: Handle, frames: Int32Array, from: number, to: number): number;
  /** Wraps a descriptor of this process; the handle owns it from then on. */
  adopt(fd: number, options?: { vnetHeader?: boolean }): Handle;
  /** The descriptor's number, for spawn or ioctl; still owned by the handle. */
  fdOf(handle: Handle): number;
  /**
   * ioctl(2), for devices that are driven by it; absent where there is none. `argument` has at least the bytes that the request's number says, and is
   * filled in. Returns what the call returned, or a negative errno.
   */
  control?(handle: Handle, request: number, argument?: Uint8Array): number;
  /** Where mapped memory lies in this process, for devices that are told by address; absent where there is no such thing. */
  addressOf?(memory: Uint8Array): number;
  /**
   * Denies the whole process, all threads and for good, what netemu does not need once everything is open: running other programs, tracing,
   * mounting, new namespaces and the like fail with EPERM. Throws HostIoError where the kernel will not. Absent where there is no such thing.
   */
  enterSandbox?(): void;
  /** `enterSandbox` has worked. */
  readonly inSandbox?: boolean;
  /** The version of the kernel's interface for `restrictFiles`; 0 or absent: there is none. */
  readonly fileRulesVersion?: number;
  /**
   * Leaves the whole process, all threads and for good, only these files and folders (with all beneath them): what lies elsewhere cannot be
   * opened, listed, made or removed. Places that do not exist are left out. What is open stays so, and sockets may connect anywhere. Throws
   * HostIoError where the kernel will not; the process is to end then, for some of its threads may be restricted.
   */
  restrictFiles?(places: readonly FilePlace[]): void;
  /** `restrictFiles` has worked. */
  readonly filesRestricted?: boolean;
  socketPair(): [Handle, Handle];
  /**
   * Like sendBytes and receiveBytes with descriptors beside the bytes (SCM_RIGHTS). Received ones arrive as new handles; those beyond `maxFds`
   * were closed and are counted in `excessFds`.
   */
  sendWithFds(handle: Handle, source: Uint8Array, fds: readonly Handle[]): number;
  receiveWithFds(
    handle: Handle,
    target: Uint8Array,
    maxFds: number,
  ): { bytes: number; fds: Handle[]; excessFds: number };
  eventFd(): Handle;
  /** Adds one to an eventfd. */
  signal(handle: Handle): void;
  /** Reads and clears an eventfd; 0 when nothing was signalled. */
  drain(handle: Handle): number;
  /**
   * Stands still until one of `interest` holds, or the peer is gone, for at most `timeoutMs`; returns what is ready, 0: the time passed. Only for a protocol whose
   * answer the caller cannot go on without, from another process (vfio-user's DMA by messages).
   */
  waitReady(handle: Handle, interest: number, timeoutMs: number): number;
  memoryFd(name: string, bytes: number): Handle;
  /** A pseudo terminal in raw mode. The slave is held open too, so that the master is not hung up while nobody else has it open. */
  ptyOpen(): { master: Handle; slave: Handle; name: string };
  /** Maps [offset, offset + length) of a descriptor, shared. The array is emptied by `unmap`; truncation of the file under it reads as zeros. */
  map(handle: Handle, offset: number, length: number, writable?: boolean): Uint8Array;
  unmap(memory: Uint8Array): void;

  /** Ends everything: every handle, every socket file, the drive. */
  shutdown(): void;
}

/** Linux errno numbers that callers decide on; errno.ts has the names. */
export const ERRNO = {
  EPERM: 1,
  ENOENT: 2,
  EINTR: 4,
  EIO: 5,
  EBADF: 9,
  EAGAIN: 11,
  ENOMEM: 12,
  EACCES: 13,
  EEXIST: 17,
  EINVAL: 22,
  ENFILE: 23,
  EMFILE: 24,
  ENOSPC: 28,
  EPIPE: 32,
  EDESTADDRREQ: 89,
  EMSGSIZE: 90,
  EOPNOTSUPP: 95,
  EADDRINUSE: 98,
  EADDRNOTAVAIL: 99,
  ENETDOWN: 100,
  ENETUNREACH: 101,
  ECONNABORTED: 103,
  ECONNRESET: 104,
  ENOBUFS: 105,
  EISCONN: 106,
  ENOTCONN: 107,
  ETIMEDOUT: 110,
  ECONNREFUSED: 111,
  EHOSTDOWN: 112,
  EHOSTUNREACH: 113,
  EINPROGRESS: 115,
} as const;
