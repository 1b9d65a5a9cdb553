/**
 * A line of text as a person edits it: keys in, screen output out. It knows the keys that shells have (arrows, Home, End, Delete, Ctrl-A
 * E B F D H K U W L P N, Tab), a history, and completion; it owns no terminal. Without echo, as where a line comes whole from a pipe or a
 * socket, the same keys work and nothing is drawn.
 *
 * A line is bounded: what is typed beyond LINE_MAX characters is ignored.
 */

export interface LineEditorOptions {
  readonly prompt: string;
  /** Draw what is typed, on a terminal that makes a new line of a line feed. */
  readonly echo: boolean;
  write(text: string): void;
  /** A line was entered. */
  entered(line: string): void;
  /** Ctrl-D on an empty line. */
  ended(): void;
  /** What the last word of the text before the cursor may become. */
  complete(text: string): readonly string[];
}

const LINE_MAX = 4096;
const HISTORY_MAX = 64;
const ESCAPE_MAX = 8;

export class LineEditor {
  readonly #options: LineEditorOptions;
  readonly #history: string[] = [];
  /** The line as characters, so that the cursor never stands inside one. */
  #line: string[] = [];
  #cursor = 0;
  /** Where in the history the line came from; its length: nowhere. */
  #place = 0;
  #draft = '';
  #escape = '';
  #afterReturn = false;

  constructor(options: LineEditorOptions) {
    this.#options = options;
  }

  get #text(): string {
    return this.#line.join('');
  }

  /** Shows the prompt with what has been typed so far. */
  prompt(): void {
    const { prompt, echo, write } = this.#options;
    write(echo ? `${prompt}${this.#text}${back(this.#line.length - this.#cursor)}` : prompt);
  }

  /** Takes keys one after the other, and stops behind a line's end; returns how many characters it took. */
  type(text: string): number {
    let at = 0;
    for (const key of text) {
      at += key.length;
      if (this.#key(key)) return at;
    }
    return at;
  }

  /** True when the key ended the line. */
  #key(key: string): boolean {
    if (this.#escape !== '') {
      this.#escaped(key);
      return false;
    }
    const newlineOfReturn = key === '\n' && this.#afterReturn;
    this.#afterReturn = key === '\r';
    if (newlineOfReturn) return false;
    switch (key) {
      case '\r':
      case '\n':
        this.#enter();
        return true;
      case '\x1b':
        this.#escape = key;
        return false;
      case '\t':
        this.#complete();
        return false;
      case '\x01':
        this.#moveTo(0);
        return false;
      case '\x05':
        this.#moveTo(this.#line.length);
        return false;
      case '\x02':
        this.#moveTo(this.#cursor - 1);
        return false;
      case '\x06':
        this.#moveTo(this.#cursor + 1);
        return false;
      case '\x04':
        if (this.#line.length === 0) this.#options.ended();
        else this.#remove(this.#cursor, this.#cursor + 1);
        return false;
      case '\x08':
      case '\x7f':
        this.#remove(this.#cursor - 1, this.#cursor);
        return false;
      case '\x0b':
        this.#remove(this.#cursor, this.#line.length);
        return false;
      case '\x15':
        this.#remove(0, this.#cursor);
        return false;
      case '\x17':
        this.#remove(this.#wordStart(), this.#cursor);
        return false;
      case '\x0c':
        if (this.#options.echo) {
          this.#options.write('\x1b[H\x1b[2J');
          this.prompt();
        }
        return false;
      case '\x10':
        this.#recall(this.#place - 1);
        return false;
      case '\x0e':
        this.#recall(this.#place + 1);
        return false;
      default:
        if (key >= ' ') this.#insert([key]);
        return false;
    }
  }

  #escaped(key: string): void {
    this.#escape += key;
    const sequence = this.#escape;
    if (sequence.length > ESCAPE_MAX) {
      this.#escape = '';
      return;
    }
    if (sequence === '\x1b[' || sequence === '\x1bO' || /^\[[0-9;]+$/.test(sequence.slice(1))) return;
    this.#escape = '';
    switch (sequence.slice(2)) {
      case 'A':
        this.#recall(this.#place - 1);
        break;
      case 'B':
        this.#recall(this.#place + 1);
        break;
      case 'C':
        this.#moveTo(this.#cursor + 1);
        break;
      case 'D':
        this.#moveTo(this.#cursor - 1);
        break;
      case 'H':
      case '1~':
        this.#moveTo(0);
        break;
      case 'F':
      case '4~':
        this.#moveTo(this.#line.length);
        break;
      case '3~':
        this.#remove(this.#cursor, this.#cursor + 1);
    }
  }

  #enter(): void {
    const text = this.#text;
    if (this.#options.echo) this.#options.write('\n');
    this.#line = [];
    this.#cursor = 0;
    if (text.trim() !== '' && this.#history.at(-1) !== text) this.#history.push(text);
    if (this.#history.length > HISTORY_MAX) this.#history.shift();
    this.#place = this.#history.length;
    this.#options.entered(text);
  }

  #insert(characters: readonly string[]): void {
    if (this.#line.length + characters.length > LINE_MAX) return;
    this.#line.splice(this.#cursor, 0, ...characters);
    this.#cursor += characters.length;
    if (!this.#options.echo) return;
    const tail = this.#line.slice(this.#cursor);
    this.#options.write(characters.join('') + tail.join('') + back(tail.length));
  }

  #remove(from: number, to: number): void {
    const start = Math.max(0, from);
    const end = Math.min(to, this.#line.length);
    if (start >= end) return;
    this.#moveTo(start);
    this.#line.splice(start, end - start);
    if (!this.#options.echo) return;
    const tail = this.#line.slice(start);
    this.#options.write(`${tail.join('')}\x1b[K${back(tail.length)}`);
  }

  #moveTo(place: number): void {
    const to = Math.max(0, Math.min(place, this.#line.length));
    if (this.#options.echo) {
      if (to < this.#cursor) this.#options.write(back(this.#cursor - to));
      if (to > this.#cursor) this.#options.write(`\x1b[${to - this.#cursor}C`);
    }
    this.#cursor = to;
  }

  #wordStart(): number {
    let at = this.#cursor;
    while (at > 0 && this.#line[at - 1] === ' ') at--;
    while (at > 0 && this.#line[at - 1] !== ' ') at--;
    return at;
  }

  #recall(place: number): void {
    if (place < 0 || place > this.#history.length) return;
    if (this.#place === this.#history.length) this.#draft = this.#text;
    this.#place = place;
    const text = this.#history[place] ?? this.#draft;
    this.#moveTo(0);
    this.#remove(0, this.#line.length);
    this.#insert([...text]);
  }

  #complete(): void {
    const before = this.#line.slice(0, this.#cursor).join('');
    const last = /\S*$/.exec(before)![0];
    const found = this.#options.complete(before);
    if (found.length === 0) return;
    const common = commonStart(found);
    if (common.length > last.length) this.#insert([...common.slice(last.length)]);
    if (found.length === 1) {
      this.#insert([' ']);
    } else if (common.length === last.length && this.#options.echo) {
      this.#options.write(`\n${found.join('  ')}\n`);
      this.prompt();
    }
  }
}

const back = (count: number): string => (count > 0 ? `\x1b[${count}D` : '');

function commonStart(words: readonly string[]): string {
  let common = words[0]!;
  for (const word of words) while (!word.startsWith(common)) common = common.slice(0, -1);
  return common;
}
