/** A backend of one datagram port. */

import type { Port } from '../core/port.ts';
import type { Backend } from './backend.ts';
import type { DatagramPort, DatagramPortStats } from './datagram-port.ts';

export class DatagramBackend implements Backend {
  readonly ports: readonly Port[];
  readonly stats: DatagramPortStats;
  readonly link: DatagramPort;
  readonly #description: string;
  readonly #onClose: () => void;

  constructor(link: DatagramPort, description: string, onClose: () => void = () => {}) {
    this.link = link;
    this.ports = [link.port];
    this.stats = link.stats;
    this.#description = description;
    this.#onClose = onClose;
  }

  describe(): string {
    return this.#description;
  }

  close(): void {
    this.link.detach();
    this.#onClose();
  }
}
