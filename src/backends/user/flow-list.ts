/**
 * TCP flows in the order they came, linked through themselves. A Set would do, but it gives each flow a hash and grows and shrinks as short
 * connections come and go: for a connection with one request that was a fiftieth of all work.
 */

/** What links its members; a member is in one list at a time. */
export interface Linked<T extends Linked<T>> {
  list: FlowList<T> | null;
  older: T | null;
  newer: T | null;
}

export class FlowList<T extends Linked<T>> {
  #oldest: T | null = null;
  #newest: T | null = null;
  #size = 0;

  get size(): number {
    return this.#size;
  }

  get oldest(): T | null {
    return this.#oldest;
  }

  /** Behind all others; out of the list it was in. */
  add(flow: T): void {
    flow.list?.delete(flow);
    flow.list = this;
    flow.older = this.#newest;
    if (this.#newest === null) this.#oldest = flow;
    else this.#newest.newer = flow;
    this.#newest = flow;
    this.#size++;
  }

  /** Harmless when it is not here. */
  delete(flow: T): void {
    if (flow.list !== this) return;
    const { older, newer } = flow;
    if (older === null) this.#oldest = newer;
    else older.newer = newer;
    if (newer === null) this.#newest = older;
    else newer.older = older;
    flow.list = flow.older = flow.newer = null;
    this.#size--;
  }

  /** Flows may end meanwhile, but only the one at hand. */
  *[Symbol.iterator](): IterableIterator<T> {
    for (let flow = this.#oldest; flow !== null; ) {
      const next: T | null = flow.newer;
      yield flow;
      flow = next;
    }
  }
}
