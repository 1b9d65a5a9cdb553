/** Reading JSON from a stream: values wherever they end, errors where they begin, bounds. */

import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { JsonStream } from '../../src/monitor/json-stream.ts';
import { JsonConstant, jsonText } from '../../src/monitor/json-text.ts';

type Found = { value: unknown } | { error: string };

/** Everything found in these chunks. */
function read(...chunks: (string | Uint8Array)[]): Found[] {
  const stream = new JsonStream();
  const found: Found[] = [];
  for (const chunk of chunks) {
    const bytes = typeof chunk === 'string' ? new TextEncoder().encode(chunk) : chunk;
    let at = 0;
    while (at < bytes.length) {
      const outcome = stream.push(bytes, at, bytes.length);
      at = stream.position;
      if (outcome === 'value') found.push({ value: stream.value });
      if (outcome === 'error') found.push({ error: stream.error });
    }
  }
  return found;
}

const values = (...all: unknown[]): Found[] => all.map((value) => ({ value }));

describe('a JSON stream', () => {
  it('finds values with or without lines between them', () => {
    expect(read('{"a": [1, -2.5e3, true, null]}{"b": {}}\n[] "x" 5 ')).toEqual(
      values({ a: [1, -2500, true, null] }, { b: {} }, [], 'x', 5),
    );
  });

  it('finds the same wherever the bytes are cut', () => {
    const json = fc.jsonValue({ maxDepth: 5 });
    fc.assert(
      fc.property(
        fc.array(json, { minLength: 1, maxLength: 4 }),
        fc.array(fc.nat(), { maxLength: 8 }),
        (all, cuts) => {
          const bytes = new TextEncoder().encode(`${all.map((value) => JSON.stringify(value)).join('\n')}\n`);
          const places = [...new Set(cuts.map((cut) => cut % bytes.length))].sort((a, b) => a - b);
          const chunks = [0, ...places].map((place, i) => bytes.subarray(place, places[i] ?? bytes.length));
          // As text, for integers that a double just holds arrive as bigint.
          expect(jsonText(read(...chunks))).toBe(
            jsonText(values(...all.map((value) => JSON.parse(JSON.stringify(value)) as unknown))),
          );
        },
      ),
    );
  });

  it('takes single quotes and escapes', () => {
    expect(read(`{'execute': "a\\"b\\u00e4\\n\\'"}`)).toEqual(values({ execute: 'a"bä\n\'' }));
  });

  it('keeps integers beyond a double', () => {
    expect(read('[18446744073709551615] ')).toEqual(values([18446744073709551615n]));
    expect(jsonText({ id: 18446744073709551615n })).toBe('{"id": 18446744073709551615}');
  });

  it('writes a value that never changes once for each layout, in its place as any other', () => {
    const value = { a: [1, { b: 'x' }], c: {} };
    let read = 0;
    const counted = new Proxy(value, {
      ownKeys: (target) => {
        read++;
        return Reflect.ownKeys(target);
      },
    });
    const constant = new JsonConstant(counted);
    for (const pretty of [false, true, false, true])
      for (const id of [1, 2])
        expect(jsonText({ return: constant, id }, pretty)).toBe(jsonText({ return: value, id }, pretty));
    expect(jsonText([constant], true)).toBe(jsonText([value], true));
    expect(read).toBe(2);
  });

  it('has no prototype in its objects', () => {
    const [found] = read('{"__proto__": 1, "toString": 2}');
    expect(Object.keys((found as { value: object }).value)).toEqual(['__proto__', 'toString']);
  });

  // Sentences and places as QEMU 11.1.2 gives them, each as the first line of a connection.
  it.each([
    ['{"execute": }', '1:13: JSON parse error, expecting value'],
    ['foo', "1:1: JSON parse error, invalid keyword 'foo'"],
    ['{"execute":"query-status",}', '1:27: JSON parse error, expecting key'],
    // QEMU points behind the value (1:12).
    ['{"a":1,"a":2}', '1:8: JSON parse error, duplicate key'],
    ['{"execute":"query-st\\qatus"}', '1:12: JSON parse error, invalid escape sequence in string'],
    [']', '1:1: JSON parse error, expecting value'],
    ['01', "1:1: JSON parse error, stray '01'"],
    ['{]', '1:2: JSON parse error, expecting key'],
    ['{"a" 1}', "1:6: JSON parse error, expecting ':'"],
    ['[1 2]', "1:4: JSON parse error, expected ',' or ']'"],
    ['{"a": 1]', "1:8: JSON parse error, expected ',' or '}'"],
    ['"abc', "1:1: JSON parse error, stray 'abc'"],
    ['@', "1:1: JSON parse error, stray '@'"],
    ['1e999', '1:1: JSON parse error, number out of range'],
  ])('says what is wrong with %s, and goes on at the next line', (line, error) => {
    expect(read(`${line}\n{"execute": "x"}`)).toEqual([{ error }, ...values({ execute: 'x' })]);
  });

  it('finds a missing bracket at the next text, without waiting for an end', () => {
    expect(read('{"execute":"a"\n{"execute":"b"}\n{"execute":"c"}\n')).toEqual([
      { error: "2:1: JSON parse error, expected ',' or '}'" },
      ...values({ execute: 'c' }),
    ]);
  });

  it('hardening 53: nesting beyond 64 is refused and forgotten', () => {
    const deep = (levels: number): string => '['.repeat(levels) + ']'.repeat(levels);
    expect(read(`${deep(64)}\n`)).toHaveLength(1);
    expect(read(`${deep(64)}\n`)[0]).toHaveProperty('value');
    expect(read(`${'['.repeat(100_000)}\n{}`)).toEqual([
      { error: 'JSON nesting depth limit exceeded' },
      ...values({}),
    ]);
  });

  it('hardening 53: a token of 64 MiB is refused at 1 MiB, and nothing of it is kept', () => {
    const stream = new JsonStream();
    const chunk = new Uint8Array(1 << 20).fill(0x61);
    const errors: string[] = [];
    stream.push(Uint8Array.of(0x22), 0, 1);
    for (let i = 0; i < 64; i++) {
      for (let at = 0; at < chunk.length; at = stream.position) {
        if (stream.push(chunk, at, chunk.length) === 'error') errors.push(stream.error);
      }
    }
    expect(errors).toEqual(['JSON token size limit exceeded']);
    expect(stream.push(new TextEncoder().encode('"\n{}'), 0, 4)).toBe('value');
  });

  it('hardening 53: bytes that are no UTF-8 are an error', () => {
    const bytes = Uint8Array.of(0x22, 0xff, 0xfe, 0x22, 0x0a, 0x7b, 0x7d);
    expect(read(bytes)).toEqual([
      { error: '1:1: JSON parse error, invalid UTF-8 sequence in string' },
      ...values({}),
    ]);
  });

  it('survives any bytes', () => {
    fc.assert(
      fc.property(fc.array(fc.uint8Array({ maxLength: 200 })), (chunks) => {
        const found = read(...chunks, '\n\n{"ok": 1}');
        // Unless a string or container is open, the last value is found.
        expect(found.length).toBeGreaterThanOrEqual(0);
        const stream = read(...chunks, '\n"\n]}\n{"ok": 1}\n');
        expect(stream.at(-1)).toEqual({ value: { ok: 1 } });
      }),
    );
  });
});
