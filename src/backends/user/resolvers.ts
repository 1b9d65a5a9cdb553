/**
 * Which of several name servers to ask: the first that is not known to be silent. One that refused, could not be reached or said nothing in
 * time is passed over for REST_NS; when all rest, the first is asked again. The list is the user's, else the host's, as it is now.
 *
 * Queries that wait for an answer over UDP are kept (WaitingQueries), so that the next server can be asked without the guest asking again.
 */

import { u16be } from '../../wire/bytes.ts';

const REST_NS = 30e9;
/** Queries of one flow that are kept, and the longest: what is beyond is the guest's to repeat. */
const QUERIES_MAX = 4;
export const QUERY_MAX_BYTES = 1232;

export class Resolvers {
  readonly #addresses: () => readonly string[];
  readonly #nowNs: () => number;
  readonly #restUntilNs = new Map<string, number>();

  constructor(addresses: () => readonly string[], nowNs: () => number) {
    this.#addresses = addresses;
    this.#nowNs = nowNs;
  }

  get several(): boolean {
    return this.#addresses().length > 1;
  }

  /** The server to ask, not one of `tried`; undefined: there is none (left). */
  next(tried: readonly string[] = []): string | undefined {
    const nowNs = this.#nowNs();
    const left = this.#addresses().filter((address) => !tried.includes(address));
    return left.find((address) => (this.#restUntilNs.get(address) ?? 0) <= nowNs) ?? left[0];
  }

  failed(address: string): void {
    const list = this.#addresses();
    if (list.length < 2) return;
    // Forget servers that are no longer configured.
    for (const known of this.#restUntilNs.keys()) if (!list.includes(known)) this.#restUntilNs.delete(known);
    this.#restUntilNs.set(address, this.#nowNs() + REST_NS);
  }

  answered(address: string): void {
    if (this.#restUntilNs.size > 0) this.#restUntilNs.delete(address);
  }
}

/** The unanswered queries of one UDP flow, and the servers that were asked. */
export class WaitingQueries {
  readonly queries: Uint8Array[] = [];
  readonly tried: string[] = [];

  /** A query of QUERY_MAX_BYTES at most goes out to `server`. One with a known number is a repetition. */
  asked(query: Uint8Array, server: string): void {
    if (query.length < 2) return;
    this.answered(u16be(query, 0));
    if (this.queries.length === 0) this.tried.length = 0;
    if (this.queries.length >= QUERIES_MAX) this.queries.shift();
    this.queries.push(query);
    if (!this.tried.includes(server)) this.tried.push(server);
  }

  answered(id: number): void {
    const index = this.queries.findIndex((query) => u16be(query, 0) === id);
    if (index >= 0) this.queries.splice(index, 1);
  }
}
