/** The vhost-user netdev against netemu's own back-end: frames both ways, link state, back-ends that come and go, drivers that reset. */
import { afterEach, describe, expect, test } from 'vitest';
import { Bench } from '../../guest/vhost-user/bench.ts';
import { numbered, numberOf, VhostGuest, type VhostGuestOptions } from '../../lib/vhost-guest.ts';

let bench: Bench | null = null;
let guest: VhostGuest | null = null;
afterEach(() => {
  guest?.close();
  guest = null;
  bench?.end();
  bench = null;
});

async function start(
  properties: object,
  options: Partial<VhostGuestOptions> = {},
): Promise<{ bench: Bench; guest: VhostGuest }> {
  const server = options.server ?? false;
  const { queues = 1 } = options;
  bench = new Bench({ properties: { ...properties, ...(queues > 1 && { mq: true, queues }) } });
  guest = await VhostGuest.make({ path: bench.path, properties, ...options });
  expect(server).toBe(false);
  const { netdev } = guest;
  await guest.until(() => netdev.ports[0]!.up && guest!.nic.servedOutside);
  return { bench, guest };
}

function numberedUpTo(frame: Uint8Array, length: number): Uint8Array {
  const bytes = new Uint8Array(Math.max(frame.length, length));
  bytes.set(frame);
  return bytes;
}

const RINGS: readonly [string, object][] = [
  ['split', { packed: false }],
  ['packed', { packed: true }],
  ['split without event_idx', { packed: false, event_idx: false }],
  ['packed, unmergeable', { packed: true, mrg_rxbuf: false }],
];

describe.each(RINGS)('%s rings', (_name, properties) => {
  test('frames of every length go both ways, byte for byte', async () => {
    const { bench, guest } = await start(properties);
    const lengths = [14, 60, 61, 127, 128, 511, 1000, 1514];
    const frames = lengths.map((length, i) => numbered(i, Math.max(length, 16)));
    expect(guest.send(frames)).toBe(frames.length);
    await guest.until(() => bench.peer.frames.length === frames.length);
    // Short frames are padded on the wire.
    const padded = frames.map((frame) => numberedUpTo(frame, 60));
    expect(bench.peer.frames.map(({ bytes }) => bytes)).toEqual(padded);
    for (const frame of frames) expect(bench.peer.send(frame)).toBe(true);
    await guest.until(() => guest.received.length === frames.length);
    expect(guest.received).toEqual(padded);
  });

  test('many laps of the rings', async () => {
    const { bench, guest } = await start(properties, { driver: { ringSize: 64 } });
    let number = 0;
    for (let round = 0; round < 40; round++) {
      const frames = Array.from({ length: 32 }, () => numbered(number++));
      expect(guest.send(frames)).toBe(32);
      for (const frame of frames) expect(bench.peer.send(frame)).toBe(true);
      await guest.until(() => bench.peer.frames.length === number && guest.received.length === number);
    }
    expect(bench.peer.frames.map(({ bytes }) => numberOf(bytes))).toEqual([...Array(number).keys()]);
    expect(guest.received.map(numberOf)).toEqual([...Array(number).keys()]);
    expect(guest.stats.kicks).toBeGreaterThan(0);
    expect(guest.stats.interrupts).toBeGreaterThan(0);
  });
});
