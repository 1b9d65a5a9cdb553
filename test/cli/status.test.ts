import { describe, expect, it } from 'vitest';
import { LiveStatus, type StatusRow, scaled, statusLines } from '../../src/cli/status.ts';

const row = (name: string, frames: number): StatusRow => ({
  name,
  kind: 'e1000',
  up: true,
  outFrames: frames,
  outBytes: frames * 100,
  inFrames: 0,
  inBytes: 0,
  drops: 3,
});

describe('live status', () => {
  it.each([
    [0, '0'],
    [999, '999'],
    [999.6, '1.00 k'],
    [1234, '1.23 k'],
    [12_345_678, '12.3 M'],
    [999_600_000, '1.00 G'],
    [123e12, '123 T'],
  ])('scales %d to %s', (value, text) => {
    expect(scaled(value)).toBe(text);
  });

  it('shows rates against the rows before', () => {
    expect(statusLines([row('e0', 3000), row('new', 5)], [row('e0', 1000)], 2)).toEqual([
      '            link  out frame/s  out bit/s  in frame/s  in bit/s  drops',
      'e0   e1000  up         1.00 k      800 k           0         0      3',
      'new  e1000  up              0          0           0         0      3',
    ]);
  });

  it('keeps the block under what is printed on a terminal', () => {
    let text = '';
    const live = new LiveStatus({ isTTY: true, columns: 10, write: (more: string) => (text += more) });
    live.show(['one', 'a long line']);
    live.print('hello');
    live.show([]);
    live.print('bye');
    expect(text).toBe('one\na long li\n\x1b[2A\x1b[Jhello\none\na long li\n\x1b[2A\x1b[Jbye\n');
  });

  it('shows no block elsewhere', () => {
    let text = '';
    const live = new LiveStatus({ write: (more: string) => (text += more) });
    live.show(['one']);
    live.print('hello');
    expect(text).toBe('hello\n');
  });
});
