/**
 * A NIC served over vfio-user (QEMU's docs/interop/vfio-user): a VMM in another process connects to a unix socket and gives its guest the NIC as a PCI device.
 * One server is one socket path and one device. One client at a time: while one is there, the next waits in the listening socket's
 * backlog, and is served when the first has left (so a VM may be restarted at once).
 *
 *     client ── commands ──▶ Wire ──▶ Session ──▶ PciFunction (registers, config, reset)
 *     guest RAM ◀── views of mapped files ── DmaMap ◀── GuestMemory ◀── PciFunction (DMA)
 *     eventfds ◀── Interrupts ◀── VfioUserHost ◀── PciFunction (pin, messages)
 *
 * A register read stops a virtual CPU until it is answered: commands are handled within the readiness callback, and one call receives, and one sends, as many as there are.
 * A peer never causes an exception: see Session.
 */

import type { Logger } from '../../core/log.ts';
import type { Loop } from '../../core/loop.ts';
import { type Handle, type HostIo, READABLE } from '../../host-io/host-io.ts';
import type { PciFunction } from '../../pci/pci-function.ts';
import { DmaStats } from './dma.ts';
import type { VfioUserHost } from './host.ts';
import { InterruptStats } from './interrupts.ts';
import { Session } from './session.ts';
import { WireStats } from './wire.ts';

export interface VfioUserServerOptions {
  /** Where the socket is made, with mode 0600. */
  path: string;
  /** The NIC, which was made with `host` as its DeviceHost. */
  function: PciFunction;
  host: VfioUserHost;
  /** Needs descriptors and mappings: the native one. */
  hostIo: HostIo;
  loop: Loop;
  log: Logger;
}

export class VfioUserServer {
  readonly path: string;
  readonly wireStats = new WireStats();
  readonly dmaStats = new DmaStats();
  readonly interruptStats = new InterruptStats();
  /** Clients that came so far. */
  clients = 0;

  readonly #options: VfioUserServerOptions;
  readonly #listener: Handle;
  #session: Session | null = null;
  #closed = false;

  /** Listens at once. Throws HostIoError when the path cannot be had, UnsupportedError when the host I/O is not the native one. */
  constructor(options: VfioUserServerOptions) {
    this.#options = options;
    this.path = options.path;
    // A host I/O without descriptors says so here, and not to the first client.
    options.hostIo.close(options.hostIo.eventFd());
    this.#listener = options.hostIo.unixListen(options.path);
    options.hostIo.watch(this.#listener, READABLE, () => this.#accept());
  }

  get connected(): boolean {
    return this.#session !== null;
  }

  #accept(): void {
    if (this.#session !== null) return;
    const { hostIo, loop, log, host } = this.#options;
    const handle = hostIo.accept(this.#listener);
    if (handle <= 0) return;
    hostIo.setInterest(this.#listener, 0);
    this.clients++;
    log.info({ path: this.path }, 'vfio-user: a client is here');
    this.#session = new Session(handle, {
      hostIo,
      loop,
      log,
      host,
      device: this.#options.function,
      wireStats: this.wireStats,
      dmaStats: this.dmaStats,
      interruptStats: this.interruptStats,
      ended: (reason) => this.#ended(reason),
    });
  }

  #ended(reason: string): void {
    this.#session = null;
    this.#options.log.info({ path: this.path, reason }, 'vfio-user: the client is gone');
    if (!this.#closed) this.#options.hostIo.setInterest(this.#listener, READABLE);
  }

  /** Ends the session and removes the socket. The device stays, reset and without memory. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#session?.close('the server closes');
    this.#options.hostIo.close(this.#listener);
  }
}
