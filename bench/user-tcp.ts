/**
 * TCP through the user network, up (guest to host) and down, at MTU 1500 and 65520: a guest made of the TCP engine itself, the backend, and the
 * native host I/O, in one process, against a server on the host's loopback in a child process. Beside it, alternating, what a plain
 * `node:net` client reaches to the same server: the limit for a Node program on this machine. Every byte is counted at its end.
 *
 * One JSON line: Gbit/s (medians), ratios, host I/O calls per 64 KiB, heap bytes per frame, CPU seconds of this process per GB.
 * The guest's engine runs in the same thread, so the figure is about half of what the backend alone can do.
 */
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { connect, createServer } from 'node:net';
import { fileURLToPath } from 'node:url';
import { UserBackend } from '../src/backends/user/index.ts';
import { parseNetdev } from '../src/config/netdevs/index.ts';
import { SystemClock, seededRandom } from '../src/core/clock.ts';
import { silentLogger } from '../src/core/log.ts';
import { Loop } from '../src/core/loop.ts';
import { FramePool, OFFSET, TOTAL } from '../src/core/pool.ts';
import { ACCEPT_ALL, Port } from '../src/core/port.ts';
import { createNativeHostIo } from '../src/host-io/native.ts';
import { adapt } from '../src/nic/offload.ts';
import type { Connection, TcpUser } from '../src/tcp/connection.ts';
import { HEADER_ROOM } from '../src/tcp/stack.ts';
import { Guest } from '../test/backends/user/lib/guest.ts';
import { median, report, runtimeFacts } from './lib/report.ts';

const BYTES = 256 << 20;
const ROUNDS = 5;
const UP = 0;
const DOWN = 1;

function serve(): void {
  const chunk = Buffer.alloc(1 << 18, 0x5a);
  const sink = createServer((socket) => {
    let count = 0;
    socket.on('error', () => {});
    socket.on('data', (data) => {
      count += data.length;
      if (count === BYTES) socket.end('done');
    });
  });
  const source = createServer((socket) => {
    let left = BYTES;
    socket.on('error', () => {});
    const pump = (): void => {
      while (left > 0) {
        const part = Math.min(left, chunk.length);
        left -= part;
        if (!socket.write(part === chunk.length ? chunk : chunk.subarray(0, part))) return;
      }
      socket.end();
    };
    socket.on('drain', pump);
    pump();
  });
  sink.listen(0, '127.0.0.1', () => {
    source.listen(0, '127.0.0.1', () => {
      const port = (server: typeof sink): number => (server.address() as { port: number }).port;
      process.send!([port(sink), port(source)]);
    });
  });
}

async function plain(port: number, direction: number): Promise<number> {
  const started = performance.now();
  const socket = connect(port, '127.0.0.1');
  let got = 0;
  if (direction === UP) {
    const chunk = Buffer.alloc(1 << 16, 0x5a);
    let left = BYTES;
    const pump = (): void => {
      while (left > 0) {
        left -= chunk.length;
        if (!socket.write(chunk)) return;
      }
    };
    socket.on('drain', pump);
    socket.on('data', () => {});
    pump();
    await once(socket, 'end');
  } else {
    socket.on('data', (data) => {
      got += data.length;
    });
    await once(socket, 'end');
    if (got !== BYTES) throw new Error(`${got} bytes of ${BYTES}`);
  }
  return (BYTES * 8) / (performance.now() - started) / 1e6;
}

/** Sends BYTES from fresh frames, or counts what comes. */
class BenchUser implements TcpUser {
  left: number;
  got = 0;
  readonly finished: Promise<void>;
  readonly #direction: number;
  #finish: () => void = () => {};
  readonly #pool: FramePool;

  constructor(pool: FramePool, direction: number) {
    this.#pool = pool;
    this.#direction = direction;
    this.finished = new Promise((resolve) => {
      this.#finish = resolve;
    });
    this.left = direction === UP ? BYTES : 0;
  }

  established(): void {}

  deliver(_c: Connection, frames: Int32Array, from: number, to: number, skip: number): number {
    const { table, bytes } = this.#pool;
    let taken = -skip;
    for (let i = from; i < to; i++) {
      taken += table[frames[i]! + TOTAL]!;
      this.got += bytes[table[frames[i]! + OFFSET]!]! & 0;
    }
    this.got += taken;
    // The answer of the server that everything was sent to.
    if (this.#direction === UP && this.left === 0 && this.got === 'done'.length) this.#finish();
    return taken;
  }

  sendReady(c: Connection): void {
    const { table } = this.#pool;
    while (this.left > 0) {
      const room = c.sendRoom();
      const unit = c.unitBytes;
      const part = Math.min(this.left, unit, room);
      if (part <= 0) return;
      const frame = this.#pool.alloc(HEADER_ROOM + part);
      if (frame === 0) {
        c.sender.starved = true;
        c.retryLater();
        return;
      }
      table[frame + OFFSET] = table[frame + OFFSET]! + HEADER_ROOM;
      this.#pool.setLength(frame, part);
      this.left -= part;
      c.send(frame);
    }
  }

  peerClosed(c: Connection): void {
    c.close();
  }

  closed(): void {
    this.#finish();
  }
}

interface Figures {
  gbps: number;
  calls: number;
  heap: number;
  cpu: number;
}

async function through(mtu: number, port: number, direction: number): Promise<Figures> {
  const loop = new Loop(new SystemClock(() => performance.now()));
  const pool = new FramePool();
  const hostIo = createNativeHostIo();
  hostIo.attachPool(pool);
  hostIo.drive(loop);
  const random = seededRandom(1);
  const context = { pool, loop, adapt, random, log: silentLogger, hostIo, emit: () => {} };
  const config = parseNetdev(`user,id=n0,mtu=${mtu}`);
  if (config.type !== 'user') throw new Error('not user');
  const backend = new UserBackend('n0', config, context, { resolvers: () => [] });
  const guest = new Guest(context, { accepts: ACCEPT_ALL, settings: { ipMtuBytes: mtu } });
  Port.connect(guest.port, backend.ports[0]!);
  const user = new BenchUser(pool, direction);
  const before = hostIo.stats();
  const heap = process.memoryUsage().heapUsed;
  const cpu = process.cpuUsage();
  const started = performance.now();
  const c = guest.connect(user, '10.0.2.2', port);
  // Nothing but the backend and its guest runs meanwhile: what the heap grows by is theirs.
  await user.finished;
  const ms = performance.now() - started;
  const used = process.cpuUsage(cpu);
  const after = hostIo.stats();
  const heapAfter = process.memoryUsage().heapUsed;
  if (direction === DOWN && user.got !== BYTES) throw new Error(`${user.got} bytes of ${BYTES}`);
  void c;
  const frames = backend.stats.rxFrames + backend.stats.txFrames;
  guest.port.disconnect();
  backend.close();
  guest.close();
  hostIo.shutdown();
  return {
    gbps: (BYTES * 8) / ms / 1e6,
    calls: ((after.receiveCalls + after.sendCalls - before.receiveCalls - before.sendCalls) * 65536) / BYTES,
    heap: Math.max(0, heapAfter - heap) / frames,
    cpu: (used.user + used.system) / 1e6 / (BYTES / 1e9),
  };
}

if (process.argv[2] === 'serve') serve();
else {
  const child = fork(fileURLToPath(import.meta.url), ['serve']);
  const [[sink, source]] = (await once(child, 'message')) as [[number, number]];
  const figures: Record<string, unknown> = {};
  for (const direction of [UP, DOWN]) {
    const port = direction === UP ? sink : source;
    const name = direction === UP ? 'up' : 'down';
    for (const mtu of [1500, 65520]) {
      const limit: number[] = [];
      const runs: Figures[] = [];
      for (let i = 0; i < ROUNDS; i++) {
        limit.push(await plain(port, direction));
        runs.push(await through(mtu, port, direction));
      }
      const of = (pick: (f: Figures) => number): number => median(runs.map(pick));
      figures[`${name}_${mtu}`] = {
        gbps: of((f) => f.gbps),
        netGbps: median(limit),
        ratio: of((f) => f.gbps) / median(limit),
        callsPer64k: of((f) => f.calls),
        heapBytesPerFrame: of((f) => f.heap),
        cpuSecondsPerGB: of((f) => f.cpu),
      };
    }
  }
  child.kill();
  report({ bench: 'user-tcp', ...runtimeFacts(), bytes: BYTES, rounds: ROUNDS, ...figures });
}
