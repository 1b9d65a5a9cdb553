/**
 * Who is where on the guest's side: IP address to MAC, learned from ARP, neighbour discovery, DHCP and packets themselves; bounded. Also
 * keeps forwards waiting for a guest that has not spoken yet: they ask (ARP request, neighbour solicitation) up to TRIES times, a second apart.
 */

import type { Loop, Timer } from '../../core/loop.ts';

const ENTRIES_MAX = 1024;
const WAITING_MAX = 256;
const TRIES = 3;
const TRY_NS = 1e9;

type Found = (mac: Uint8Array | null) => void;

interface Question {
  tries: number;
  readonly waiting: Found[];
  readonly ask: () => void;
}

export class Neighbours {
  readonly #known = new Map<string, Uint8Array>();
  readonly #questions = new Map<string, Question>();
  readonly #timer: Timer;

  constructor(loop: Loop) {
    this.#timer = loop.timer(() => this.#tick());
  }

  /** `address` was seen at the MAC at `macOffset` of `bytes`. */
  learn(address: string, bytes: Uint8Array, macOffset: number): void {
    let mac = this.#known.get(address);
    if (mac === undefined) {
      if (this.#known.size >= ENTRIES_MAX) this.#known.delete(this.#known.keys().next().value!);
      mac = new Uint8Array(6);
      this.#known.set(address, mac);
    }
    for (let i = 0; i < 6; i++) mac[i] = bytes[macOffset + i];
    const question = this.#questions.get(address);
    if (question === undefined) return;
    this.#questions.delete(address);
    for (const found of question.waiting) found(mac);
  }

  find(address: string): Uint8Array | null {
    return this.#known.get(address) ?? null;
  }

  /** Calls `found` with the MAC of `address`, now or once `ask`, repeated, was answered; with null when it was not. */
  resolve(address: string, ask: () => void, found: Found): void {
    const mac = this.#known.get(address);
    if (mac !== undefined) {
      found(mac);
      return;
    }
    let question = this.#questions.get(address);
    if (question === undefined) {
      question = { tries: 1, waiting: [], ask };
      this.#questions.set(address, question);
      if (!this.#timer.armed) this.#timer.armIn(TRY_NS);
      ask();
    }
    if (question.waiting.length >= WAITING_MAX) found(null);
    else question.waiting.push(found);
  }

  #tick(): void {
    for (const [address, question] of [...this.#questions]) {
      if (++question.tries <= TRIES) {
        question.ask();
        continue;
      }
      this.#questions.delete(address);
      for (const found of question.waiting) found(null);
    }
    if (this.#questions.size > 0) this.#timer.armIn(TRY_NS);
  }

  /** For listings. */
  get entries(): ReadonlyMap<string, Uint8Array> {
    return this.#known;
  }

  close(): void {
    this.#timer.cancel();
    const questions = [...this.#questions.values()];
    this.#questions.clear();
    for (const question of questions) for (const found of question.waiting) found(null);
  }
}
