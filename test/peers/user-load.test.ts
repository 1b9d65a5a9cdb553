/**
 * The user network of a namespace under load: iperf3 with one stream and with many, ten thousand flows of datagrams and ten thousand
 * connections at once, a reader that does not read. (A guest that is gone without a word takes minutes: test/backends/user/tcp.test.ts, in virtual time.)
 */

import { spawn } from 'node:child_process';
import { createSocket, type Socket } from 'node:dgram';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server, type Socket as Stream } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { NetnsShell } from './lib/netns.ts';
import { prepare } from './lib/prepare.ts';
import { freePort, listen } from './lib/servers.ts';

const FLOWS = 10_000;
/** What a QUIC client sends at first (RFC 9000 section 14.1). */
const DATAGRAM_BYTES = 1200;

const folder = mkdtempSync(join(tmpdir(), 'netemu-load-'));
let shell: NetnsShell;

beforeAll(async () => {
  await prepare(['tools', 'network-clients']);
  shell = new NetnsShell([]);
});

afterAll(async () => {
  await shell.close();
  rmSync(folder, { recursive: true });
});

/** A program of Node's for the namespace. */
function program(name: string, text: string): string {
  const path = join(folder, `${name}.cjs`);
  writeFileSync(path, text);
  return `${process.execPath} ${path}`;
}

describe('iperf3', () => {
  let port: number;
  let server: ReturnType<typeof spawn>;
  let said = '';
  let tests = 0;
  beforeAll(async () => {
    port = await freePort();
    server = spawn('iperf3', ['-s', '-B', '127.0.0.1', '-p', `${port}`, '--forceflush'], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    server.stdout!.setEncoding('utf8').on('data', (text: string) => {
      said += text;
    });
  });
  afterAll(async () => {
    const gone = new Promise((resolve) => server.once('close', resolve));
    server.kill();
    await gone;
  });

  interface Sum {
    bytes: number;
    packets: number;
    lost_packets: number;
  }

  /** The server listens anew after each test, and says so; until then it refuses. */
  async function listening(): Promise<void> {
    tests++;
    while (said.split('Server listening').length <= tests) await once(server.stdout!, 'data');
  }

  async function iperf3(options: string): Promise<{ sum: Sum; sum_received: Sum; sum_sent: Sum }> {
    await listening();
    const { output } = await shell.run(`iperf3 -c 10.0.2.2 -p ${port} -J ${options}`);
    const report = JSON.parse(output) as {
      error?: string;
      end: { sum: Sum; sum_received: Sum; sum_sent: Sum };
    };
    expect(report.error).toBeUndefined();
    return report.end;
  }

  it.each([
    ['up, 1 stream', ''],
    ['down, 1 stream', '-R'],
    ['up, 16 streams', '-P 16'],
    ['down, 16 streams', '-P 16 -R'],
  ])('TCP %s: 256 MiB pass', async (_name, options) => {
    const wanted = 256 << 20;
    const { sum_received, sum_sent } = await iperf3(`-n ${wanted} ${options}`);
    expect(sum_sent.bytes).toBeGreaterThanOrEqual(wanted);
    // The receiver's count is taken when the sender says that it has sent; what is then on its way is not in it.
    expect(sum_received.bytes).toBeGreaterThan(wanted / 2);
  });

  it.each([
    ['up, 1 stream', '-b 40M -n 5M'],
    ['down, 1 stream', '-b 40M -n 5M -R'],
    ['up, 16 streams', '-b 3M -n 5M -P 16'],
    ['down, 16 streams', '-b 3M -n 5M -P 16 -R'],
  ])('UDP %s: 5 MB pass', async (_name, options) => {
    const { sum } = await iperf3(`-u -l 1400 ${options}`);
    expect(sum.packets).toBeGreaterThan(3000);
    // A sender that had to wait for a processor catches up in bursts, and those are lost in the kernels' buffers.
    expect(sum.lost_packets).toBeLessThan(sum.packets / 4);
  });
});

describe(`${FLOWS} flows at once`, () => {
  it('UDP, as many QUIC clients: each is answered on its own, twice', async () => {
    const echo: Socket = createSocket('udp4', (message, { address, port }) =>
      echo.send(message, port, address),
    );
    await new Promise<void>((resolve) => echo.bind(0, '127.0.0.1', resolve));
    const command = program(
      'flows',
      `const { createSocket } = require('node:dgram');
      const WINDOW = 64;
      const sockets = [];
      let answered = 0;
      function ask(i, round) {
        const text = ('flow ' + i + ' round ' + round).padEnd(${DATAGRAM_BYTES});
        sockets[i].once('message', (message) => {
          if (message.toString() !== text) throw new Error('flow ' + i + ' got ' + message);
          if (++answered === ${FLOWS}) { answered = 0; if (round === 1) start(2); else { console.log('all'); process.exit(); } }
          else if (i + WINDOW < ${FLOWS}) ask(i + WINDOW, round);
        });
        sockets[i].send(text);
      }
      function start(round) { for (let i = 0; i < WINDOW; i++) ask(i, round); }
      let connected = 0;
      for (let i = 0; i < ${FLOWS}; i++) {
        sockets[i] = createSocket('udp4');
        sockets[i].connect(${echo.address().port}, '10.0.2.2', () => { if (++connected === ${FLOWS}) start(1); });
      }`,
    );
    expect(await shell.run(command)).toEqual({ status: 0, output: 'all\n' });
    echo.close();
  });

  it('TCP: none is lost, all are open together and answer, and each costs netemu less than 16 KiB', async () => {
    // One of its own: the flows before still hold their descriptors.
    const shell = new NetnsShell([]);
    await shell.run(':');
    const residentBytes = (): number =>
      1024 * Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${shell.child.pid}/status`, 'latin1'))![1]);
    const before = residentBytes();
    let resident = 0;
    const open = new Set<Stream>();
    const server = createServer((socket) => {
      open.add(socket);
      socket.on('error', () => {}).on('close', () => open.delete(socket));
      socket.on('data', (data) => {
        // The last one's second word: everybody is there.
        if (data.toString() === 'measure') resident = residentBytes();
        socket.write(`${open.size} ${data}`);
      });
      socket.on('end', () => socket.end());
    });
    const port = await listen(server, '127.0.0.1');
    const command = program(
      'connections',
      `const { connect } = require('node:net');
      // The tap's queue holds 1000 frames: who sends more at once loses them.
      const WINDOW = 64;
      const sockets = [];
      /** Runs work(i, done) for every connection, WINDOW of them at a time, then the rest. */
      function each(work, then) {
        let next = 0, ended = 0;
        const one = () => {
          if (next < ${FLOWS}) work(next++, () => { if (++ended === ${FLOWS}) then(); else one(); });
        };
        for (let i = 0; i < WINDOW; i++) one();
      }
      function say(i, text, answer, done) {
        sockets[i].once('data', (data) => {
          if (!data.toString().endsWith(answer)) throw new Error(i + ' got ' + data);
          done();
        });
        sockets[i].write(text);
      }
      function open(i, done) {
        sockets[i] = connect(${port}, '10.0.2.2', () => say(i, 'hello ' + i, ' hello ' + i, done));
        sockets[i].on('error', (error) => { throw error; });
      }
      each(open, () => {
        say(0, 'measure', '${FLOWS} measure', () => {
          each((i, done) => say(i, 'again ' + i, '${FLOWS} again ' + i, done), () => {
            each((i, done) => sockets[i].once('close', done).end(), () => console.log('all'));
          });
        });
      });`,
    );
    expect(await shell.run(command)).toEqual({ status: 0, output: 'all\n' });
    await shell.close();
    expect((resident - before) / FLOWS).toBeLessThan(16_384);
    console.log(
      `netemu's memory for each of ${FLOWS} connections: ${Math.round((resident - before) / FLOWS)} bytes`,
    );
    server.close();
  });
});

/** What a stream that nobody reads at the other end may have swallowed: the buffers of two kernels, and netemu's window. */
const SWALLOWED_MAX_BYTES = 24 << 20;
const TOTAL_BYTES = 96 << 20;
const PUMP = `const part = Buffer.alloc(1 << 16, 1);
  const queued = new Map();
  function pump(socket, total) {
    queued.set(socket, 0);
    const more = () => {
      while (queued.get(socket) < total) {
        queued.set(socket, queued.get(socket) + part.length);
        if (!socket.write(part)) return;
      }
      socket.end();
    };
    socket.on('drain', more);
    more();
  }
  const swallowed = (socket) => queued.get(socket) - socket.writableLength;`;

describe('a reader who does not read', () => {
  let takes: Server;
  let takesPort: number;
  beforeAll(async () => {
    takes = createServer({ allowHalfOpen: true }, (socket) => {
      let got = 0;
      socket.on('data', (data) => {
        got += data.length;
      });
      socket.on('end', () => socket.end(`${got}`));
    });
    takesPort = await listen(takes, '127.0.0.1');
  });
  afterAll(() => takes.close());

  it('on the host stops the sender in the namespace; others go on; in the end every byte comes', async () => {
    let slow: Stream;
    let got = 0;
    const lazy = createServer({ pauseOnConnect: true, allowHalfOpen: true }, (socket) => {
      slow = socket;
    });
    // A connection here is the word to begin.
    const word = createServer((socket) => {
      socket.end();
      slow.on('data', (data) => {
        got += data.length;
      });
      slow.on('end', () => slow.end(`${got}`));
      slow.resume();
    });
    const [lazyPort, wordPort] = [await listen(lazy, '127.0.0.1'), await listen(word, '127.0.0.1')];
    const command = program(
      'slow-up',
      `const { connect } = require('node:net');
      ${PUMP}
      const slow = connect(${lazyPort}, '10.0.2.2', () => pump(slow, ${TOTAL_BYTES}));
      slow.on('data', (data) => console.log('the slow one got ' + data));
      const other = connect(${takesPort}, '10.0.2.2', () => pump(other, ${TOTAL_BYTES}));
      other.on('data', (data) => {
        console.log('the other got ' + data + ' while the slow one took ' + (swallowed(slow) < ${SWALLOWED_MAX_BYTES} ? 'little' : swallowed(slow)));
        connect(${wordPort}, '10.0.2.2');
      });`,
    );
    expect(await shell.run(command)).toEqual({
      status: 0,
      output: `the other got ${TOTAL_BYTES} while the slow one took little\nthe slow one got ${TOTAL_BYTES}\n`,
    });
    lazy.close();
    word.close();
  });

  it('in the namespace stops the sender on the host, in the same way', async () => {
    let swallowed = 0;
    let slow: Stream;
    const sends = createServer((socket) => {
      slow = socket;
      socket.on('error', () => {});
      const part = Buffer.alloc(1 << 16, 1);
      const more = (): void => {
        while (swallowed < TOTAL_BYTES) {
          swallowed += part.length;
          if (!socket.write(part)) return;
        }
        socket.end();
      };
      socket.on('drain', more);
      more();
    });
    let taken = Number.NaN;
    const word = createServer((socket) => {
      taken = swallowed - slow.writableLength;
      socket.end();
    });
    const [sendsPort, wordPort] = [await listen(sends, '127.0.0.1'), await listen(word, '127.0.0.1')];
    const command = program(
      'slow-down',
      `const { connect } = require('node:net');
      ${PUMP}
      const slow = connect({ port: ${sendsPort}, host: '10.0.2.2' }).pause();
      let got = 0;
      slow.on('end', () => console.log('the slow one got ' + got));
      const other = connect(${takesPort}, '10.0.2.2', () => pump(other, ${TOTAL_BYTES}));
      other.on('data', (data) => {
        console.log('the other got ' + data);
        connect(${wordPort}, '10.0.2.2').resume().on('end', () => slow.on('data', (data) => { got += data.length; }).resume());
      });`,
    );
    expect(await shell.run(command)).toEqual({
      status: 0,
      output: `the other got ${TOTAL_BYTES}\nthe slow one got ${TOTAL_BYTES}\n`,
    });
    expect(taken).toBeLessThan(SWALLOWED_MAX_BYTES);
    sends.close();
    word.close();
  });
});
