/**
 * One qtest client: lines in, answers and interrupt messages out.
 *
 *     bytes ─▶ lines ─▶ one command at a time ─▶ what it started ends ─▶ answer
 *     interrupt lines that are listened to ─▶ "IRQ raise N", "IRQ lower N", at once, so before the answer of the command that caused them
 *
 * Virtual time stands still but for clock_step and clock_set, which move the clock from timer to timer. Commands run as tasks of the loop, and the answer
 * waits until the loop has nothing left to do at that time (SETTLE_TURNS turns at most): a script sees what the device did, whatever it did in steps.
 *
 * Bounded for a client that misbehaves: while answers wait to be read nothing more is read from it; a line longer than LINE_LIMIT_BYTES is thrown away and
 * answered with FAIL.
 */

import type { Channel, ChannelUser } from '../../chardev/chardev.ts';
import type { VirtualClock } from '../../core/clock.ts';
import type { Loop } from '../../core/loop.ts';
import { getLatin1, putLatin1 } from '../../wire/bytes.ts';
import { type Commander, runCommand } from './commands.ts';
import type { QtestPlatform } from './platform.ts';
import { parseNumber } from './values.ts';

/** Hexadecimal data of the longest write, and its words. */
export const LINE_LIMIT_BYTES = (64 << 20) * 2 + 256;
const SETTLE_TURNS = 64;
/** Commands in one task, and deadlines that a clock command passes in one. */
const COMMANDS_PER_TASK = 256;
const OUT_LIMIT_BYTES = 1 << 16;
const NEWLINE = 10;
const RETURN = 13;
/** Half a period of a PC's timer chip at power-on (8254 counter 0: 65,536 at 1.193182 MHz): the deadline that there always is. */
const TIMER_HALF_NS = (32_768 * 1e9) / 1_193_182;

/** Gets a copy of the conversation: one line without its end, `R` received, `S` sent, `I` a remark. */
export type Transcript = (kind: 'R' | 'S' | 'I', line: string) => void;

export interface SessionOptions {
  platform: QtestPlatform;
  loop: Loop;
  clock: VirtualClock;
  transcript: Transcript;
}

export class QtestSession implements ChannelUser, Commander {
  readonly platform: QtestPlatform;
  readonly #loop: Loop;
  readonly #clock: VirtualClock;
  readonly #transcript: Transcript;
  readonly #channel: Channel;
  readonly #lines: string[] = [];
  readonly #task = (): void => this.#work();
  #intercepted: string | null = null;
  /** The unfinished line. */
  #partial: Uint8Array = new Uint8Array(256);
  #partialBytes = 0;
  #tooLong = false;
  #posted = false;
  /** Our task runs: what it sends goes out together at its end. */
  #working = false;
  #closed = false;
  /** The command that was run and is not answered yet. */
  #answer: (() => string) | null = null;
  #turnsLeft = 0;
  /** Where a clock command goes; NaN: none is under way. */
  #clockTargetNs = Number.NaN;
  #out: Uint8Array = new Uint8Array(1024);
  #outBytes = 0;
  #paused = false;

  constructor(channel: Channel, options: SessionOptions) {
    this.#channel = channel;
    this.platform = options.platform;
    this.#loop = options.loop;
    this.#clock = options.clock;
    this.#transcript = options.transcript;
    this.platform.lines.onChange = (line, level) => {
      if (this.#intercepted !== null) this.#send(`IRQ ${level ? 'raise' : 'lower'} ${line}`);
    };
    this.#transcript('I', 'OPENED');
  }

  intercept(what: string): boolean {
    if (this.#intercepted !== null && this.#intercepted !== what) return false;
    this.#intercepted = what;
    return true;
  }

  // In.

  receive(bytes: Uint8Array, from: number, to: number): number {
    if (this.#lines.length >= COMMANDS_PER_TASK || this.#outBytes >= OUT_LIMIT_BYTES) {
      this.#paused = true;
      return 0;
    }
    let start = from;
    for (;;) {
      const at = bytes.indexOf(NEWLINE, start);
      if (at < 0 || at >= to) break;
      if (this.#partialBytes === 0 && !this.#tooLong && at - start <= LINE_LIMIT_BYTES) {
        this.#lines.push(lineText(bytes, start, at));
      } else {
        this.#append(bytes, start, at);
        this.#lineEnded();
      }
      start = at + 1;
    }
    this.#append(bytes, start, to);
    this.#post();
    return to - from;
  }

  #append(bytes: Uint8Array, from: number, to: number): void {
    const needed = this.#partialBytes + to - from;
    if (this.#tooLong || needed > LINE_LIMIT_BYTES) {
      this.#tooLong = true;
      this.#partialBytes = 0;
      return;
    }
    if (needed > this.#partial.length) {
      const grown = new Uint8Array(Math.min(LINE_LIMIT_BYTES, 2 * needed));
      grown.set(this.#partial.subarray(0, this.#partialBytes));
      this.#partial = grown;
    }
    this.#partial.set(bytes.subarray(from, to), this.#partialBytes);
    this.#partialBytes = needed;
  }

  #lineEnded(): void {
    this.#lines.push(this.#tooLong ? TOO_LONG : lineText(this.#partial, 0, this.#partialBytes));
    this.#partialBytes = 0;
    this.#tooLong = false;
    if (this.#partial.length > CHUNK_BYTES) this.#partial = new Uint8Array(256);
  }

  closed(): void {
    this.end();
  }

  /** Forgets the client; the machine stays as it is. */
  end(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#lines.length = 0;
    this.platform.lines.onChange = null;
    this.#transcript('I', 'CLOSED');
  }

  // Work.

  #post(): void {
    if (this.#posted || this.#closed) return;
    if (this.#lines.length === 0 && this.#answer === null && Number.isNaN(this.#clockTargetNs)) return;
    this.#posted = true;
    this.#loop.post(this.#task);
  }

  /** The loop has something to do before time goes on. Our own task is not posted while this is asked. */
  get #busy(): boolean {
    return this.#loop.nextNs <= this.#clock.nowNs();
  }

  #work(): void {
    this.#posted = false;
    this.#working = true;
    for (let left = COMMANDS_PER_TASK; left > 0 && !this.#closed; left--) {
      if (!this.#advance()) break;
      if (this.#answer !== null) {
        if (this.#busy && this.#turnsLeft-- > 0) break;
        const answer = this.#answer;
        this.#answer = null;
        this.#send(answer());
      }
      const line = this.#outBytes < OUT_LIMIT_BYTES ? this.#lines.shift() : undefined;
      if (line === undefined) break;
      this.#run(line);
    }
    this.#working = false;
    this.#flush();
    if (this.#outBytes < OUT_LIMIT_BYTES) {
      this.#post();
      this.#resume();
    }
  }

  /** Moves the clock to the next timer on its way; false: what is due there comes first. */
  #advance(): boolean {
    if (Number.isNaN(this.#clockTargetNs)) return true;
    if (this.#busy && this.#turnsLeft-- > 0) return false;
    const nextNs = this.#loop.nextNs;
    if (nextNs <= this.#clockTargetNs) {
      this.#clock.setNs(nextNs);
      this.#turnsLeft = SETTLE_TURNS;
      return false;
    }
    this.#clock.setNs(this.#clockTargetNs);
    this.#clockTargetNs = Number.NaN;
    return true;
  }

  #run(line: string): void {
    this.#transcript('R', line === TOO_LONG ? '(a line that is too long)' : line);
    this.#turnsLeft = SETTLE_TURNS;
    if (line === TOO_LONG) {
      this.#answer = () => `FAIL a line is at most ${LINE_LIMIT_BYTES} bytes`;
      return;
    }
    const words = line.split(' ');
    if (words[0] === 'clock_step' || words[0] === 'clock_set') {
      this.#clockCommand(words[0], words[1]);
      return;
    }
    const answer = runCommand(this, words);
    this.#answer = () => answer;
  }

  /** clock_step: by so many ns, or to the next timer; clock_set: to this time. Both answer with the time it is. */
  #clockCommand(name: 'clock_step' | 'clock_set', word: string | undefined): void {
    const nowNs = this.#clock.nowNs();
    const given = word === undefined || word === '' ? null : parseNumber(word);
    if (given === null && (name === 'clock_set' || (word !== undefined && word !== ''))) {
      const answer = `FAIL ${name}: ${word === undefined ? 'missing time' : `bad time '${word}'`}`;
      this.#answer = () => answer;
      return;
    }
    const value = given === null ? this.#nextDeadlineNs() : Number(given);
    const targetNs = name === 'clock_set' || given === null ? value : nowNs + value;
    if (!(targetNs > nowNs) || targetNs >= TIME_LIMIT_NS) {
      const answer = name === 'clock_set' ? `FAIL ${nowNs}` : 'FAIL could not advance time';
      this.#answer = () => answer;
      return;
    }
    this.#clockTargetNs = targetNs;
    this.#answer = () => `OK ${this.#clock.nowNs()}`;
  }

  #nextDeadlineNs(): number {
    const nowNs = this.#clock.nowNs();
    const tickNs = Math.floor(Math.ceil((nowNs + 1) / TIMER_HALF_NS) * TIMER_HALF_NS);
    return Math.min(tickNs, Math.max(this.#loop.nextNs, nowNs));
  }

  // Out.

  #send(line: string): void {
    if (this.#closed) return;
    this.#transcript('S', line);
    const needed = this.#outBytes + line.length + 1;
    if (needed > this.#out.length) {
      const grown = new Uint8Array(2 * needed);
      grown.set(this.#out.subarray(0, this.#outBytes));
      this.#out = grown;
    }
    putLatin1(this.#out, this.#outBytes, `${line}\n`);
    this.#outBytes = needed;
    if (!this.#working || needed >= OUT_LIMIT_BYTES) this.#flush();
  }

  #flush(): void {
    if (this.#outBytes === 0 || this.#closed) return;
    const taken = this.#channel.write(this.#out, 0, this.#outBytes);
    this.#out.copyWithin(0, taken, this.#outBytes);
    this.#outBytes -= taken;
    if (this.#outBytes === 0 && this.#out.length > CHUNK_BYTES) this.#out = new Uint8Array(1024);
  }

  writable(): void {
    this.#flush();
    if (this.#outBytes >= OUT_LIMIT_BYTES) return;
    this.#post();
    this.#resume();
  }

  #resume(): void {
    if (!this.#paused || this.#closed || this.#lines.length >= COMMANDS_PER_TASK) return;
    this.#paused = false;
    this.#channel.resume();
  }
}

const CHUNK_BYTES = 1 << 16;
/** Exact nanoseconds. */
const TIME_LIMIT_NS = 2 ** 53;
/** Stands for a line that was thrown away; no line holds a newline. */
const TOO_LONG = '\n';

/** A line without the carriage return that may end it. */
function lineText(bytes: Uint8Array, from: number, to: number): string {
  const end = to > from && bytes[to - 1] === RETURN ? to - 1 : to;
  return getLatin1(bytes, from, end - from);
}
