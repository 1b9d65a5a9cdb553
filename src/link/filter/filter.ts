/**
 * Filters stand on a netdev's link and see what passes: `rx` frames go to the netdev, `tx` frames come from it (the NetFilterDirection of
 * the QAPI). A filter brings one stage for each direction it looks at. A chain holds a netdev's filters in order, head first: tx frames meet
 * them from head to tail, rx frames from tail to head, so the head is always nearest to the netdev.
 */

import type { ObjectConfig } from '../../config/objects/index.ts';
import type { Port, Sink, Stage } from '../../core/port.ts';

export type FilterDirection = 'all' | 'rx' | 'tx';

/** What `--object` made, as far as the network that holds it cares. */
export interface RunningObject {
  readonly id: string;
  readonly type: string;
  readonly stats: object;
  /** Options that `change` takes while frames pass, as users spell them; absent: none. */
  readonly changeable?: readonly string[];
  /** Goes on with other options; of the same type, and different only in what is changeable. */
  change?(config: ObjectConfig): void;
  /** Lets go of whatever it holds. A filter's stages are out of the chain by then. */
  close(): void;
}

export interface Filter extends RunningObject {
  /** For frames sent to the netdev; null: they pass by. */
  readonly rx: Stage | null;
  /** For frames that the netdev sends; null: they pass by. */
  readonly tx: Stage | null;
  /** `status=on`: an inactive filter's frames pass by. */
  active: boolean;
  /** Hands on what it holds, as far as it is taken, and forgets what it has seen: `status=off`. Absent: there is nothing. */
  flush?(): void;
}

/** The plain half of a stage: keeps neighbours, passes readiness back. */
export abstract class PassingStage implements Stage {
  next: Sink = CLOSED;
  previous: { peerReady(): void } = CLOSED;

  /** Told first when the far end takes frames again. */
  onReady: (() => void) | null = null;

  abstract receive(frames: Int32Array, from: number, to: number): number;

  peerReady(): void {
    this.onReady?.();
    this.previous.peerReady();
  }
}

const CLOSED = { receive: (): number => 0, peerReady(): void {} };

export type FilterPlace = 'head' | 'tail' | { id: string; insert: 'before' | 'behind' };

export class FilterChain {
  readonly filters: Filter[] = [];
  readonly #netdev: Port;
  #peer: Port | null = null;

  constructor(netdev: Port) {
    this.#netdev = netdev;
  }

  /** Puts a filter in its place; false when `place` names a filter that is not here. */
  insert(filter: Filter, place: FilterPlace): boolean {
    let at = this.filters.length;
    if (place === 'head') at = 0;
    else if (place !== 'tail') {
      at = this.filters.findIndex((other) => other.id === place.id);
      if (at < 0) return false;
      if (place.insert === 'behind') at++;
    }
    this.filters.splice(at, 0, filter);
    this.route();
    return true;
  }

  /** Takes a filter out; its owner closes it. */
  remove(filter: Filter): void {
    const at = this.filters.indexOf(filter);
    if (at < 0) return;
    this.filters.splice(at, 1);
    this.route();
  }

  /** Lays the stages anew: after a change here, of a filter's `active`, or of the netdev's peer. */
  route(): void {
    const active = this.filters.filter((filter) => filter.active);
    const peer = this.#netdev.peer;
    if (this.#peer !== peer) this.#peer?.setStages([]);
    this.#peer = peer;
    this.#netdev.setStages(stagesOf(active, 'tx'));
    peer?.setStages(stagesOf([...active].reverse(), 'rx'));
  }
}

function stagesOf(filters: readonly Filter[], direction: 'rx' | 'tx'): Stage[] {
  return filters.map((filter) => filter[direction]).filter((stage): stage is Stage => stage !== null);
}
