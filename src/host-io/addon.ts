/** The addon as TypeScript sees it (native/glue), and how it is found: prebuilds/ or build/ of the package, by node-gyp-build. */

import { createRequire } from 'node:module';
import { dirname, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { UnsupportedError } from '../core/errors.ts';

/** The functions of one host. Each returns a count or a handle, or a negative errno, where nothing else is said. */
export interface BoundAddon {
  shutdown(): number;
  watch(handle: number, interest: number): number;
  close(handle: number): number;
  reset(handle: number): number;
  /** Negative disarms. */
  setTimer(delayNs: number): number;
  busyPoll(ns: number): number;
  /** Ready handles now, as `open`'s callback would be told them. */
  poll(): number;
  /** Within `onReady`, when the pairs told are done with: how many pairs more there are, maybe after waiting a little; 0: return to the event loop. */
  lookAgain(): number;
  /** receiveCalls, sendCalls, pollCalls, truncated, wakeups, busyPolls, open handles. */
  stats(out: Float64Array): number;
  attachTable(table: Int32Array): number;
  setRegion(region: number, bytes: Uint8Array): number;
  /** The list of core/copy-list.ts; `copyAll` copies the first `count` runs of it, and returns how many fitted their targets. */
  attachCopies(list: Int32Array): number;
  copyAll(count: number): number;
  map(handle: number, offset: number, length: number, writable: boolean): number | [Uint8Array, object];
  unmap(memory: Uint8Array, owner: object): number;
  udpOpen(
    localAddress: string | undefined,
    localPort: number,
    remoteAddress: string | undefined,
    remotePort: number,
    family: number,
    /** 1: reuse the address, 2: UDP_GRO, 4: multicast loop, 8: keep the network's errors. */
    flags: number,
    receiveBytes: number,
    sendBytes: number,
    group: string | undefined,
    groupInterface: string | undefined,
    bindInterface: string | undefined,
  ): number;
  pingOpen(family: number, localAddress: string | undefined, bindInterface: string | undefined): number;
  rawOpen(family: number, protocol: number, local: string | undefined, remote: string | undefined): number;
  unixDatagramOpen(local: string | undefined, remote: string | undefined): number;
  datagramConnect(handle: number, path: string): number;
  keepAlive(handle: number, on: boolean): number;
  hopLimit(handle: number, hops: number): number;
  /** 1: the oldest error was taken into `out`; 0: there is none. */
  networkError(handle: number, out: Uint8Array): number;
  tcpConnect(
    address: string,
    port: number,
    localAddress: string | undefined,
    localPort: number,
    noDelay: boolean,
    bindInterface: string | undefined,
    hops: number,
  ): number;
  tcpListen(address: string, port: number, backlog: number, v6Only: boolean): number;
  unixConnect(path: string): number;
  unixListen(path: string, backlog: number): number;
  endpoint(handle: number, remote: boolean): number | [string, number];
  accept(handle: number): number;
  /** A positive errno or 0. */
  takeError(handle: number): number;
  pendingBytes(handle: number): number;
  shutdownWrite(handle: number): number;
  signal(handle: number): number;
  drain(handle: number): number;
  waitReady(handle: number, interest: number, timeoutMs: number): number;
  fdOf(handle: number): number;
  /** `argument` has at least the bytes that the request's number says. */
  control(handle: number, request: number, argument: Uint8Array | undefined): number;
  addressOf(bytes: Uint8Array): number;
  receiveStream(
    handle: number,
    frames: Int32Array,
    from: number,
    to: number,
    at: number,
    each: number,
    peek: boolean,
  ): number;
  /** The same, without peeking, and the next three, with their arguments in the block (BLOCK_* below). */
  blockReceiveStream(): number;
  blockSendStream(): number;
  blockReadFrames(): number;
  blockWriteFrames(): number;
  discardStream(handle: number, length: number): number;
  sendStream(handle: number, frames: Int32Array, from: number, to: number, skip: number): number;
  sendFramed(handle: number, frames: Int32Array, from: number, to: number, skip: number): number;
  receiveBytes(handle: number, target: Uint8Array, from: number, to: number): number;
  sendBytes(handle: number, source: Uint8Array, from: number, to: number): number;
  receiveDatagrams(
    handle: number,
    frames: Int32Array,
    from: number,
    to: number,
    at: number,
    addresses: Uint8Array | undefined,
    spill: Int32Array | undefined,
  ): number;
  /** With `toMailbox` to the address in `open`'s mailbox. */
  sendDatagrams(
    handle: number,
    frames: Int32Array,
    from: number,
    to: number,
    toMailbox: boolean,
    headers: Uint8Array | undefined,
    headerBytes: number,
  ): number;
  tapOpen(name: string | undefined, vnetHeader: boolean, multiQueue: boolean): number | [number, string];
  tapOffloads(handle: number, accepts: number): number;
  /** [1 with a virtio_net_hdr, else 0; its name]. */
  tapOf(handle: number): number | [number, string];
  tapSendBuffer(handle: number, bytes: number): number;
  sandbox(): number;
  /** `rights[i]`: what may be done at paths[i] (1 read, 2 write, 4 bind, 8 drive). Returns how many of the places there are. */
  landlock(paths: readonly string[], rights: Int32Array): number;
  landlockAbi(): number;
  readFrames(
    handle: number,
    frames: Int32Array,
    from: number,
    to: number,
    spill: Int32Array | undefined,
  ): number;
  writeFrames(handle: number, frames: Int32Array, from: number, to: number): number;
  adopt(fd: number, vnetHeader: boolean): number;
  socketPair(out: Int32Array): number;
  sendWithFds(handle: number, source: Uint8Array, fds: Int32Array): number;
  /** out[0] descriptors kept, out[1] closed, out[2..] handles. */
  receiveWithFds(handle: number, target: Uint8Array, limit: number, out: Int32Array): number;
  eventFd(): number;
  memoryFd(name: string, bytes: number): number;
  /** Master, path, slave. */
  ptyOpen(): number | [number, string, number];
}

/**
 * Where the busiest calls' arguments lie, in words: [0] handle, [1] how many frames, [2] `at`, `skip` or how many spill slots, [3] `each`.
 * At most BLOCK_FRAMES_MAX frames, and as many spill slots.
 */
export const BLOCK_FRAMES = 8;
export const BLOCK_FRAMES_MAX = 64;
export const BLOCK_SPILL = BLOCK_FRAMES + BLOCK_FRAMES_MAX;
export const BLOCK_WORDS = BLOCK_SPILL + BLOCK_FRAMES_MAX;

export interface Addon {
  /** The record layout and the constants it was built with; a test compares them with core/pool.ts and host-io.ts. */
  readonly layout: Readonly<Record<string, number>>;
  /** `onReady(pairs)`: that many pairs of (handle, bits) lie in `events`; handle 0 is the timer. More by `lookAgain`. */
  open(
    onReady: (pairs: number) => void,
    events: Int32Array,
    mailbox: Uint8Array,
    block: Int32Array,
  ): BoundAddon;
  /** The folded one's complement sum of bytes[from..to) as big-endian words; negative when the range is bad. */
  sum(bytes: Uint8Array, from: number, to: number): number;
  /** The same without vector instructions. */
  sumPlain(bytes: Uint8Array, from: number, to: number): number;
  /** Copies source[from..to) to target[at..); returns the bytes, or negative when a range is bad. */
  copy(source: Uint8Array, from: number, to: number, target: Uint8Array, at: number): number;
}

/** The package's root: this file lies two folders below it, in src/ and in dist/. */
const ROOT = resolve(dirname(fileURLToPath(import.meta.url)), '../..');

/** Loads the addon, or throws UnsupportedError with the reason. */
export function loadAddon(root = ROOT): Addon {
  const require = createRequire(import.meta.url);
  try {
    const load = require('node-gyp-build') as (root: string) => Addon;
    return load(root);
  } catch (error) {
    const reason = error instanceof Error ? (error.message.split('\n')[0] ?? '') : String(error);
    throw new UnsupportedError(`the native addon cannot be loaded: ${reason}`);
  }
}
