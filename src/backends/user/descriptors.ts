/**
 * When the host has no descriptor left for a new flow, the flow without a connection that was silent longest (UDP, a ping) gives up its socket: nobody
 * notices, or its next datagram opens another. TCP connections keep theirs; where nothing else is left, the new flow is refused.
 */

import { HostIoError } from '../../core/errors.ts';
import type { Handle } from '../../host-io/host-io.ts';

/** Holds flows that may be ended. */
export interface FlowHolder {
  /** When the flow that was silent longest was last used; Infinity: there is none. */
  idleSinceNs(): number;
  /** Ends that flow, and counts it. */
  evict(): void;
}

const FULL = ['EMFILE', 'ENFILE', 'ENOBUFS'];

export class Descriptors {
  readonly #holders: FlowHolder[] = [];

  add(holder: FlowHolder): void {
    this.#holders.push(holder);
  }

  /** Ends the flow that was silent longest. False: there is none. */
  free(): boolean {
    let best: FlowHolder | null = null;
    let bestNs = Number.POSITIVE_INFINITY;
    for (const holder of this.#holders) {
      const sinceNs = holder.idleSinceNs();
      if (sinceNs < bestNs) {
        best = holder;
        bestNs = sinceNs;
      }
    }
    best?.evict();
    return best !== null;
  }

  /** Does `open`, and once more if the host had no descriptor left and some flow could give one up. Throws what `open` throws. */
  open(open: () => Handle): Handle {
    try {
      return open();
    } catch (error) {
      if (!(error instanceof HostIoError) || !FULL.includes(error.code) || !this.free()) throw error;
      return open();
    }
  }
}
