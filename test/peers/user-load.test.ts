/**
 * The user network of a namespace under load: ten thousand connections at once, a reader that does not read. (iperf3 and ten thousand flows of datagrams: user-clients.test.ts. A guest that is gone without a word takes minutes: test/backends/user/tcp.test.ts, in virtual time.)
 */

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server, type Socket as Stream } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { NetnsShell } from './lib/netns.ts';
import { prepare } from './lib/prepare.ts';
import { residentBytes } from './lib/process.ts';
import { listen } from './lib/servers.ts';

const FLOWS = 10_000;

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

describe(`${FLOWS} connections at once`, () => {
  it('none is lost, all are open together and answer, and each costs netemu less than 16 KiB', async () => {
    // One of its own, which has done nothing before.
    const shell = new NetnsShell([]);
    await shell.run(':');
    const pid = shell.child.pid!;
    const before = residentBytes(pid);
    let resident = 0;
    const open = new Set<Stream>();
    const server = createServer((socket) => {
      open.add(socket);
      socket.on('error', () => {}).on('close', () => open.delete(socket));
      socket.on('data', (data) => {
        // The last one's second word: everybody is there.
        if (data.toString() === 'measure') resident = residentBytes(pid);
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
