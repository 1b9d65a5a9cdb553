/** One UDP flow of the guest with its host socket, and the order in which flows were used, which decides who goes when there are too many. */

import type { Handle } from '../../host-io/host-io.ts';
import { FrameList } from '../../tcp/frames.ts';
import { linkHeaderSum, linkPseudoSum } from '../../tcp/link-header.ts';
import type { WaitingQueries } from './resolvers.ts';

export class UdpFlow {
  readonly link: Uint8Array;
  readonly linkSum: number;
  readonly pseudoSum: number;
  /** Far port in the upper half, the guest's in the lower. */
  readonly ports: number;
  readonly hash: number;
  handle: Handle = 0;
  next: UdpFlow | null = null;
  /** The order of use. */
  older: UdpFlow | null = null;
  newer: UdpFlow | null = null;
  lastNs = 0;
  /** The resolver it leads to; '': it is no query. */
  resolver: string;
  /** Runs of datagrams are received as one frame, since the guest's side takes them so. */
  gro = false;
  /** Kept where another resolver could be asked. */
  waiting: WaitingQueries | null = null;
  /** When the next resolver is asked. */
  answerByNs = 0;
  readonly pending = new FrameList(2);
  touched = false;
  fromGuestBytes = 0;
  toGuestBytes = 0;
  /** Leaves this machine: hop limits go with it. */
  routed = false;
  /** How far its datagrams go; 0: as the host has it. */
  hops = 0;

  constructor(link: Uint8Array, ports: number, hash: number, resolver: string) {
    this.link = link;
    this.linkSum = linkHeaderSum(link);
    this.pseudoSum = linkPseudoSum(link);
    this.ports = ports;
    this.hash = hash;
    this.resolver = resolver;
  }

  get dns(): boolean {
    return this.resolver !== '';
  }
}

/** Flows in the order of use, oldest first. */
export class UseOrder {
  oldest: UdpFlow | null = null;
  #newest: UdpFlow | null = null;

  add(flow: UdpFlow): void {
    flow.older = this.#newest;
    flow.newer = null;
    if (this.#newest === null) this.oldest = flow;
    else this.#newest.newer = flow;
    this.#newest = flow;
  }

  remove(flow: UdpFlow): void {
    if (flow.older === null) this.oldest = flow.newer;
    else flow.older.newer = flow.newer;
    if (flow.newer === null) this.#newest = flow.older;
    else flow.newer.older = flow.older;
  }

  touch(flow: UdpFlow): void {
    if (flow === this.#newest) return;
    this.remove(flow);
    this.add(flow);
  }
}
