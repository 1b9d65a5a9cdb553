/** The user network over real sockets of the host's loopback. Nothing sleeps: each wait is for a condition. */
import { createHash } from 'node:crypto';
import { createSocket, type Socket as UdpSocket } from 'node:dgram';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { UserBackend } from '../../../src/backends/user/index.ts';
import { parseNetdev } from '../../../src/config/netdevs/index.ts';
import { SystemClock, seededRandom } from '../../../src/core/clock.ts';
import { silentLogger } from '../../../src/core/log.ts';
import { Loop } from '../../../src/core/loop.ts';
import {
  CSUM_OFFSET,
  CSUM_START,
  FACT_NEEDS_CSUM,
  FACTS,
  FramePool,
  GSO_SIZE,
  GSO_UDP_L4,
  HEADER_LENGTH,
} from '../../../src/core/pool.ts';
import { ACCEPT_ALL, Port } from '../../../src/core/port.ts';
import { unpackAddress } from '../../../src/host-io/address.ts';
import { ADDRESS_BYTES } from '../../../src/host-io/host-io.ts';
import { createNativeHostIo } from '../../../src/host-io/native.ts';
import { adapt } from '../../../src/nic/offload.ts';
import { pattern, TestUser } from '../../tcp/lib/pair.ts';
import { arpFrame, Guest, udpFrame } from './lib/guest.ts';

class World {
  readonly loop = new Loop(new SystemClock(() => performance.now()));
  readonly pool = new FramePool({ smallSlots: 8192, largeSlots: 256, debug: false });
  readonly hostIo = createNativeHostIo();
  readonly backend: UserBackend;
  readonly guest: Guest;
  readonly servers: (Server | UdpSocket)[] = [];
  readonly sockets = new Set<Socket>();

  constructor(options = '', guest: { accepts?: number; resolvers?: string[] } = {}) {
    this.hostIo.attachPool(this.pool);
    this.hostIo.drive(this.loop);
    const context = {
      pool: this.pool,
      loop: this.loop,
      adapt,
      random: seededRandom(7),
      log: silentLogger,
      hostIo: this.hostIo,
      emit: () => {},
    };
    const config = parseNetdev(`user,id=n0${options}`);
    if (config.type !== 'user') throw new Error('type');
    this.backend = new UserBackend('n0', config, context, { resolvers: () => guest.resolvers ?? [] });
    this.guest = new Guest(context, { accepts: guest.accepts ?? ACCEPT_ALL });
    Port.connect(this.guest.port, this.backend.ports[0]!);
  }

  async until(condition: () => boolean): Promise<void> {
    while (!condition()) await new Promise((resolve) => setImmediate(resolve));
  }

  async serve(onConnection: (socket: Socket) => void): Promise<number> {
    const server = createServer({ allowHalfOpen: true }, (socket) => {
      this.sockets.add(socket);
      socket.on('error', () => {});
      onConnection(socket);
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    this.servers.push(server);
    return (server.address() as AddressInfo).port;
  }

  async close(): Promise<void> {
    this.guest.port.disconnect();
    this.backend.close();
    this.backend.close();
    this.guest.close();
    for (const socket of this.sockets) socket.destroy();
    for (const server of this.servers) await new Promise<void>((resolve) => server.close(() => resolve()));
    expect(this.pool.free).toBe(this.pool.capacity);
    expect(this.backend.tcp.stack.heldSlots).toBe(0);
    const open = this.hostIo.stats().openHandles;
    this.hostIo.shutdown();
    expect(open).toBe(0);
  }
}

let world: World;
const make = (options = '', guest: { accepts?: number; resolvers?: string[] } = {}): World =>
  (world = new World(options, guest));
let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'netemu-user-'));
});
afterEach(async () => {
  await world.close();
  rmSync(dir, { recursive: true, force: true });
});

const sha = (data: Uint8Array): string => createHash('sha256').update(data).digest('hex');

describe('user over real sockets', () => {
  for (const accepts of [ACCEPT_ALL, 0]) {
    it(`carries a large transfer both ways, ${accepts === 0 ? 'MSS-sized frames' : 'GSO frames'}`, async () => {
      const w = make('', { accepts });
      const up = pattern(8 << 20, 1);
      const down = pattern(6 << 20, 2);
      const got = createHash('sha256');
      const port = await w.serve((socket) => {
        socket.on('data', (data) => got.update(data));
        socket.on('end', () => socket.end(down));
      });
      const user = new TestUser(w.pool);
      user.outgoing = up;
      user.closeWhenSent = true;
      w.guest.connect(user, '10.0.2.2', port);
      await w.until(() => user.closedReason !== null);
      expect(user.log).toEqual(['established', 'end', 'closed']);
      expect(got.digest('hex')).toBe(sha(up));
      expect(user.receivedBytes).toBe(down.length);
      expect(sha(user.received)).toBe(sha(down));
      await w.until(() => w.backend.tcp.flows === 0);
    });
  }

  it('a bulk transfer costs at most one call for each 64 KiB of the socket, and one frame', async () => {
    const bytes = 32 << 20;
    const w = make(',mtu=1500');
    const port = await w.serve((socket) => {
      let got = 0;
      socket.on('data', (data) => {
        got += data.length;
      });
      socket.on('end', () => {
        expect(got).toBe(bytes);
        socket.end(pattern(bytes, 2));
      });
    });
    const user = new TestUser(w.pool);
    w.guest.connect(user, '10.0.2.2', port);
    await w.until(() => user.connection !== null);
    const units = bytes / 65_536;
    const calls = (): number => w.hostIo.stats().sendCalls + w.hostIo.stats().receiveCalls;
    const before = { calls: calls(), rx: w.backend.stats.rxFrames, tx: w.backend.stats.txFrames };
    user.send(pattern(bytes, 1), true);
    await w.until(() => user.ended);
    const { rxFrames, txFrames } = w.backend.stats;
    // Both ways together: 64 KiB up and 64 KiB down.
    expect((calls() - before.calls) / units).toBeLessThan(2);
    // Whole GSO frames, and the acknowledgements of bursts.
    expect((txFrames - before.tx) / units).toBeLessThan(3);
    expect((rxFrames - before.rx) / units).toBeLessThan(3);
    expect(user.receivedBytes).toBe(bytes);
    user.connection?.close();
    await w.until(() => w.backend.tcp.flows === 0);
  });

  it('shows a refused port as a reset and a server that resets as a reset', async () => {
    const w = make();
    const port = await w.serve((socket) => socket.resetAndDestroy());
    const reset = new TestUser(w.pool);
    w.guest.connect(reset, '10.0.2.2', port);
    await w.until(() => reset.closedReason !== null);
    expect(reset.closedReason).toBe('reset');
    const closing = await w.serve(() => {});
    await new Promise<void>((resolve) => (w.servers.pop() as Server).close(() => resolve()));
    const refused = new TestUser(w.pool);
    w.guest.connect(refused, '10.0.2.2', closing);
    await w.until(() => refused.closedReason !== null);
    expect(refused.closedReason).toBe('refused');
  });

  it('stops the sender when the guest does not read, and loses nothing', async () => {
    const w = make();
    const data = pattern(16 << 20, 3);
    let written = 0;
    const port = await w.serve((socket) => {
      socket.end(data);
      written = 1;
    });
    const user = new TestUser(w.pool);
    user.appetite = 100_000;
    w.guest.connect(user, '10.0.2.2', port);
    await w.until(() => written === 1 && user.receivedBytes === 100_000);
    for (let i = 0; i < 200; i++) await new Promise((resolve) => setImmediate(resolve));
    expect(w.pool.capacity - w.pool.free).toBeLessThan(200);
    user.feed(Number.POSITIVE_INFINITY);
    user.closeOnEnd = true;
    await w.until(() => user.receivedBytes === data.length && user.ended);
    expect(sha(user.received)).toBe(sha(data));
  });

  it('runs 300 connections at once', async () => {
    const w = make();
    const port = await w.serve((socket) => socket.on('data', (data) => socket.end(data)));
    const users: TestUser[] = [];
    for (let i = 0; i < 300; i++) {
      const user = new TestUser(w.pool);
      user.outgoing = pattern(1000 + i, i);
      user.closeOnEnd = true;
      users.push(user);
      w.guest.connect(user, '10.0.2.2', port);
    }
    await w.until(() => users.every((user) => user.closedReason !== null));
    for (const [i, user] of users.entries()) {
      expect(user.closedReason).toBe('closed');
      expect(user.receivedBytes).toBe(1000 + i);
    }
  });

  it('passes datagrams both ways and tells of a closed port', async () => {
    const w = make();
    const socket = createSocket('udp4');
    socket.bind(0, '127.0.0.1');
    await once(socket, 'listening');
    w.servers.push(socket);
    socket.on('message', (data, from) => socket.send(data, from.port, from.address));
    const port = socket.address().port;
    const sizes = [0, 1, 1000, 1472, 4000];
    for (const size of sizes)
      w.guest.send(udpFrame('10.0.2.15', 5000, '10.0.2.2', port, pattern(size, size)));
    const total = (): number => w.guest.received.reduce((sum, f) => sum + f.length - 34, 0);
    await w.until(() => total() >= 8 * 5 + 6473 - 0 && w.guest.received.length >= 7);
    w.guest.take();
    expect(w.backend.udp.flows).toBe(1);
    w.guest.send(udpFrame('10.0.2.15', 5001, '10.0.2.2', 1, pattern(10, 1)));
    await w.until(() => w.guest.received.length > 0);
    const [error] = w.guest.take();
    expect([error![23], error![34], error![35]]).toEqual([1, 3, 3]);
  });

  it('runs of datagrams go out by UDP_SEGMENT and come back by UDP_GRO, none lost or changed', async () => {
    const w = make();
    const socket = createSocket({ type: 'udp4', recvBufferSize: 1 << 20 });
    socket.bind(0, '127.0.0.1');
    await once(socket, 'listening');
    w.servers.push(socket);
    const got: Buffer[] = [];
    let from: { port: number; address: string } | undefined;
    socket.on('message', (data, source) => {
      got.push(data);
      from = source;
    });
    const data = pattern(48_000, 9);
    const frame = w.pool.from(udpFrame('10.0.2.15', 5000, '10.0.2.2', socket.address().port, data));
    const t = w.pool.table;
    t[frame + FACTS] = FACT_NEEDS_CSUM | (GSO_UDP_L4 << 8);
    t[frame + GSO_SIZE] = 1000;
    t[frame + HEADER_LENGTH] = 42;
    t[frame + CSUM_START] = 34;
    t[frame + CSUM_OFFSET] = 6;
    const calls = w.hostIo.stats().sendCalls;
    w.guest.port.send(Int32Array.of(frame), 0, 1);
    await w.until(() => got.length === 48);
    expect(w.hostIo.stats().sendCalls - calls).toBe(1);
    expect(Buffer.concat(got)).toEqual(Buffer.from(data));
    for (const part of got) socket.send(part, from!.port, from!.address);
    const bytesIn = (): number => w.guest.received.reduce((sum, f) => sum + f.length - 42, 0);
    await w.until(() => bytesIn() === 48_000);
    w.guest.take();
    // A server that sends runs itself: another user network's host I/O, whose equal datagrams leave as one.
    const server = w.hostIo.udpOpen({ local: { address: '127.0.0.1', port: 0 } });
    w.guest.send(udpFrame('10.0.2.15', 5001, '10.0.2.2', w.hostIo.localEndpoint(server).port, pattern(4, 1)));
    const one = Int32Array.of(w.pool.alloc(100));
    const address = new Uint8Array(ADDRESS_BYTES);
    await w.until(() => w.hostIo.receiveDatagrams(server, one, 0, 1, 0, address) === 1);
    const out = Int32Array.from(got.slice(0, 40), (part) => w.pool.from(part));
    expect(w.hostIo.sendDatagrams(server, out, 0, 40, unpackAddress(address, 0) ?? undefined)).toBe(40);
    w.pool.releaseAll(one, 0, 1);
    w.pool.releaseAll(out, 0, 40);
    await w.until(() => w.guest.received.length > 0);
    const [run] = w.guest.take();
    expect(run!.subarray(42)).toEqual(data.subarray(0, 40_000));
    expect(w.backend.stats.udpRunsIn).toBe(1);
    w.hostIo.close(server);
  });

  it('relays DNS over UDP and TCP to the resolver', async () => {
    // The resolver's port is 53: a real one is needed, so this test only shows who is asked when there is none.
    const w = make('', { resolvers: [] });
    w.guest.send(udpFrame('10.0.2.15', 5353, '10.0.2.3', 53, pattern(40, 1)));
    await w.until(() => w.guest.received.length > 0);
    expect(w.backend.stats.dnsDropNoResolver).toBe(1);
    const user = new TestUser(w.pool);
    w.guest.connect(user, '10.0.2.3', 53);
    await w.until(() => user.closedReason !== null);
    expect(user.closedReason).toBe('refused');
  });

  it('forwards TCP, UDP and unix sockets to the guest, which sees the gateway', async () => {
    const w = make(`,hostfwd=tcp:127.0.0.1:0-:80,hostfwd=udp:127.0.0.1:0-:69,hostfwd=unix:${dir}/s-:81`);
    const seen: string[] = [];
    w.guest.accept = (c) => {
      seen.push([...c.link.subarray(30, 34)].join('.'));
      const user = new TestUser(w.pool);
      user.outgoing = pattern(5000, c.localPort);
      user.closeWhenSent = true;
      return user;
    };
    const list = w.backend.forwards.list();
    expect(list.map((f) => f.protocol)).toEqual(['tcp', 'udp', 'unix']);
    expect(list[0]!.port).toBeGreaterThan(0);
    const fetch = async (socket: Socket): Promise<Buffer> => {
      const chunks: Buffer[] = [];
      for await (const chunk of socket) chunks.push(chunk as Buffer);
      return Buffer.concat(chunks);
    };
    expect(sha(await fetch(connect(list[0]!.port, '127.0.0.1')))).toBe(sha(pattern(5000, 80)));
    expect(sha(await fetch(connect(`${dir}/s`)))).toBe(sha(pattern(5000, 81)));
    expect(seen).toEqual(['10.0.2.2', '10.0.2.2']);
    const socket = createSocket('udp4');
    w.servers.push(socket);
    const message = once(socket, 'message');
    socket.send('hello', list[1]!.port, '127.0.0.1');
    const udp = (): Uint8Array | undefined => w.guest.received.find((f) => f[23] === 17);
    w.guest.send(arpFrame(1, '10.0.2.15', '10.0.2.2'));
    await w.until(() => udp() !== undefined);
    const f = udp()!;
    expect([...f.subarray(26, 30)]).toEqual([10, 0, 2, 2]);
    expect(new TextDecoder().decode(f.subarray(42))).toBe('hello');
    w.guest.send(
      udpFrame('10.0.2.15', 69, '10.0.2.2', (f[34]! << 8) | f[35]!, new TextEncoder().encode('back')),
    );
    expect(String((await message)[0])).toBe('back');
    expect(w.backend.forwards.remove((rule) => rule.proto === 'tcp')).toBe(true);
    expect(w.backend.forwards.list().length).toBe(2);
  });

  it('resets a forward to a guest that is not there or refuses', async () => {
    const w = make(',hostfwd=tcp:127.0.0.1:0-:80');
    const { port } = w.backend.forwards.list()[0]!;
    const socket = connect(port, '127.0.0.1');
    const [error] = (await once(socket, 'error')) as [NodeJS.ErrnoException];
    expect(error.code).toBe('ECONNRESET');
  });
});
