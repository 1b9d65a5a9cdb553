import { describe, expect, it } from 'vitest';
import { formatMac } from '../../src/config/address.ts';
import { MacPool } from '../../src/config/mac-pool.ts';

describe('MacPool', () => {
  const next = (pool: MacPool, asked?: string): string => formatMac(pool.take(asked));

  it('gives the lowest free last byte, from 56', () => {
    const pool = new MacPool();
    expect(next(pool)).toBe('52:54:00:12:34:56');
    expect(next(pool, '00:00:00:00:00:00')).toBe('52:54:00:12:34:57');
    pool.release(Uint8Array.of(0x52, 0x54, 0, 0x12, 0x34, 0x56));
    expect(next(pool)).toBe('52:54:00:12:34:56');
    expect(next(pool)).toBe('52:54:00:12:34:58');
  });

  it('steps over addresses that users chose, until the last of them is gone', () => {
    const pool = new MacPool();
    const chosen = pool.take('52:54:00:12:34:56');
    pool.take('52:54:00:12:34:56');
    pool.take('02:00:00:00:00:57');
    pool.release(chosen);
    expect(next(pool)).toBe('52:54:00:12:34:57');
    pool.release(chosen);
    expect(next(pool)).toBe('52:54:00:12:34:56');
  });

  it('has 169 addresses', () => {
    const pool = new MacPool();
    let last = '';
    for (let i = 0; i < 169; i++) last = next(pool);
    expect(last).toBe('52:54:00:12:34:fe');
    expect(() => pool.take(undefined)).toThrow('no free MAC address is left');
    expect(next(pool, '02:00:00:00:00:01')).toBe('02:00:00:00:00:01');
  });

  it('pools do not meet', () => {
    expect(next(new MacPool())).toBe(next(new MacPool()));
  });
});
