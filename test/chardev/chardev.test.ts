/** Character devices on real sockets and files, under each implementation of host I/O. Nothing sleeps: every wait is for something to happen. */

import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import {
  closeSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Channel, ChannelUser, Chardev, ChardevUser } from '../../src/chardev/index.ts';
import { nodeChardevs } from '../../src/chardev/node.ts';
import type { SocketChardev } from '../../src/chardev/socket.ts';
import { openChardevStream } from '../../src/chardev/stream.ts';
import { parseChardev } from '../../src/config/chardevs.ts';
import { SystemClock, seededRandom } from '../../src/core/clock.ts';
import type { HostIo } from '../../src/host-io/host-io.ts';
import { createHostIo } from '../../src/host-io/index.ts';
import { Monitor } from '../../src/monitor/monitor.ts';
import { Network } from '../../src/network/network.ts';
import { nics } from '../../src/nic/index.ts';

/** Remembers what its channels bring, and lets a test wait for it. */
class Recorder implements ChardevUser {
  readonly channels: Channel[] = [];
  readonly maxChannels: number;
  text = '';
  ended = 0;
  closed = 0;
  /** Bytes it still takes. */
  room = Number.POSITIVE_INFINITY;
  #wake: (() => void) | null = null;

  constructor(maxChannels = 1) {
    this.maxChannels = maxChannels;
  }

  opened(channel: Channel): ChannelUser {
    this.channels.push(channel);
    this.#changed();
    return {
      receive: (bytes, from, to) => {
        const taken = Math.min(this.room, to - from);
        this.room -= taken;
        this.text += new TextDecoder().decode(bytes.subarray(from, from + taken));
        this.#changed();
        return taken;
      },
      writable: () => this.#changed(),
      ended: () => {
        this.ended++;
        this.#changed();
      },
      closed: () => {
        this.closed++;
        this.#changed();
      },
    };
  }

  #changed(): void {
    this.#wake?.();
    this.#wake = null;
  }

  async until(holds: () => boolean): Promise<void> {
    while (!holds()) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }
}

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);

function write(channel: Channel, text: string): number {
  const all = bytes(text);
  return channel.write(all, 0, all.length);
}

/** Reads from a socket until `length` characters are there. */
async function read(socket: Socket, length: number): Promise<string> {
  let text = '';
  while (text.length < length) {
    const chunk = socket.read() as Buffer | null;
    if (chunk === null) await once(socket, 'readable');
    else text += chunk.toString();
  }
  return text;
}

describe.each(['native', 'portable'] as const)('chardevs by %s host I/O', (implementation) => {
  let folder: string;
  let hostIo: HostIo;
  let network: Network;
  let streams: { input: PassThrough; output: PassThrough; interrupt(): void };

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'netemu-chardev-'));
    hostIo = createHostIo({ implementation });
    streams = { input: new PassThrough(), output: new PassThrough(), interrupt() {} };
    network = new Network({
      clock: new SystemClock(() => performance.now()),
      random: seededRandom(1),
      backends: {},
      nics,
      hostIo,
      pool: { smallSlots: 64, largeSlots: 4, bareRecords: 16 },
      chardevs: nodeChardevs(streams),
    });
    hostIo.drive(network.loop);
  });

  afterEach(() => {
    network.close();
    hostIo.shutdown();
    rmSync(folder, { recursive: true });
  });

  const path = (name: string): string => join(folder, name);
  const open = (text: string): Promise<Chardev> => network.chardevs.open(parseChardev(text));
  const server = () => open(`socket,id=c,path=${path('s')},server=on,wait=off`);

  it('a unix server is for this user only, and its file goes with it', async () => {
    const chardev = await server();
    expect(statSync(path('s')).mode & 0o777).toBe(0o600);
    expect(chardev.describe()).toBe(`disconnected:unix:${path('s')},server=on`);
    network.chardevs.remove('c');
    expect(readdirSync(folder)).toEqual([]);
  });

  it('a server serves one client at a time; the next one waits for it to leave', async () => {
    const chardev = await server();
    const user = new Recorder();
    chardev.attach(user);
    expect(() => chardev.attach(user)).toThrow("chardev 'c' is already in use");
    const [first, second] = [connect(path('s')), connect(path('s'))];
    first.write('one');
    second.write('two');
    await user.until(() => user.text === 'one');
    expect(chardev.describe()).toBe(`unix:${path('s')},server=on`);
    expect(write(user.channels[0]!, 'hello')).toBe(5);
    expect(await read(first, 5)).toBe('hello');
    first.end();
    await user.until(() => user.ended === 1);
    user.channels[0]!.close();
    await user.until(() => user.text === 'onetwo');
    expect(user.channels).toHaveLength(2);
    second.destroy();
    await user.until(() => user.ended + user.closed === 2);
  });

  it('a client that comes before there is a user waits unread', async () => {
    const chardev = (await server()) as SocketChardev;
    const client = connect(path('s'));
    client.write('early');
    await chardev.whenConnected();
    const user = new Recorder();
    chardev.attach(user);
    await user.until(() => user.text === 'early');
    client.destroy();
  });

  it('a user that takes less is offered the rest when it resumes', async () => {
    const chardev = await server();
    const user = new Recorder();
    user.room = 3;
    chardev.attach(user);
    const client = connect(path('s'));
    client.write('abcdefgh');
    await user.until(() => user.text === 'abc');
    user.room = 2;
    user.channels[0]!.resume();
    expect(user.text).toBe('abcde');
    user.room = Number.POSITIVE_INFINITY;
    user.channels[0]!.resume();
    expect(user.text).toBe('abcdefgh');
    client.destroy();
  });

  it('a reader that is slow makes the writer wait, and nothing is lost', async () => {
    const chardev = await server();
    const user = new Recorder();
    chardev.attach(user);
    const client = connect(path('s'));
    await user.until(() => user.channels.length === 1);
    const all = new Uint8Array(4 << 20).map((_, i) => i);
    let sent = 0;
    const send = (): void => {
      sent += user.channels[0]!.write(all, sent, all.length);
    };
    send();
    expect(sent).toBeLessThan(all.length);
    let got = 0;
    client.on('data', (chunk) => {
      for (let i = 0; i < chunk.length; i += 997) expect(chunk[i]).toBe((got + i) & 0xff);
      got += chunk.length;
    });
    await user.until(() => {
      if (sent < all.length) send();
      return sent === all.length;
    });
    while (got < all.length) await once(client, 'data');
    expect(got).toBe(all.length);
    client.destroy();
  });

  it('TCP, on a port that the host chooses', async () => {
    const chardev = (await open('socket,id=c,host=127.0.0.1,port=0,server=on,wait=off')) as SocketChardev;
    const user = new Recorder();
    chardev.attach(user);
    const client = connect(chardev.port, '127.0.0.1');
    client.write('hi');
    await user.until(() => user.text === 'hi');
    expect(chardev.describe()).toMatch(/^tcp:127\.0\.0\.1:\d+,server=on <-> 127\.0\.0\.1:\d+$/);
    client.destroy();
  });

  it('says why it cannot listen or connect', async () => {
    // libuv makes "Permission denied" of a folder that is not there.
    await expect(open('socket,id=c,path=/none/such,server=on,wait=off')).rejects.toThrow(
      /^Failed to bind socket to \/none\/such: (No such file or directory|Permission denied)$/,
    );
    await expect(open(`socket,id=c,path=${path('none')}`)).rejects.toThrow(
      `Failed to connect to '${path('none')}': No such file or directory`,
    );
    expect(network.chardevs.all).toEqual([]);
  });

  it('a client connects when its server comes, and again when it was lost', async () => {
    const chardev = await open(`socket,id=c,path=${path('s')},reconnect-ms=5`);
    const user = new Recorder();
    chardev.attach(user);
    const listen = async (): Promise<[Server, Socket]> => {
      const listener = createServer({ pauseOnConnect: false });
      listener.listen(path('s'));
      const [socket] = (await once(listener, 'connection')) as [Socket];
      return [listener, socket];
    };
    const [first, one] = await listen();
    await user.until(() => user.channels.length === 1);
    one.destroy();
    first.close();
    await user.until(() => user.ended + user.closed === 1);
    if (user.closed === 0) user.channels[0]!.close();
    const [second, two] = await listen();
    two.write('again');
    await user.until(() => user.text === 'again');
    expect(chardev.stats.connectFailed).toBeGreaterThan(0);
    two.destroy();
    second.close();
  });

  it('yank cuts a connection that hangs', async () => {
    const chardev = await server();
    const user = new Recorder();
    chardev.attach(user);
    const client = connect(path('s'));
    await user.until(() => user.channels.length === 1);
    chardev.yank!();
    expect(user.closed).toBe(1);
    client.resume();
    await once(client, 'close');
  });

  it('file writes what is written, and reads its input', async () => {
    writeFileSync(path('in'), 'typed');
    const chardev = await open(`file,id=c,path=${path('out')},input-path=${path('in')}`);
    const user = new Recorder();
    chardev.attach(user);
    expect(user.text).toBe('typed');
    write(user.channels[0]!, 'one');
    network.chardevs.get('c')!.detach();
    network.chardevs.remove('c');
    const more = await open(`file,id=c,path=${path('out')},append=on`);
    more.attach(user);
    write(user.channels[1]!, 'two');
    expect(readFileSync(path('out'), 'utf8')).toBe('onetwo');
    await expect(open(`file,id=d,path=${folder}/none/x`)).rejects.toThrow(
      `could not open '${folder}/none/x': No such file or directory`,
    );
  });

  it('stdio is one, and brings what is typed', async () => {
    const chardev = await open('stdio,id=c');
    await expect(open('stdio,id=d')).rejects.toThrow('cannot use stdio by multiple character devices');
    const user = new Recorder();
    chardev.attach(user);
    streams.input.write('info');
    await user.until(() => user.text === 'info');
    write(user.channels[0]!, 'reply');
    expect(String(streams.output.read())).toBe('reply');
    streams.input.end();
    await user.until(() => user.ended === 1);
  });

  it('null swallows and ringbuf keeps the last bytes', async () => {
    const [nothing, ring] = [await open('null,id=n'), await open('ringbuf,id=r,size=8')];
    const user = new Recorder();
    nothing.attach(user);
    ring.attach(user);
    expect(write(user.channels[0]!, 'gone')).toBe(4);
    expect(write(user.channels[1]!, 'abcdefghij')).toBe(10);
    expect(new TextDecoder().decode((ring as unknown as { read(n: number): Uint8Array }).read(100))).toBe(
      'cdefghij',
    );
  });

  if (implementation === 'native') {
    it('pipe speaks on one named pipe, or on two', async () => {
      execFileSync('mkfifo', [path('p.in'), path('p.out')]);
      const chardev = await open(`pipe,id=c,path=${path('p')}`);
      const user = new Recorder();
      chardev.attach(user);
      writeFileSync(path('p.in'), 'into');
      await user.until(() => user.text === 'into');
      write(user.channels[0]!, 'out');
      const fd = openSync(path('p.out'), 'r+');
      const buffer = Buffer.alloc(3);
      (await import('node:fs')).readSync(fd, buffer);
      closeSync(fd);
      expect(buffer.toString()).toBe('out');
    });

    it('as a plain stream: both ways, more than sockets hold, one user after the other', async () => {
      await server();
      const reference = { kind: 'chardev', id: 'c' } as const;
      for (const round of [1, 2]) {
        const stream = openChardevStream(network.chardevs, hostIo, reference);
        expect(() => openChardevStream(network.chardevs, hostIo, reference)).toThrow('already in use');
        const client = connect(path('s'));
        const all = new Uint8Array(3 << 20).map((_, i) => (i * round) & 0xff);
        let sent = 0;
        let got = 0;
        const echoed = once(client, 'connect').then(() => client.pipe(client));
        const buffer = new Uint8Array(65_536);
        while (got < all.length) {
          const taken = hostIo.sendBytes(stream, all, sent, all.length);
          if (taken > 0) sent += taken;
          const read = hostIo.receiveBytes(stream, buffer, 0, buffer.length);
          for (let i = 0; i < read; i++)
            if (buffer[i] !== all[got + i]) throw new Error(`byte ${got + i} differs`);
          if (read > 0) got += read;
          await new Promise((resolve) => setImmediate(resolve));
        }
        await echoed;
        hostIo.close(stream);
        await once(client, 'close');
        while (network.chardevs.get('c')!.busy) await new Promise((resolve) => setImmediate(resolve));
      }
      expect(() => openChardevStream(network.chardevs, hostIo, { kind: 'chardev', id: 'zz' })).toThrow(
        'not found',
      );
    });

    it('pty is a terminal that a program can open', async () => {
      const chardev = await open(`pty,id=c,path=${path('tty')}`);
      const user = new Recorder();
      chardev.attach(user);
      const name = chardev.describe().slice(4);
      expect(name).toMatch(/^\/dev\/pts\/\d+$/);
      const fd = openSync(path('tty'), 'r+');
      writeFileSync(fd, 'typed\n');
      await user.until(() => user.text.includes('typed'));
      closeSync(fd);
    });
  } else {
    it('pipe and pty say that they need the addon', async () => {
      await expect(open(`pipe,id=c,path=${path('p')}`)).rejects.toThrow(
        "chardev type 'pipe' needs the native addon",
      );
    });
  }

  describe('with a monitor', () => {
    let monitor: Monitor;

    beforeEach(async () => {
      monitor = new Monitor({ network, epochMs: 0, version: '0.0.0' });
      monitor.serve(await server(), 'control');
    });
    afterEach(() => monitor.close());

    it('hardening 54: of 1,000 clients 16 are served, the others are closed, and all goes on', async () => {
      const clients: Socket[] = [];
      let refused = 0;
      for (let i = 0; i < 1000; i++) {
        const client = connect(path('s'));
        client.on('error', () => {});
        client.on('close', () => refused++);
        await once(client, 'connect').catch(() => {});
        clients.push(client);
      }
      const chardev = network.chardevs.get('c')!;
      while (chardev.stats.opened + chardev.stats.dropTooManyClients < 1000) {
        await new Promise((resolve) => setImmediate(resolve));
      }
      expect(chardev.stats.opened).toBe(16);
      while (refused < 984) await new Promise((resolve) => setImmediate(resolve));
      const served = clients.find((client) => !client.destroyed)!;
      served.write('{"execute":"qmp_capabilities"}{"execute":"query-status"}');
      let text = '';
      while (!text.includes('"running": true')) {
        const chunk = served.read() as Buffer | null;
        if (chunk === null) await once(served, 'readable');
        else text += chunk.toString();
      }
      for (const client of clients) client.destroy();
    });

    it('several clients at once, pipelined, over what a kernel buffers', async () => {
      const ask = async (): Promise<number> => {
        const client = connect(path('s'));
        client.write(`{"execute":"qmp_capabilities"}${'{"execute":"query-commands"}'.repeat(300)}`);
        client.end();
        let count = 0;
        for await (const chunk of client) count += String(chunk).split('"return"').length - 1;
        return count;
      };
      expect(await Promise.all([ask(), ask(), ask()])).toEqual([301, 301, 301]);
    });

    if (implementation === 'native') {
      it('takes descriptors: getfd, add-fd, closefd', async () => {
        const client = hostIo.unixConnect(path('s'));
        const passed = hostIo.memoryFd('test', 4096);
        const buffer = new Uint8Array(65_536);
        const replies = async (count: number): Promise<string[]> => {
          let text = '';
          for (;;) {
            const got = hostIo.receiveBytes(client, buffer, 0, buffer.length);
            if (got > 0) text += new TextDecoder().decode(buffer.subarray(0, got));
            const lines = text.split('\r\n').filter((line) => line !== '');
            if (lines.length >= count) return lines;
            await new Promise((resolve) => setImmediate(resolve));
          }
        };
        const send = (text: string, ...fds: number[]): void => {
          expect(hostIo.sendWithFds(client, bytes(text), fds)).toBe(text.length);
        };
        await replies(1);
        send('{"execute":"qmp_capabilities"}');
        await replies(1);
        send('{"execute":"getfd","arguments":{"fdname":"x"}}', passed);
        expect(await replies(1)).toEqual(['{"return": {}}']);
        const taken = network.chardevs.fds.take('x')!;
        expect(hostIo.map(taken, 0, 4096)).toHaveLength(4096);
        hostIo.close(taken);
        const log = hostIo.adopt(openSync(path('log'), 'w+'));
        send('{"execute":"add-fd","arguments":{"opaque":"log"}}', log);
        expect(JSON.parse((await replies(1))[0]!)).toEqual({
          return: { 'fdset-id': 0, fd: expect.any(Number) },
        });
        send('{"execute":"query-fdsets"}');
        expect(JSON.parse((await replies(1))[0]!)).toMatchObject({
          return: [{ 'fdset-id': 0, fds: [{ opaque: 'log' }] }],
        });
        const logged = new Recorder();
        (await open('file,id=log,path=/dev/fdset/0')).attach(logged);
        write(logged.channels[0]!, 'kept');
        expect(readFileSync(path('log'), 'utf8')).toBe('kept');
        send('{"execute":"getfd","arguments":{"fdname":"1x"}}', passed);
        expect(JSON.parse((await replies(1))[0]!)).toMatchObject({
          error: { desc: "Parameter 'fdname' expects a name not starting with a digit" },
        });
        send(
          '{"execute":"closefd","arguments":{"fdname":"x"}}{"execute":"remove-fd","arguments":{"fdset-id":0}}',
        );
        expect(await replies(2)).toEqual([
          '{"error": {"class": "GenericError", "desc": "File descriptor named \'x\' not found"}}',
          '{"return": {}}',
        ]);
      });
    }
  });
});
