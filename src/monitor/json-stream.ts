/**
 * JSON texts out of a byte stream, one after the other, without looking for line ends: a text ends where its value does. Bytes go in as they
 * come; a syntax error is found at the byte that makes it, so a client's slip is answered at once and never swallows its next commands: what
 * follows on the same line is skipped, and reading goes on at the next one.
 *
 *     push ─▶ token (string, number or word, kept while it lasts) ─▶ value ─▶ into the container on top of the stack ─▶ DONE at the bottom
 *
 * Bounded whatever comes in: a text may have TEXT_MAX bytes and DEPTH_MAX levels; beyond that nothing is kept. As QEMU's reader, it also
 * takes strings in single quotes, and says where an error is (line and column since the stream began).
 */

import type { JsonValue } from '../config/json.ts';

const TEXT_MAX_BYTES = 1 << 20;
const DEPTH_MAX = 64;
const TOKEN_SHOWN_CHARACTERS = 40;

const NEWLINE = 10;
const QUOTE = 34;
const APOSTROPHE = 39;
const BACKSLASH = 92;
const UNDERSCORE = 95;

/** What the next token may be. */
const EXPECT_VALUE = 0;
const EXPECT_VALUE_OR_END = 1;
const EXPECT_KEY_OR_END = 2;
const EXPECT_KEY = 3;
const EXPECT_COLON = 4;
const EXPECT_SEPARATOR = 5;

interface Container {
  /** An object, or null: an array. */
  readonly object: { [key: string]: JsonValue } | null;
  readonly array: JsonValue[];
  key: string;
}

export type JsonOutcome = 'more' | 'value' | 'error';

export class JsonStream {
  /** The value that ended last. */
  value: JsonValue = null;
  /** The sentence for the error that was found last. */
  error = '';
  /** Bytes before this position of the last `push` are used up. */
  position = 0;

  readonly #stack: Container[] = [];
  readonly #decoder = new TextDecoder('utf-8', { fatal: true });
  readonly #singleByte = new Uint8Array(1);
  #expect = EXPECT_VALUE;
  #token = new Uint8Array(256);
  #tokenLength = 0;
  /** 0: between tokens; QUOTE or APOSTROPHE: in a string; 1: in a word or number. */
  #mode = 0;
  #escaped = false;
  #textBytes = 0;
  #skipping = false;
  #line = 1;
  #column = 0;
  #tokenLine = 1;
  #tokenColumn = 0;

  /** Reads bytes[from..to) up to the end of a value, an error, or the end; goes on from `position` the next time. */
  push(bytes: Uint8Array, from: number, to: number): JsonOutcome {
    for (let at = from; at < to; at++) {
      const byte = bytes[at]!;
      if (this.#skipping) {
        this.#move(byte);
        if (byte === NEWLINE) this.#skipping = false;
        continue;
      }
      if (this.#mode === 1 && !isWordByte(byte)) {
        // The byte behind a word ends it and belongs to what follows.
        this.#mode = 0;
        const outcome = this.#atom();
        if (outcome !== 'more') {
          this.position = at;
          return outcome;
        }
      }
      this.#move(byte);
      const outcome = this.#byte(byte);
      if (outcome === 'more') continue;
      // An error at the end of a line has nothing behind it to skip.
      if (outcome === 'error' && byte === NEWLINE) this.#skipping = false;
      this.position = at + 1;
      return outcome;
    }
    this.position = to;
    return 'more';
  }

  #move(byte: number): void {
    if (byte === NEWLINE) {
      this.#line++;
      this.#column = 0;
    } else {
      this.#column++;
    }
  }

  #byte(byte: number): JsonOutcome {
    if (this.#mode === 0) {
      if (byte === 32 || byte === 9 || byte === 13 || byte === NEWLINE) return 'more';
      this.#tokenLine = this.#line;
      this.#tokenColumn = this.#column;
    }
    if (++this.#textBytes > TEXT_MAX_BYTES) return this.#fail('JSON token size limit exceeded', false);
    if (this.#mode > 1) return this.#inString(byte);
    if (this.#mode === 1) {
      this.#keep(byte);
      return 'more';
    }
    switch (byte) {
      case QUOTE:
      case APOSTROPHE:
        this.#mode = byte;
        this.#tokenLength = 0;
        return 'more';
      case 0x7b:
        return this.#open({
          object: Object.create(null) as { [key: string]: JsonValue },
          array: [],
          key: '',
        });
      case 0x5b:
        return this.#open({ object: null, array: [], key: '' });
      case 0x7d:
        return this.#close(true);
      case 0x5d:
        return this.#close(false);
      case 0x3a:
        if (this.#expect !== EXPECT_COLON) return this.#unexpected();
        this.#expect = EXPECT_VALUE;
        return 'more';
      case 0x2c:
        if (this.#expect !== EXPECT_SEPARATOR) return this.#unexpected();
        this.#expect = this.#stack[this.#stack.length - 1]!.object === null ? EXPECT_VALUE : EXPECT_KEY;
        return 'more';
      default:
        if (!isWordByte(byte)) {
          this.#singleByte[0] = byte;
          return this.#fail(`JSON parse error, stray '${shown(new TextDecoder().decode(this.#singleByte))}'`);
        }
        this.#mode = 1;
        this.#tokenLength = 0;
        this.#keep(byte);
        return 'more';
    }
  }

  #keep(byte: number): void {
    if (this.#tokenLength === this.#token.length) {
      const larger = new Uint8Array(2 * this.#token.length);
      larger.set(this.#token);
      this.#token = larger;
    }
    this.#token[this.#tokenLength++] = byte;
  }

  #inString(byte: number): JsonOutcome {
    if (byte < 32) {
      const text = new TextDecoder().decode(this.#token.subarray(0, this.#tokenLength));
      return this.#fail(`JSON parse error, stray '${shown(text)}'`);
    }
    if (byte === this.#mode && !this.#escaped) {
      this.#mode = 0;
      const text = this.#stringText();
      if (text === undefined) return 'error';
      return this.#string(text);
    }
    this.#escaped = byte === BACKSLASH && !this.#escaped;
    this.#keep(byte);
    return 'more';
  }

  /** The token as text, escapes replaced; undefined after failing. */
  #stringText(): string | undefined {
    let text: string;
    try {
      text = this.#decoder.decode(this.#token.subarray(0, this.#tokenLength));
    } catch {
      this.#fail('JSON parse error, invalid UTF-8 sequence in string');
      return undefined;
    }
    if (!text.includes('\\')) return text;
    let bad = false;
    const plain = text.replace(/\\(u[0-9a-fA-F]{4}|.?)/gsu, (_, code: string) => {
      if (code.length === 5) return String.fromCharCode(Number.parseInt(code.slice(1), 16));
      const found = ESCAPES[code];
      bad ||= found === undefined;
      return found ?? '';
    });
    if (!bad) return plain;
    this.#fail('JSON parse error, invalid escape sequence in string');
    return undefined;
  }

  #string(text: string): JsonOutcome {
    if (this.#expect !== EXPECT_KEY && this.#expect !== EXPECT_KEY_OR_END) return this.#put(text);
    const top = this.#stack[this.#stack.length - 1]!;
    if (text in top.object!) return this.#fail('JSON parse error, duplicate key');
    top.key = text;
    this.#expect = EXPECT_COLON;
    return 'more';
  }

  /** A number, true, false or null. */
  #atom(): JsonOutcome {
    const text = new TextDecoder().decode(this.#token.subarray(0, this.#tokenLength));
    switch (text) {
      case 'true':
        return this.#put(true);
      case 'false':
        return this.#put(false);
      case 'null':
        return this.#put(null);
    }
    if (/^[a-zA-Z_]+$/.test(text)) {
      if (this.#expect !== EXPECT_VALUE && this.#expect !== EXPECT_VALUE_OR_END) return this.#unexpected();
      return this.#fail(`JSON parse error, invalid keyword '${shown(text)}'`);
    }
    const number = /^-?(?:0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?$/.exec(text);
    if (number === null) return this.#fail(`JSON parse error, stray '${shown(text)}'`);
    const value = Number(text);
    const integer = number[1] === undefined && number[2] === undefined;
    if (integer && !Number.isSafeInteger(value) && text.length <= 20) return this.#put(BigInt(text));
    if (!Number.isFinite(value)) return this.#fail('JSON parse error, number out of range');
    return this.#put(value);
  }

  #put(value: JsonValue): JsonOutcome {
    if (this.#expect !== EXPECT_VALUE && this.#expect !== EXPECT_VALUE_OR_END) return this.#unexpected();
    const top = this.#stack[this.#stack.length - 1];
    if (top === undefined) {
      this.value = value;
      this.#begin();
      return 'value';
    }
    if (top.object === null) top.array.push(value);
    else top.object[top.key] = value;
    this.#expect = EXPECT_SEPARATOR;
    return 'more';
  }

  #open(container: Container): JsonOutcome {
    if (this.#expect !== EXPECT_VALUE && this.#expect !== EXPECT_VALUE_OR_END) return this.#unexpected();
    if (this.#stack.length === DEPTH_MAX) return this.#fail('JSON nesting depth limit exceeded', false);
    this.#stack.push(container);
    this.#expect = container.object === null ? EXPECT_VALUE_OR_END : EXPECT_KEY_OR_END;
    return 'more';
  }

  #close(object: boolean): JsonOutcome {
    const top = this.#stack[this.#stack.length - 1];
    const mayEnd =
      this.#expect === EXPECT_SEPARATOR ||
      this.#expect === (object ? EXPECT_KEY_OR_END : EXPECT_VALUE_OR_END);
    if (top === undefined || !mayEnd || (top.object !== null) !== object) return this.#unexpected();
    this.#stack.pop();
    this.#expect = EXPECT_VALUE;
    return this.#put(top.object ?? top.array);
  }

  #unexpected(): JsonOutcome {
    switch (this.#expect) {
      case EXPECT_KEY:
      case EXPECT_KEY_OR_END:
        return this.#fail('JSON parse error, expecting key');
      case EXPECT_COLON:
        return this.#fail("JSON parse error, expecting ':'");
      case EXPECT_SEPARATOR: {
        const array = this.#stack[this.#stack.length - 1]?.object === null;
        return this.#fail(`JSON parse error, expected ',' or '${array ? ']' : '}'}'`);
      }
      default:
        return this.#fail('JSON parse error, expecting value');
    }
  }

  #fail(sentence: string, placed = true): JsonOutcome {
    this.error = placed ? `${this.#tokenLine}:${this.#tokenColumn}: ${sentence}` : sentence;
    this.#begin();
    this.#skipping = true;
    return 'error';
  }

  /** Ready for a new text. */
  #begin(): void {
    this.#stack.length = 0;
    this.#expect = EXPECT_VALUE;
    this.#mode = 0;
    this.#escaped = false;
    this.#textBytes = 0;
    this.#tokenLength = 0;
    if (this.#token.length > 65_536) this.#token = new Uint8Array(256);
  }
}

const ESCAPES: Readonly<Record<string, string | undefined>> = {
  '"': '"',
  "'": "'",
  '\\': '\\',
  '/': '/',
  b: '\b',
  f: '\f',
  n: '\n',
  r: '\r',
  t: '\t',
};

/** Letters, digits, and what numbers are made of. */
function isWordByte(byte: number): boolean {
  return (
    (byte >= 0x30 && byte <= 0x39) ||
    (byte >= 0x61 && byte <= 0x7a) ||
    (byte >= 0x41 && byte <= 0x5a) ||
    byte === 0x2b ||
    byte === 0x2d ||
    byte === 0x2e ||
    byte === UNDERSCORE
  );
}

function shown(text: string): string {
  return text.length > TOKEN_SHOWN_CHARACTERS ? `${text.slice(0, TOKEN_SHOWN_CHARACTERS)}…` : text;
}
