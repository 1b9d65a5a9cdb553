/** The switch behind a listening websocket netdev, and who may connect. */

import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { WebSocket } from 'ws';
import type { Backend } from '../../src/backends/backend.ts';
import { MacTable } from '../../src/backends/mac-table.ts';
import { type ClientSocket, websocketClient } from '../../src/backends/websocket-client.ts';
import type { WebsocketStats } from '../../src/backends/websocket-stats.ts';
import { type NetdevConfigOf, readNetdev } from '../../src/config/netdevs/index.ts';
import { VirtualClock } from '../../src/core/clock.ts';
import { packet, tags } from '../lib/context.ts';
import { BackendLab, freePorts } from './lab.ts';

let lab: BackendLab;

beforeEach(() => {
  lab = new BackendLab();
});

afterEach(() => lab.end());

interface Page {
  readonly socket: WebSocket;
  readonly received: Uint8Array[];
  closed: number;
  failed: string;
}

/** A browser page's connection. */
function page(port: number, origin?: string): Page {
  const socket = new WebSocket(`ws://127.0.0.1:${port}/`, origin === undefined ? {} : { origin });
  const state: Page = { socket, received: [], closed: 0, failed: '' };
  socket.on('message', (data) => state.received.push(Uint8Array.from(data as Buffer)));
  socket.on('close', (code) => {
    state.closed = code;
  });
  socket.on('error', (error) => {
    state.failed = error.message;
  });
  return state;
}

const isOpen = ({ socket }: Page) => socket.readyState === socket.OPEN;

/** A frame from address `from` to address `to` (the last byte of each; 255: broadcast). */
function between(from: number, to: number, tag: number): Uint8Array {
  const bytes = packet(tag, 60);
  bytes.set(to === 255 ? [255, 255, 255, 255, 255, 255] : [2, 0, 0, 0, 0, to], 0);
  bytes.set([2, 0, 0, 0, 0, from], 6);
  return bytes;
}

describe('a listening websocket netdev', () => {
  it('is a switch: unknown and group frames go everywhere, known ones to their port only', async () => {
    const [port] = freePorts(lab, 1) as [number];
    const backend = await lab.open('websocket', { listen: `127.0.0.1:${port}` });
    const stats = backend.stats as WebsocketStats;
    const guest = lab.guest(backend);
    const [a, b, c] = [page(port), page(port), page(port)];
    await lab.until(() => stats.clients === 3 && [a, b, c].every(isOpen));
    a.socket.send(between(1, 255, 1));
    await lab.until(() => b.received.length === 1 && c.received.length === 1 && guest.received.length === 1);
    b.socket.send(between(2, 1, 2));
    await lab.until(() => a.received.length === 1);
    a.socket.send(between(1, 2, 3));
    await lab.until(() => b.received.length === 2);
    guest.send(between(9, 1, 4));
    await lab.until(() => a.received.length === 2);
    a.socket.send(between(1, 9, 5));
    await lab.until(() => guest.received.length === 2);
    guest.send(between(9, 77, 6));
    await lab.until(() => [a, b, c].every(({ received }) => tags(received).includes(6)));
    expect(tags(a.received)).toEqual([2, 4, 6]);
    expect(tags(b.received)).toEqual([1, 3, 6]);
    expect(tags(c.received)).toEqual([1, 6]);
    expect(tags(guest.received)).toEqual([1, 5]);
    expect(backend.describe()).toBe(`listen=127.0.0.1:${port},clients=3`);
    // The address of a client that left is looked for everywhere again.
    b.socket.close();
    await lab.until(() => backend.describe().endsWith('clients=2'));
    a.socket.send(between(1, 2, 7));
    await lab.until(() => tags(c.received).includes(7) && tags(guest.received).includes(7));
    for (const { socket } of [a, c]) socket.terminate();
    await lab.until(() => backend.describe().endsWith('clients=0'));
  });

  it('turns away other origins and too many clients, and serves nothing but websockets', async () => {
    const [port] = freePorts(lab, 1) as [number];
    const backend = await lab.open('websocket', {
      listen: `127.0.0.1:${port}`,
      origin: ['https://good.example'],
      'max-clients': 1,
    });
    const stats = backend.stats as WebsocketStats;
    const bad = page(port, 'https://evil.example');
    const none = page(port);
    await lab.until(() => bad.failed !== '' && none.failed !== '');
    expect(bad.failed).toBe('Unexpected server response: 403');
    expect(stats.refusedOrigin).toBe(2);
    const good = page(port, 'https://good.example');
    await lab.until(() => isOpen(good));
    const second = page(port, 'https://good.example');
    await lab.until(() => second.failed !== '');
    expect(second.failed).toBe('Unexpected server response: 503');
    expect(stats.refusedFull).toBe(1);
    const answer = await fetch(`http://127.0.0.1:${port}/`, { headers: { connection: 'close' } });
    expect(answer.status).toBe(426);
    await answer.text();
    good.socket.terminate();
    await lab.until(() => good.closed !== 0);
  });

  it('closes a client that sends more than max-payload, and drops text and runts', async () => {
    const [port] = freePorts(lab, 1) as [number];
    const backend = await lab.open('websocket', { listen: `127.0.0.1:${port}`, 'max-payload': 1600 });
    const stats = backend.stats as WebsocketStats;
    const guest = lab.guest(backend);
    const one = page(port);
    await lab.until(() => isOpen(one));
    one.socket.send('hello');
    one.socket.send(new Uint8Array(13));
    one.socket.send(packet(3, 1600));
    one.socket.send(packet(4, 1601));
    await lab.until(() => one.closed !== 0);
    expect(one.closed).toBe(1009);
    expect(stats).toMatchObject({ rxDropText: 1, rxDropShort: 1, closedTooLong: 1, rxFrames: 1 });
    expect(tags(guest.received)).toEqual([3]);
  });

  it('ends a client that does not answer pings', async () => {
    const [port] = freePorts(lab, 1) as [number];
    const backend = await lab.open('websocket', { listen: `127.0.0.1:${port}`, 'ping-ms': 1000 });
    const stats = backend.stats as WebsocketStats;
    const alive = page(port);
    const dead = page(port);
    await lab.until(() => isOpen(alive) && isOpen(dead) && stats.clients === 2);
    dead.socket.pause();
    for (let i = 0; i < 3; i++) {
      await lab.pass(1.01e9);
      for (let turns = 0; turns < 50; turns++) await lab.pass(0);
    }
    expect(stats.closedSilent).toBe(1);
    expect(isOpen(alive)).toBe(true);
    expect(backend.describe()).toContain('clients=1');
    for (const { socket } of [alive, dead]) socket.terminate();
  });

  it('reads no client while the guest takes nothing, and loses nothing', async () => {
    const [port] = freePorts(lab, 1) as [number];
    const backend = await lab.open('websocket', { listen: `127.0.0.1:${port}` });
    const guest = lab.guest(backend);
    guest.room = 0;
    const one = page(port);
    await lab.until(() => isOpen(one));
    for (let i = 0; i < 200; i++) one.socket.send(packet(i, 100));
    for (let turns = 0; turns < 100; turns++) await lab.pass(0);
    expect(guest.received).toEqual([]);
    guest.allow(Number.POSITIVE_INFINITY);
    await lab.until(() => guest.received.length === 200);
    expect(tags(guest.received)).toEqual(Array.from({ length: 200 }, (_, i) => i));
    one.socket.terminate();
    await lab.until(() => one.closed !== 0);
  });

  it('says that its port is busy', async () => {
    const [port] = freePorts(lab, 1) as [number];
    await lab.open('websocket', { listen: `127.0.0.1:${port}` });
    expect(await lab.refusal('websocket', { listen: `127.0.0.1:${port}` })).toBe(
      "can't bind ip=127.0.0.1 to socket: Address already in use",
    );
  });
});

describe('a connecting websocket netdev', () => {
  it('has its link down until it is connected, and connects again with reconnect-ms', async () => {
    const [port] = freePorts(lab, 1) as [number];
    const client = await lab.open('websocket', { url: `ws://127.0.0.1:${port}/`, 'reconnect-ms': 100 });
    expect(client.ports[0]!.linkUp).toBe(false);
    expect(client.describe()).toBe(`url=ws://127.0.0.1:${port}/ (not connected)`);
    const server = await lab.open('websocket', { listen: `127.0.0.1:${port}` });
    await lab.untilLater(() => client.ports[0]!.linkUp);
    lab.forget(server);
    await lab.until(() => !client.ports[0]!.linkUp);
    await lab.open('websocket', { listen: `127.0.0.1:${port}` });
    await lab.untilLater(() => client.ports[0]!.linkUp);
  });
});

describe("a page's websocket netdev", () => {
  /** A socket as a page has it: it cannot pause, and says nothing of pongs. What waits in it is what the test says. */
  const pageSocket = (url: string, waiting: { bytes: number }): ClientSocket => {
    const socket = new WebSocket(url);
    return {
      get binaryType() {
        return socket.binaryType;
      },
      set binaryType(type) {
        socket.binaryType = type as 'arraybuffer';
      },
      get bufferedAmount() {
        return waiting.bytes;
      },
      addEventListener: (type: string, listener: (event: never) => void) =>
        socket.addEventListener(type as 'message', listener as () => void),
      send: (message) => socket.send(message),
      close: () => socket.close(),
    };
  };

  const open = (url: string, waiting = { bytes: 0 }) => {
    const row = websocketClient((to) => pageSocket(to, waiting));
    const config = readNetdev({ type: 'websocket', id: 'page', url, 'reconnect-ms': 100 });
    return row(config as NetdevConfigOf<'websocket'>, lab.context) as Backend;
  };

  it('sends and receives, drops and counts what the guest has no room for, and holds the guest while much waits', async () => {
    const [port] = freePorts(lab, 1) as [number];
    const server = await lab.open('websocket', { listen: `127.0.0.1:${port}` });
    const far = lab.guest(server);
    const waiting = { bytes: 0 };
    const client = lab.adopt(open(`ws://127.0.0.1:${port}/`, waiting));
    const stats = client.stats as WebsocketStats;
    const guest = lab.guest(client);
    await lab.until(() => client.ports[0]!.linkUp && (server.stats as WebsocketStats).clients === 1);
    guest.send(packet(1, 100));
    await lab.until(() => far.received.length === 1);
    guest.room = 0;
    for (let i = 0; i < 300; i++) far.send(packet(i, 100));
    await lab.until(() => stats.rxDropQueueFull === 300 - 256);
    guest.allow(Number.POSITIVE_INFINITY);
    await lab.until(() => guest.received.length === 256);
    expect(tags(guest.received)).toEqual(Array.from({ length: 256 }, (_, i) => i));

    waiting.bytes = 5 << 20;
    expect(guest.send(packet(2, 100), packet(3, 100))).toBe(1);
    await lab.pass(5e6);
    expect(guest.waiting).toHaveLength(1);
    waiting.bytes = 0;
    await lab.pass(5e6);
    await lab.until(() => far.received.length === 3);
    expect(tags(far.received)).toEqual([1, 2, 3]);
  });

  it('cannot listen, and tells why it cannot connect', () => {
    const row = websocketClient(() => {
      throw new Error('not from a page of https');
    });
    const config = (more: object) =>
      readNetdev({ type: 'websocket', id: 'x', ...more }) as NetdevConfigOf<'websocket'>;
    expect(() => row(config({ listen: ':1' }), lab.context)).toThrow(/can only connect/);
    expect(() => row(config({ url: 'ws://a/' }), lab.context)).toThrow(
      "can't connect to ws://a/: not from a page of https",
    );
  });
});

describe('a table of addresses', () => {
  const mac = (last: number) => Uint8Array.of(2, 0, 0, 0, last >> 8, last & 255);

  it('follows an address that moves, forgets with time, and with its port', () => {
    const clock = new VirtualClock();
    const table = new MacTable<{ name: string }>(clock);
    const [a, b] = [{ name: 'a' }, { name: 'b' }];
    table.learn(mac(1), 0, a);
    table.learn(mac(2), 0, b);
    expect(table.find(mac(1), 0)).toBe(a);
    table.learn(mac(1), 0, b);
    expect(table.find(mac(1), 0)).toBe(b);
    expect(table.find(mac(3), 0)).toBe(null);
    table.learn(Uint8Array.of(1, 0, 0, 0, 0, 0), 0, a);
    expect(table.find(Uint8Array.of(1, 0, 0, 0, 0, 0), 0)).toBe(null);
    clock.setNs(301e9);
    expect(table.find(mac(1), 0)).toBe(null);
    table.learn(mac(1), 0, a);
    table.forget(a);
    expect(table.find(mac(1), 0)).toBe(null);
    table.forget(b);
    expect(table.size).toBe(0);
  });

  it('lets a port that floods addresses push out only its own', () => {
    const clock = new VirtualClock();
    const table = new MacTable<{ name: string }>(clock);
    const [good, bad] = [{ name: 'good' }, { name: 'bad' }];
    table.learn(mac(1), 0, good);
    for (let i = 2; i < 10_000; i++) {
      clock.setNs(i);
      table.learn(mac(i), 0, bad);
    }
    expect(table.find(mac(1), 0)).toBe(good);
    expect(table.find(mac(9999), 0)).toBe(bad);
    expect(table.find(mac(2), 0)).toBe(null);
    expect(table.size).toBe(65);
  });
});
