/** Any arguments whatever to any function of the addon: an answer, and no harm. Property: it returns, and the pool's bounds hold. */

import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { FramePool } from '../../src/core/pool.ts';
import { BLOCK_FRAMES, BLOCK_SPILL, BLOCK_WORDS, loadAddon } from '../../src/host-io/addon.ts';
import { packAddress } from '../../src/host-io/address.ts';
import { descriptorsSince, openDescriptors } from './lab.ts';

/** Not called with what chance brings: it would take over descriptors of the test runner, take its rights for good, or end the host early. */
const CALLED_APART = new Set(['adopt', 'shutdown', 'waitReady', 'landlock']);

const numbers = fc.oneof(
  fc.integer({ min: -20, max: 200 }),
  fc.constantFrom(0, 1, 2, 3, 16, 32, 48, 64, 16 * 40, 65_537, 131_074),
  fc.double(),
  fc.constantFrom(Number.NaN, Number.POSITIVE_INFINITY, 2 ** 31, 2 ** 32, -(2 ** 31), 2 ** 53),
);

const words = fc.array(
  fc.oneof(
    fc.integer({ min: 0, max: 60 }).map((n) => n * 16),
    fc.integer(),
  ),
  { maxLength: 12 },
);

function anything(folder: string): fc.Arbitrary<unknown> {
  return fc.oneof(
    { weight: 6, arbitrary: numbers },
    { weight: 3, arbitrary: words.map((list) => Int32Array.from(list)) },
    { weight: 2, arbitrary: fc.uint8Array({ maxLength: 300 }) },
    { weight: 2, arbitrary: fc.boolean() },
    {
      weight: 1,
      arbitrary: fc.constantFrom('127.0.0.1', '::1', '0.0.0.0', '127.0.0.1\0', 'x'.repeat(300), ''),
    },
    { weight: 1, arbitrary: fc.integer({ min: 0, max: 3 }).map((n) => join(folder, `socket${n}`)) },
    {
      weight: 1,
      arbitrary: fc.constantFrom(
        undefined,
        null,
        {},
        [],
        new Float64Array(8),
        new Uint16Array(9),
        Symbol('s'),
        5n,
      ),
    },
  );
}

describe('the addon, called with anything', () => {
  it('hardening: never crashes, never writes outside of what it was given', () => {
    const before = openDescriptors();
    const addon = loadAddon();
    const folder = mkdtempSync(join(tmpdir(), 'netemu-fuzz-'));
    const block = new Int32Array(BLOCK_WORDS);
    const host = addon.open(() => {}, new Int32Array(128), new Uint8Array(20), block) as unknown as Record<
      string,
      (...args: unknown[]) => unknown
    >;
    // Guards on both sides of every array that native code keeps the address of.
    const pool = new FramePool({ smallSlots: 32, largeSlots: 2, bareRecords: 16 });
    host.attachTable!(pool.table);
    host.setRegion!(0, pool.bytes);
    const memory = new Uint8Array(3000).fill(0x5a);
    host.setRegion!(1, memory.subarray(1000, 2000));
    for (let i = 0; i < 8; i++) pool.setLength(pool.alloc(100), 50);
    const names = Object.keys(host).filter((name) => !CALLED_APART.has(name));
    // Some of each kind, so that handles by chance mean something.
    host.socketPair!(new Int32Array(2));
    host.eventFd!();
    host.memoryFd!('fuzz', 8192);
    host.udpOpen!('127.0.0.1', 0, undefined, 0, 4, 0, 0, 0, undefined, undefined);
    host.unixDatagramOpen!(undefined, undefined);
    host.tcpListen!('127.0.0.1', 0, 4, true);
    fc.assert(
      fc.property(fc.constantFrom(...names), fc.array(anything(folder), { maxLength: 10 }), (name, args) => {
        // A tap by chance would stay as an interface for as long as this runs, and nobody asked for it.
        if (name === 'tapOpen') args[0] = 'x'.repeat(40);
        if (name === 'tcpListen' || name === 'udpOpen') args[0] = '127.0.0.1';
        if (name === 'udpOpen' || name === 'unixDatagramOpen') args[2] = undefined;
        if (name === 'tcpConnect') args[0] = '127.0.0.1';
        if (name === 'rawOpen') args[1] = 253;
        // The block's calls find there what others get as arguments.
        for (const [i, word] of args.entries()) if (typeof word === 'number') block[i] = word;
        for (let i = 0; i < 4; i++) block[BLOCK_FRAMES + i] = block[BLOCK_SPILL + i] = (block[i]! & 31) * 16;
        const result = host[name]!(...args);
        expect(['number', 'object']).toContain(typeof result);
      }),
      { numRuns: 20_000 },
    );
    expect(memory.subarray(0, 1000).every((byte) => byte === 0x5a)).toBe(true);
    expect(memory.subarray(2000).every((byte) => byte === 0x5a)).toBe(true);
    expect(host.adopt!(-1)).toBe(-9);
    expect(host.adopt!('x')).toBe(-22);
    expect(host.waitReady!(1, 99, 0)).toBeLessThan(0);
    host.shutdown!();
    for (const name of Object.keys(host)) expect(['number', 'object']).toContain(typeof host[name]!(1, 1, 1));
    expect(descriptorsSince(before)).toEqual([]);
    expect(readdirSync(folder)).toEqual([]);
    rmSync(folder, { recursive: true });
  });

  it('hardening: survives records that lie, in every field', () => {
    const addon = loadAddon();
    const mailbox = new Uint8Array(20);
    const host = addon.open(() => {}, new Int32Array(128), mailbox, new Int32Array(BLOCK_WORDS));
    const pool = new FramePool({ smallSlots: 16, largeSlots: 2, bareRecords: 4 });
    host.attachTable(pool.table);
    host.setRegion(0, pool.bytes);
    const pair = new Int32Array(2);
    host.socketPair(pair);
    // Sends to itself, so that there is something to receive.
    const udp = host.udpOpen('127.0.0.1', 0, undefined, 0, 4, 0, 0, 0, undefined, undefined, undefined);
    const [, port] = host.endpoint(udp, false) as [string, number];
    packAddress({ address: '127.0.0.1', port }, mailbox, 0);
    const pristine = pool.table.slice();
    const drain = new Uint8Array(1 << 20);
    fc.assert(
      fc.property(
        fc.array(
          fc.tuple(
            fc.nat(pool.table.length - 1),
            fc.oneof(
              fc.integer({ min: -5, max: 400 }),
              fc.integer(),
              fc.nat(22).map((n) => n * 16),
            ),
          ),
          {
            maxLength: 40,
          },
        ),
        fc.array(
          fc.nat(22).map((n) => n * 16),
          { minLength: 1, maxLength: 8 },
        ),
        (lies, list) => {
          pool.table.set(pristine);
          for (const [at, value] of lies) pool.table[at] = value;
          const frames = Int32Array.from(list);
          const bound = [
            host.sendStream(pair[0]!, frames, 0, frames.length, 0),
            host.sendFramed(pair[0]!, frames, 0, frames.length, 0),
            host.receiveStream(pair[1]!, frames, 0, frames.length, 10, 50, true),
            host.sendDatagrams(udp, frames, 0, frames.length, true, undefined, 0),
            host.receiveDatagrams(udp, frames, 0, frames.length, 10, undefined, undefined),
            host.receiveDatagrams(udp, frames, 0, frames.length, 10, undefined, frames.slice().reverse()),
            host.writeFrames(udp, frames, 0, frames.length),
            host.readFrames(udp, frames, 0, frames.length, undefined),
            host.readFrames(udp, frames, 0, frames.length, frames.slice()),
          ];
          for (const result of bound) expect(Number.isInteger(result)).toBe(true);
          host.receiveBytes(pair[1]!, drain, 0, drain.length);
        },
      ),
      { numRuns: 5000 },
    );
    host.shutdown();
  });
});
