/**
 * What was sent again and is not acknowledged yet, in the order of sending: each piece with SND.NXT of that moment. A retransmission is lost too when
 * something sent after it has arrived (RFC 8985's thought, told by order instead of clocks): new data from above that SND.NXT, or a later
 * retransmission. The oldest hole is the one to ask for; the others' turn comes when it is filled. At most RECORDS_MAX pieces are
 * remembered: one that is forgotten is left to the retransmission timer.
 */

import type { Scoreboard } from './scoreboard.ts';

const RECORDS_MAX = 256;
/** Words of a record: first sequence number, the one behind the last, SND.NXT then, the time (int32 us). */
const RECORD = 4;

export class Resent {
  #records = new Int32Array(RECORD * 8);
  #count = 0;

  clear(): void {
    this.#count = 0;
  }

  /** [from, to) goes out again. */
  add(from: number, to: number, next: number, nowUs: number): void {
    let r = this.#records;
    if (RECORD * this.#count === r.length && this.#count < RECORDS_MAX) {
      this.#records = new Int32Array(2 * r.length);
      this.#records.set(r);
      r = this.#records;
    }
    if (this.#count === RECORDS_MAX) {
      r.copyWithin(0, RECORD);
      this.#count--;
    }
    const at = RECORD * this.#count++;
    r[at] = from;
    r[at + 1] = to;
    r[at + 2] = next;
    r[at + 3] = nowUs | 0;
  }

  /** Everything before `una` is acknowledged. */
  acknowledged(una: number): void {
    const r = this.#records;
    let kept = 0;
    for (let i = 0; i < this.#count; i++) {
      if (((r[RECORD * i + 1]! - una) | 0) <= 0) continue;
      if (kept < i) r.copyWithin(RECORD * kept, RECORD * i, RECORD * i + RECORD);
      kept++;
    }
    this.#count = kept;
  }

  /**
   * How many bytes from `una` on were in the latest retransmission of it, if that was overtaken: by more than `beyondBytes` of data that was new
   * then, or by a later retransmission, which `board` has whole. 0: it was not, or it was sent after `sentBeforeUs`.
   */
  overtaken(una: number, next: number, board: Scoreboard, beyondBytes: number, sentBeforeUs: number): number {
    const r = this.#records;
    for (let i = this.#count - 1; i >= 0; i--) {
      const at = RECORD * i;
      const from = r[at]!;
      const to = r[at + 1]!;
      if (((una - from) | 0) >= 0 && ((to - una) | 0) > 0) {
        if (((r[at + 3]! - (sentBeforeUs | 0)) | 0) > 0) return 0;
        const lost = board.bytesWithin(r[at + 2]!, next) > beyondBytes || this.#laterArrived(i, board);
        return lost ? (to - una) | 0 : 0;
      }
    }
    return 0;
  }

  #laterArrived(index: number, board: Scoreboard): boolean {
    const r = this.#records;
    for (let i = index + 1; i < this.#count; i++) {
      const from = r[RECORD * i]!;
      const to = r[RECORD * i + 1]!;
      if (board.holds(from, to)) return true;
    }
    return false;
  }
}
