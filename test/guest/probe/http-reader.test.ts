import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { ByteMemory } from '../../../src/core/copy.ts';
import { type HttpHead, HttpReader } from '../../../src/guest/probe/http/reader.ts';

interface Read {
  heads: HttpHead[];
  body: string;
  ended: boolean;
  bad: string;
  used: number;
}

/** Feeds `text` in pieces that end at `cuts`. */
function read(kind: 'request' | 'response', text: string, cuts: readonly number[] = [], close = false): Read {
  const result: Read = { heads: [], body: '', ended: false, bad: '', used: 0 };
  const reader = new HttpReader(kind, {
    head: (head) => result.heads.push(head),
    body: (memory, from, length) => {
      result.body += String.fromCharCode(...memory.bytes.subarray(from, from + length));
    },
    end: () => {
      result.ended = true;
    },
    bad: (why) => {
      result.bad = why;
    },
  });
  const bytes = Uint8Array.from(text, (char) => char.charCodeAt(0));
  const memory = new ByteMemory(bytes);
  let from = 0;
  for (const cut of [...cuts].sort((a, b) => a - b).concat(bytes.length)) {
    const to = Math.min(cut, bytes.length);
    if (to > from) result.used += reader.feed(memory, from, to);
    from = Math.max(from, to);
  }
  if (close) reader.close();
  return result;
}

const LENGTH = 'HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-A: 1\r\nX-A:2 \r\n\r\nhello';
const CHUNKED =
  'HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n0A\r\n, 0123456\n\r\n0\r\nTrailer: x\r\n\r\n';
const UNTIL_CLOSE = 'HTTP/1.0 200\r\nServer: x\r\n\r\nall of it';

describe('HTTP messages', () => {
  test('a body as long as Content-Length says, and not a byte more', () => {
    const { heads, body, ended, used } = read('response', `${LENGTH}rest`);
    expect(heads[0].status).toBe(200);
    expect(heads[0].reason).toBe('OK');
    expect(heads[0].headers.get('x-a')).toBe('1,2');
    expect([body, ended, used]).toEqual(['hello', true, LENGTH.length]);
  });

  test('chunks, extensions, trailers and an interim answer', () => {
    const { heads, body, ended, used } = read('response', CHUNKED);
    expect(heads.map(({ status }) => status)).toEqual([200]);
    expect([body, ended, used]).toEqual(['hello, 0123456\n', true, CHUNKED.length]);
  });

  test('a body that ends with the connection', () => {
    expect(read('response', UNTIL_CLOSE).ended).toBe(false);
    const { body, ended } = read('response', UNTIL_CLOSE, [], true);
    expect([body, ended]).toEqual(['all of it', true]);
  });

  test('requests: none has a body unless it says so', () => {
    const get = read('request', '\r\nGET /a?b HTTP/1.1\r\nHost: x\r\n\r\n');
    expect([get.heads[0].method, get.heads[0].target, get.ended]).toEqual(['GET', '/a?b', true]);
    const put = read('request', 'PUT /a HTTP/1.1\nHost: x\nContent-Length: 3\n\nabc');
    expect([put.heads[0].method, put.body, put.ended]).toEqual(['PUT', 'abc', true]);
  });

  test.each([204, 304])('status %d has no body', (status) => {
    expect(read('response', `HTTP/1.1 ${status} x\r\nContent-Length: 9\r\n\r\n`).ended).toBe(true);
  });

  test('the pieces it comes in make no difference', () => {
    fc.assert(
      fc.property(
        fc.constantFrom(LENGTH, CHUNKED),
        fc.array(fc.nat(200), { maxLength: 12 }),
        (text, cuts) => {
          expect(read('response', text, cuts)).toEqual(read('response', text));
        },
      ),
    );
  });

  test.each([
    ['no HTTP', 'SSH-2.0-x\r\n\r\n', 'not HTTP/1: "SSH-2.0-x"'],
    ['HTTP/2', 'HTTP/2 200\r\n\r\n', 'not HTTP/1: "HTTP/2 200"'],
    [
      'a length that is no number',
      'HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n',
      'a Content-Length that is no number',
    ],
    [
      'two lengths',
      'HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n',
      'a Content-Length that is no number',
    ],
    [
      'an unknown coding',
      'HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n',
      'the transfer coding "gzip, chunked"',
    ],
    ['a header without colon', 'HTTP/1.1 200 OK\r\nnonsense\r\n\r\n', 'a header line that is none'],
    [
      'a chunk without size',
      'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n',
      'a chunk without a size',
    ],
    [
      'a chunk of 2^60',
      'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1000000000000000\r\n',
      'a chunk without a size',
    ],
    [
      'a chunk that runs over',
      'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n',
      'a chunk that does not end where it should',
    ],
    [
      'an endless head',
      `HTTP/1.1 200 OK\r\n${'X: y\r\n'.repeat(10_000)}`,
      'a line or head of more than 32768 bytes',
    ],
    [
      'an endless line',
      `HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;${'x'.repeat(9000)}`,
      'a line or head of more than 4096 bytes',
    ],
  ])('%s ends it', (_name, text, why) => {
    const result = read('response', text);
    expect([result.bad, result.ended]).toEqual([why, false]);
  });

  test('no bytes make it throw, or read past what it was given', () => {
    const start = fc.constantFrom(
      '',
      'HTTP/1.1 200 OK\r\n',
      'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n',
      'GET / HTTP/1.1\r\n',
    );
    const noise = fc.string({
      unit: fc.constantFrom('0', '1', 'f', ':', ' ', '\r', '\n', ';', 'A', '\xff'),
      maxLength: 200,
    });
    fc.assert(
      fc.property(
        fc.constantFrom('request' as const, 'response' as const),
        start,
        noise,
        fc.array(fc.nat(200)),
        (kind, head, tail, cuts) => {
          const text = head + tail;
          const result = read(kind, text, cuts, true);
          expect(result.used).toBeLessThanOrEqual(text.length);
        },
      ),
    );
  });
});
