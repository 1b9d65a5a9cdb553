/** JSON as QMP writes it: a blank behind separators, 64-bit integers in full, and spread over lines where that is asked for. */

/** `value` is plain data: what JSON has, bigint for large integers, and undefined for members to leave out. */
export function jsonText(value: unknown, pretty = false): string {
  return write(value, pretty ? '\n' : '');
}

/** A large value that never changes: its text is made once for each layout. */
export class JsonConstant<T = unknown> {
  readonly value: T;
  readonly #texts = new Map<string, string>();

  constructor(value: T) {
    this.value = value;
  }

  /** `newline` as for `write`. */
  text(newline: string): string {
    let text = this.#texts.get(newline);
    if (text === undefined) {
      text = write(this.value, newline);
      this.#texts.set(newline, text);
    }
    return text;
  }
}

/** `newline`: what begins a line at this level, empty for everything on one line. */
function write(value: unknown, newline: string): string {
  if (typeof value === 'bigint') return value.toString();
  if (value === null || typeof value !== 'object') return JSON.stringify(value) ?? 'null';
  if (value instanceof JsonConstant) return value.text(newline);
  const inner = newline === '' ? '' : `${newline}    `;
  const between = newline === '' ? ', ' : `,${inner}`;
  const array = Array.isArray(value);
  const parts = array
    ? value.map((element) => write(element, inner))
    : Object.entries(value)
        .filter(([, member]) => member !== undefined)
        .map(([key, member]) => `${JSON.stringify(key)}: ${write(member, inner)}`);
  const [open, close] = array ? '[]' : '{}';
  if (parts.length === 0) return `${open}${close}`;
  return `${open}${inner}${parts.join(between)}${newline}${close}`;
}
