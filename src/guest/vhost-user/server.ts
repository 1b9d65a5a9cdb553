/**
 * A virtio-net served over vhost-user: netemu is the back-end, and a VMM in another process (or DPDK's virtio_user) the front-end that has the guest's rings and RAM.
 *
 *     front-end ── messages ──▶ Wire ──▶ Session ──▶ Ring, FrontEndMemory
 *     guest RAM and rings ◀── mapped files ── GuestMemory ◀── VirtioNet (virtio/ and nic/virtio-net/, as behind PCI)
 *     kick eventfd ──▶ VirtioNet ──▶ call eventfd
 *
 * Either side may own the socket. With `listen` one front-end is served at a time, and the next waits in the backlog. Without, we connect, and try again
 * after RETRY_NS when nobody is there or the front-end went away: it may be restarted at any time, and so may we.
 */

import type { Logger } from '../../core/log.ts';
import type { Loop, Timer } from '../../core/loop.ts';
import { FAILED, type Handle, type HostIo, READABLE, WRITABLE } from '../../host-io/host-io.ts';
import type { VirtioNet } from '../../nic/virtio-net/index.ts';
import type { VhostUserHost } from './host.ts';
import { MemoryStats } from './memory.ts';
import { RingStats, Session } from './session.ts';
import { WireStats } from './wire.ts';

export interface VhostUserOptions {
  path: string;
  /** Make the socket and listen (mode 0600), instead of connecting to it. */
  listen: boolean;
  /** The NIC, which was made with `host` as its DeviceHost. */
  device: VirtioNet;
  host: VhostUserHost;
  /** Needs descriptors and mappings: the native one. */
  hostIo: HostIo;
  loop: Loop;
  log: Logger;
}

const RETRY_NS = 1e9;

export class VhostUserBackend {
  readonly path: string;
  readonly wireStats = new WireStats();
  readonly memoryStats = new MemoryStats();
  readonly ringStats = new RingStats();
  /** Front-ends that came so far. */
  frontEnds = 0;

  readonly #options: VhostUserOptions;
  readonly #retry: Timer;
  /** The listening socket, or the one that is being connected; 0: none. */
  #handle: Handle = 0;
  #session: Session | null = null;
  #closed = false;

  /** Listens or begins to connect. Throws HostIoError when the path cannot be had, UnsupportedError when the host I/O is not the native one. */
  constructor(options: VhostUserOptions) {
    this.#options = options;
    this.path = options.path;
    const { hostIo, loop } = options;
    this.#retry = loop.timer(() => {
      try {
        this.#connect();
      } catch {
        // The host is out of descriptors or memory: later, then.
        this.#retry.armIn(RETRY_NS);
      }
    });
    // A host I/O without descriptors says so here, and not to the first front-end.
    hostIo.close(hostIo.eventFd());
    if (options.listen) {
      this.#handle = hostIo.unixListen(options.path);
      hostIo.watch(this.#handle, READABLE, () => this.#accept());
    } else {
      this.#connect();
    }
  }

  get connected(): boolean {
    return this.#session !== null;
  }

  /** The session's MTU as the front-end told it; 0: it told none. */
  get ipMtuBytes(): number {
    return this.#session?.ipMtuBytes ?? 0;
  }

  #connect(): void {
    const { hostIo } = this.#options;
    const handle = hostIo.unixConnect(this.path);
    this.#handle = handle;
    hostIo.watch(handle, WRITABLE, (ready) => {
      this.#handle = 0;
      if ((ready & FAILED) === 0 && hostIo.takeError(handle) === 0) {
        this.#begin(handle);
        return;
      }
      hostIo.close(handle);
      this.#retry.armIn(RETRY_NS);
    });
  }

  #accept(): void {
    if (this.#session !== null) return;
    const { hostIo } = this.#options;
    const handle = hostIo.accept(this.#handle);
    if (handle <= 0) return;
    hostIo.setInterest(this.#handle, 0);
    this.#begin(handle);
  }

  #begin(handle: Handle): void {
    const { hostIo, log, host, device } = this.#options;
    this.frontEnds++;
    log.info({ path: this.path }, 'vhost-user: a front-end is here');
    this.#session = new Session(handle, {
      hostIo,
      log,
      host,
      device,
      wireStats: this.wireStats,
      memoryStats: this.memoryStats,
      ringStats: this.ringStats,
      ended: (reason) => this.#ended(reason),
    });
  }

  #ended(reason: string): void {
    const { hostIo, log, listen } = this.#options;
    this.#session = null;
    log.info({ path: this.path, reason }, 'vhost-user: the front-end is gone');
    if (this.#closed) return;
    if (listen) hostIo.setInterest(this.#handle, READABLE);
    else this.#retry.armIn(RETRY_NS);
  }

  /** Ends the session and removes the socket. The device stays, reset and without memory. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#retry.cancel();
    this.#session?.close('netemu closes');
    this.#options.hostIo.close(this.#handle);
  }
}
