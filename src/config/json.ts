/**
 * A strict JSON reader for what users and monitor clients send. Beyond JSON.parse it refuses duplicate keys, bounds
 * length and depth, and keeps integers that a double cannot hold as bigint (64-bit cookies). Objects have no
 * prototype, so a member called `__proto__` is a member like any other.
 */
import { OptionError } from '../core/errors.ts';

export type JsonValue = null | boolean | number | bigint | string | readonly JsonValue[] | JsonObject;
export interface JsonObject {
  readonly [key: string]: JsonValue;
}

export interface JsonLimits {
  /** In UTF-16 units. */
  readonly maxLength: number;
  readonly maxDepth: number;
}

const DEFAULT_LIMITS: JsonLimits = { maxLength: 1 << 20, maxDepth: 64 };

/** Parses one JSON text. Throws OptionError with a `JSON parse error, …` sentence. */
export function parseJson(text: string, limits: JsonLimits = DEFAULT_LIMITS): JsonValue {
  if (text.length > limits.maxLength) throw jsonError('JSON token limit exceeded');
  return new JsonReader(text, limits.maxDepth).document();
}

export function isJsonObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function jsonError(reason: string): OptionError {
  return new OptionError(reason.startsWith('JSON') ? reason : `JSON parse error, ${reason}`);
}

class JsonReader {
  private at = 0;
  private readonly text: string;
  private readonly maxDepth: number;
  private readonly numberToken = /-?(?:0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?/y;
  private readonly blankToken = /[ \t\n\r]*/y;
  // biome-ignore lint/suspicious/noControlCharactersInRegex: a bare control character is an error in JSON
  private readonly stringToken = /"(?:[^"\\\u0000-\u001f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*"/y;

  constructor(text: string, maxDepth: number) {
    this.text = text;
    this.maxDepth = maxDepth;
  }

  document(): JsonValue {
    const value = this.value(0);
    this.blank();
    if (this.at < this.text.length) throw jsonError('stray text after the value');
    return value;
  }

  private value(depth: number): JsonValue {
    if (depth > this.maxDepth) throw jsonError('JSON nesting depth limit exceeded');
    this.blank();
    switch (this.text[this.at]) {
      case '{':
        return this.object(depth);
      case '[':
        return this.array(depth);
      case '"':
        return this.string();
      default:
        if (this.takeWord('true')) return true;
        if (this.takeWord('false')) return false;
        if (this.takeWord('null')) return null;
        return this.number();
    }
  }

  private object(depth: number): JsonObject {
    const object: { [key: string]: JsonValue } = Object.create(null);
    this.at++;
    this.blank();
    if (this.take('}')) return object;
    for (;;) {
      this.blank();
      if (this.text[this.at] !== '"') throw jsonError('expecting value');
      const key = this.string();
      this.blank();
      if (!this.take(':')) throw jsonError("missing ':' in object pair");
      if (key in object) throw new OptionError('JSON parse error, duplicate key', { option: key });
      object[key] = this.value(depth + 1);
      this.blank();
      if (this.take('}')) return object;
      if (!this.take(',')) throw jsonError('expected separator in dict');
    }
  }

  private array(depth: number): JsonValue[] {
    const array: JsonValue[] = [];
    this.at++;
    this.blank();
    if (this.take(']')) return array;
    for (;;) {
      array.push(this.value(depth + 1));
      this.blank();
      if (this.take(']')) return array;
      if (!this.take(',')) throw jsonError('expected separator in list');
    }
  }

  private string(): string {
    const token = this.match(this.stringToken);
    if (token === undefined) throw jsonError('invalid string');
    return JSON.parse(token[0]) as string;
  }

  private takeWord(word: string): boolean {
    if (!this.text.startsWith(word, this.at)) return false;
    this.at += word.length;
    return true;
  }

  private number(): number | bigint {
    const token = this.match(this.numberToken);
    if (token === undefined)
      throw jsonError(this.at < this.text.length ? 'expecting value' : 'unexpected end');
    const value = Number(token[0]);
    const integer = token[1] === undefined && token[2] === undefined;
    if (integer && !Number.isSafeInteger(value) && token[0].length < 40) return BigInt(token[0]);
    if (!Number.isFinite(value)) throw jsonError('number out of range');
    return value;
  }

  private match(pattern: RegExp): RegExpExecArray | undefined {
    pattern.lastIndex = this.at;
    const found = pattern.exec(this.text);
    if (!found) return undefined;
    this.at += found[0].length;
    return found;
  }

  private blank(): void {
    this.match(this.blankToken);
  }

  private take(char: string): boolean {
    if (this.text[this.at] !== char) return false;
    this.at++;
    return true;
  }
}
