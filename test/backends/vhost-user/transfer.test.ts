/** The vhost-user netdev against netemu's own back-end: frames both ways, link state, back-ends that come and go, drivers that reset. */
import { afterEach, describe, expect, test } from 'vitest';
import { VirtualClock } from '../../../src/core/clock.ts';
import { silentLogger } from '../../../src/core/log.ts';
import { VhostUserBackend } from '../../../src/guest/vhost-user/index.ts';
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

describe('back-ends come and go', () => {
  test('the link follows the connection, and monitors are told', async () => {
    const { bench, guest } = await start({});
    expect(guest.driver.linkUp).toBe(true);
    bench.backend.close();
    await guest.until(() => !guest.driver.linkUp);
    expect(guest.netdev.ports[0]!.up).toBe(false);
    expect(guest.netdev.describe()).toBe('vhost-user to c0 (disconnected)');
    expect(guest.events.filter((name) => name.startsWith('NETDEV'))).toEqual([
      'NETDEV_VHOST_USER_CONNECTED',
      'NETDEV_VHOST_USER_DISCONNECTED',
    ]);
    // Nobody is there: what the driver sends waits in its ring.
    expect(guest.send([numbered(1)])).toBe(1);
    expect(guest.sent).toBe(0);
  });

  test.each([
    ['split', { packed: false }],
    ['packed', { packed: true }],
  ])('%s: the next one goes on where the one before stood', async (_name, properties) => {
    const clock = new VirtualClock();
    const { bench, guest } = await start(properties, { reconnectMs: 10, clock });
    let { backend } = bench;
    let number = 0;
    for (let round = 0; round < 4; round++) {
      const frames = Array.from({ length: 100 }, () => numbered(number++));
      for (const frame of frames) expect(bench.peer.send(frame)).toBe(true);
      expect(guest.send(frames)).toBe(100);
      await guest.until(() => bench.peer.frames.length === number && guest.received.length === number);
      backend.close();
      await guest.until(() => !guest.driver.linkUp);
      // What the driver sends meanwhile waits in its ring.
      guest.send([numbered(number++)]);
      const { device, host, hostIo, loop, path } = bench;
      backend = new VhostUserBackend({ path, listen: true, device, host, hostIo, loop, log: silentLogger });
      guest.network.loop.runUntil(clock.nowNs() + 11e6);
      await guest.until(() => bench.peer.frames.length === number && guest.driver.linkUp);
      // The guest's numbers and the network's go on side by side.
      expect(bench.peer.send(numbered(number - 1))).toBe(true);
      await guest.until(() => guest.received.length === number);
    }
    backend.close();
    expect(bench.peer.frames.map(({ bytes }) => numberOf(bytes))).toEqual([...Array(number).keys()]);
    expect(guest.received.map(numberOf)).toEqual([...Array(number).keys()]);
    expect(guest.stats.brokenRings).toBe(0);
  });

  test('set_link takes the rings back, in the middle of it all, and gives them again', async () => {
    const { bench, guest } = await start({ packed: true });
    let number = 0;
    for (let round = 0; round < 5; round++) {
      const frames = Array.from({ length: 10 }, () => numbered(number++));
      for (const frame of frames) expect(bench.peer.send(frame)).toBe(true);
      guest.send(frames);
      await guest.until(() => bench.peer.frames.length === number && guest.received.length === number);
      guest.network.setLink(round % 2 === 0 ? 'net0' : 'n0', false);
      await guest.until(() => !guest.nic.servedOutside && !guest.driver.linkUp);
      guest.network.setLink(round % 2 === 0 ? 'net0' : 'n0', true);
      await guest.until(() => guest.nic.servedOutside && guest.driver.linkUp);
    }
    expect(guest.stats.stops).toBe(5);
    expect(guest.stats.takenOver).toBe(0);
    expect(bench.peer.frames.map(({ bytes }) => numberOf(bytes))).toEqual([...Array(number).keys()]);
  });

  test('a driver that resets the device waits until nobody works on its rings, and begins anew', async () => {
    const { bench, guest } = await start({});
    for (let round = 0; round < 3; round++) {
      guest.send([numbered(round)]);
      await guest.until(() => bench.peer.frames.length === round + 1);
      guest.driver.close();
      // The status register: the reset is not done yet, and then it is.
      expect(guest.nic.readBar(4, 20, 1)).not.toBe(0);
      await guest.until(() => guest.nic.readBar(4, 20, 1) === 0);
      expect(guest.driver.open()).toBe(true);
      await guest.until(() => guest.nic.servedOutside);
    }
    expect(guest.stats.starts).toBe(4);
    expect(guest.stats.stops).toBe(3);
  });

  test('a device that goes and another one that comes share the connection', async () => {
    const { bench, guest } = await start({ packed: true });
    const first = guest.machine.ram.mark();
    for (let round = 0; round < 3; round++) {
      guest.send([numbered(round)]);
      await guest.until(() => bench.peer.frames.length === round + 1);
      guest.driver.close();
      await guest.until(() => guest.nic.readBar(4, 20, 1) === 0);
      guest.network.removeDevice('net0');
      guest.machine.ram.release(first);
      guest.plug();
      await guest.until(() => guest.nic.servedOutside && guest.driver.linkUp);
    }
    expect(guest.stats.connections).toBe(1);
    expect(guest.stats.starts).toBe(4);
    expect(bench.peer.frames.map(({ bytes }) => numberOf(bytes))).toEqual([0, 1, 2]);
  });

  test('a network that stands still lets nobody work on its rings', async () => {
    const { bench, guest } = await start({});
    guest.network.setRunning(false);
    await guest.until(() => guest.netdev.backend?.queueServer?.active === false);
    // Its state can be taken then, and only then.
    expect(guest.nic.saveState()).toBeTruthy();
    guest.network.setRunning(true);
    await guest.until(() => guest.nic.servedOutside);
    expect(() => guest.nic.saveState()).toThrow('another program serves the queues');
    guest.send([numbered(7)]);
    await guest.until(() => bench.peer.frames.length === 1);
  });

  test.each([
    ['split', false],
    ['packed', true],
  ] as const)('%s: what was saved while the network stood still holds where the rings stand, and a NIC that loads it goes on there', async (_name, packed) => {
    const { bench, guest } = await start({ packed });
    // A NIC that loads a state tells the network by RARP where it is.
    const arrived = (): number[] =>
      bench.peer.frames.filter(({ bytes }) => bytes[12] === 0x88).map(({ bytes }) => numberOf(bytes));
    let number = 0;
    for (let round = 0; round < 4; round++) {
      const frames = Array.from({ length: 7 }, () => numbered(number++));
      for (const frame of frames) expect(bench.peer.send(frame)).toBe(true);
      guest.send(frames);
      await guest.until(() => arrived().length === number && guest.received.length === number);
      guest.network.setRunning(false);
      await guest.until(() => guest.netdev.backend?.queueServer?.active === false);
      const state = JSON.parse(JSON.stringify(guest.nic.saveState()));
      guest.nic.reset();
      guest.nic.loadState(state);
      guest.network.setRunning(true);
      await guest.until(() => guest.nic.servedOutside);
    }
    expect(arrived()).toEqual([...Array(number).keys()]);
    expect(guest.received.map(numberOf)).toEqual([...Array(number).keys()]);
    expect(guest.stats).toMatchObject({ starts: 5, stops: 4, brokenRings: 0 });
  });
});

describe('two queue pairs', () => {
  test.each([
    ['split', { packed: false }],
    ['packed', { packed: true }],
  ])('%s: frames go out of both', async (_name, properties) => {
    const { bench, guest } = await start(properties, { queues: 2 });
    expect(guest.nic.pairsMax).toBe(2);
    guest.send([numbered(1)], 0);
    guest.send([numbered(2)], 1);
    await guest.until(() => bench.peer.frames.length === 2);
    expect(bench.peer.frames.map(({ bytes }) => numberOf(bytes)).sort()).toEqual([1, 2]);
  });
});
