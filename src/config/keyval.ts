/**
 * QEMU's key=value syntax, as text only: what the keys mean is the option table's business.
 *
 *   user,id=n0,hostfwd=tcp::22-:22,restrict
 *   ─┬─  ──┬──                     ───┬────
 *  implied key   `,,` in a value      short form: restrict=on (QEMU deprecates it; still pasted)
 *                is one comma
 *
 * Keys may repeat; order is kept. A dot makes a member of a nested object (`addr.type=inet`).
 */
import { OptionError } from '../core/errors.ts';

export interface KeyvalEntry {
  readonly key: string;
  /** undefined for the short form, a key by itself. */
  readonly value: string | undefined;
}

/** A line longer than this is a mistake, or an attack. */
const MAX_LENGTH = 1 << 20;

/** Splits `text`. The first entry may leave its key out when `impliedKey` says which one it is. */
export function splitKeyval(text: string, impliedKey?: string): KeyvalEntry[] {
  if (text.length > MAX_LENGTH) throw new OptionError('the option is too long');
  const entries: KeyvalEntry[] = [];
  let at = 0;
  while (at < text.length) {
    const keyEnd = indexOfEither(text, at, '=', ',');
    let key = text.slice(at, keyEnd);
    let value: string | undefined;
    if (text[keyEnd] === '=') {
      [value, at] = readValue(text, keyEnd + 1);
    } else if (entries.length === 0 && impliedKey !== undefined) {
      [value, at] = readValue(text, at);
      key = impliedKey;
    } else {
      at = keyEnd + 1;
    }
    if (key === '') throw new OptionError("Invalid parameter ''", { option: '' });
    entries.push({ key, value });
  }
  return entries;
}

/** True for `help` and `?` as a word of its own anywhere in the line, which asks for the table. */
export function asksForHelp(entries: readonly KeyvalEntry[]): boolean {
  return entries.some(({ key, value }) => value === undefined && (key === 'help' || key === '?'));
}

/** The inverse of splitKeyval for one value: doubles its commas. */
export function escapeValue(value: string): string {
  return value.replaceAll(',', ',,');
}

function indexOfEither(text: string, from: number, a: string, b: string): number {
  for (let i = from; i < text.length; i++) if (text[i] === a || text[i] === b) return i;
  return text.length;
}

function readValue(text: string, from: number): [value: string, next: number] {
  let value = '';
  let at = from;
  for (;;) {
    const comma = text.indexOf(',', at);
    if (comma < 0) return [value + text.slice(at), text.length];
    value += text.slice(at, comma);
    if (text[comma + 1] !== ',') return [value, comma + 1];
    value += ',';
    at = comma + 2;
  }
}
