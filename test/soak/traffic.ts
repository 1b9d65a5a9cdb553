/**
 * What happens to the soak's netemu: each activity is one round of something that users do, again and again until the soak ends. A round that fails throws;
 * bytes that come out otherwise than they went in are a failure, frames lost on the way are not.
 */

import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes, randomInt } from 'node:crypto';
import { createSocket, type Socket as DatagramSocket } from 'node:dgram';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { createServer, request, type Server } from 'node:http';
import { connect } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Iperf, iperfCommand } from '../peers/lib/iperf.ts';
import { Qmp } from '../peers/lib/qmp.ts';
import { listen, sha } from '../peers/lib/servers.ts';
import type { Machine } from './machine.ts';

export type Activity = () => Promise<void>;

const DATA = randomBytes(8 << 20);
const FILE_BYTES = (1 << 20) + 7;
/** In the namespace: datagrams from ever new ports; each answer is the one that was sent, or none. */
const DATAGRAMS = `
const { createSocket } = require('node:dgram');
const { randomBytes } = require('node:crypto');
let answers = 0;
setInterval(() => {
  const socket = createSocket('udp4');
  const sent = new Set();
  socket.on('message', (data) => {
    if (!sent.has(data.toString('latin1'))) { console.log('bad'); process.exit(1); }
    answers++;
  });
  for (let i = 0; i < 20; i++) {
    const data = randomBytes(8 + Math.floor(Math.random() * 1400));
    sent.add(data.toString('latin1'));
    socket.send(data, Number(process.argv[1]), '10.0.2.2');
  }
  setTimeout(() => socket.close(), 1000);
}, 150);
setInterval(() => console.log('answers ' + answers), 1000);
process.stdin.on('end', () => process.exit(0)).resume();
`;

export class Traffic {
  readonly activities: Readonly<Record<string, Activity>>;
  readonly #machine: Machine;
  readonly #http: Server;
  readonly #echo: DatagramSocket;
  #iperf!: Iperf;
  #httpPort = 0;
  #datagrams!: ChildProcess;
  #answers = 0;
  #answersSeen = 0;
  #rounds = 0;

  constructor(machine: Machine) {
    this.#machine = machine;
    // GET /FROM/LENGTH serves a piece of DATA; a POST is answered by its sum.
    this.#http = createServer((asked, response) => {
      if (asked.method === 'GET') {
        const [, from, length] = (asked.url ?? '').split('/').map(Number);
        response.end(DATA.subarray(from, from! + length!));
        return;
      }
      const parts: Buffer[] = [];
      asked.on('data', (part: Buffer) => parts.push(part));
      asked.on('end', () => response.end(sha(Buffer.concat(parts))));
    });
    this.#echo = createSocket('udp4');
    this.#echo.on('message', (data, from) => this.#echo.send(data, from.port, from.address));
    this.activities = {
      download: () => this.#download(),
      upload: () => this.#upload(),
      tftp: () => this.#tftp(),
      iperf: () => this.#runIperf(),
      datagrams: () => this.#checkDatagrams(),
      'echo to virtio-net': () => this.#echoThrough(machine.forwards[0]!),
      'echo to rtl8139': () => this.#echoThrough(machine.forwards[1]!),
      'hang up': () => this.#hangUp(),
      'plug and unplug': () => this.#asClient((qmp) => this.#plug(qmp)),
      filters: () => this.#asClient((qmp) => this.#filters(qmp)),
      'links down and up': () => this.#asClient((qmp) => this.#links(qmp)),
      'monitor clients': () => this.#asClient((qmp) => this.#monitors(qmp)),
      'stream peers': () => this.#peers(),
      metrics: () => this.#metrics(),
    };
  }

  async start(): Promise<void> {
    this.#httpPort = await listen(this.#http, '127.0.0.1');
    this.#iperf = await Iperf.start();
    this.#echo.bind(0, '127.0.0.1');
    await once(this.#echo, 'listening');
    writeFileSync(join(this.#machine.files, 'file'), DATA.subarray(0, FILE_BYTES));
    writeFileSync(join(this.#machine.folder, 'upload'), DATA.subarray(0, 3 << 20));
    const { namespace } = this.#machine;
    const words = [
      'netns',
      'exec',
      namespace,
      process.execPath,
      '-e',
      DATAGRAMS,
      `${this.#echo.address().port}`,
    ];
    this.#datagrams = spawn('ip', words, { stdio: ['pipe', 'pipe', 'inherit'] });
    this.#datagrams.stdout!.setEncoding('utf8').on('data', (text: string) => {
      for (const [, count] of text.matchAll(/answers (\d+)/g)) this.#answers = Number(count);
    });
  }

  async close(): Promise<void> {
    if (this.#datagrams.exitCode === null) {
      const gone = once(this.#datagrams, 'close');
      this.#datagrams.stdin!.end();
      await gone;
    }
    await this.#iperf.close();
    this.#http.closeAllConnections();
    this.#http.close();
    this.#echo.close();
  }

  async #download(): Promise<void> {
    const from = randomInt(DATA.length);
    const length = randomInt(DATA.length - from + 1);
    const url = `http://10.0.2.2:${this.#httpPort}/${from}/${length}`;
    const sum = await this.#machine.inside(['sh', '-c', `curl -sS --fail -m 120 ${url} | sha256sum`]);
    expectSum(`download of ${length} bytes`, sum, sha(DATA.subarray(from, from + length)));
  }

  async #upload(): Promise<void> {
    const path = join(this.#machine.folder, 'upload');
    const url = `http://10.0.2.2:${this.#httpPort}/`;
    const sum = await this.#machine.inside([
      'curl',
      '-sS',
      '--fail',
      '-m',
      '120',
      '--data-binary',
      `@${path}`,
      url,
    ]);
    expectSum('upload', sum, sha(DATA.subarray(0, 3 << 20)));
  }

  async #tftp(): Promise<void> {
    const sum = await this.#machine.inside(['sh', '-c', 'curl -sS -m 120 tftp://10.0.2.2/file | sha256sum']);
    expectSum('TFTP', sum, sha(DATA.subarray(0, FILE_BYTES)));
  }

  async #runIperf(): Promise<void> {
    const options = ['-t 2', '-t 2 -R', '-t 2 -P 4', '-u -b 40M -t 2', '-u -b 40M -t 2 -R'];
    const option = options[this.#rounds++ % options.length]!;
    await this.#machine.inside(['sh', '-c', iperfCommand(await this.#iperf.next(), option)]);
    await sleep(1000);
  }

  async #checkDatagrams(): Promise<void> {
    await sleep(10_000);
    if (this.#datagrams.exitCode !== null) throw new Error('an answer that nobody sent');
    if (this.#answers === this.#answersSeen) throw new Error('no datagram was answered for 10 s');
    this.#answersSeen = this.#answers;
  }

  async #echoThrough(port: number): Promise<void> {
    const from = randomInt(DATA.length - (1 << 19));
    const sent = DATA.subarray(from, from + 1 + randomInt(1 << 19));
    const startMs = performance.now();
    const socket = connect(port, '127.0.0.1');
    const parts: Buffer[] = [];
    let got = 0;
    socket.on('data', (part: Buffer) => {
      parts.push(part);
      got += part.length;
      if (got >= sent.length) socket.end();
    });
    socket.setTimeout(120_000, () =>
      socket.destroy(new Error(`${got} of ${sent.length} bytes came back, then none`)),
    );
    socket.write(sent);
    try {
      await once(socket, 'close');
    } catch (error) {
      const ms = Math.round(performance.now() - startMs);
      throw new Error(
        `after ${ms} ms and ${got} of ${sent.length} bytes, from ${socket.localPort}: ${error}`,
      );
    }
    expectSum(`echo of ${sent.length} bytes`, sha(Buffer.concat(parts)), sha(sent));
    await sleep(20);
  }

  /** Comes, says something, and is gone in the middle. */
  async #hangUp(): Promise<void> {
    const socket = connect(this.#machine.forwards[randomInt(2)]!, '127.0.0.1');
    socket.on('error', () => {});
    socket.write(DATA.subarray(0, randomInt(1 << 18)));
    await sleep(randomInt(30));
    if (randomInt(2) === 0) socket.resetAndDestroy();
    else socket.destroy();
    await sleep(100);
  }

  /** Does something as a client of the monitor that comes for it, and leaves. */
  async #asClient(work: (qmp: Qmp) => Promise<void>): Promise<void> {
    const qmp = await Qmp.connect(this.#machine.qmpPath);
    try {
      await work(qmp);
    } finally {
      qmp.close();
    }
  }

  async #plug(qmp: Qmp): Promise<void> {
    const { sockets } = this.#machine;
    const netdevs = [
      { type: 'user' },
      { type: 'stream', server: true, addr: { type: 'unix', path: join(sockets, 'plugged') } },
      {
        type: 'dgram',
        local: { type: 'unix', path: join(sockets, 'plugged') },
        remote: { type: 'unix', path: join(sockets, 'nobody') },
      },
      { type: 'hubport', hubid: 9 },
    ];
    for (const netdev of netdevs)
      for (const driver of ['e1000', 'rtl8139', 'virtio-net-pci']) {
        await qmp.run('netdev_add', { id: 'plugged', ...netdev });
        await qmp.run('device_add', { id: 'card', driver, netdev: 'plugged' });
        await sleep(randomInt(50));
        await qmp.run('device_del', { id: 'card' });
        await qmp.event('DEVICE_DELETED');
        qmp.events.length = 0;
        await qmp.run('netdev_del', { id: 'plugged' });
        await sleep(50);
      }
  }

  async #filters(qmp: Qmp): Promise<void> {
    const { folder } = this.#machine;
    for (const object of [
      { 'qom-type': 'filter-netem', delay: '2ms', jitter: '1ms' },
      { 'qom-type': 'filter-buffer', interval: 500 },
      { 'qom-type': 'filter-dump', file: join(folder, 'capture'), maxlen: 64 },
    ]) {
      await qmp.run('object-add', { id: 'passing', netdev: 'n1', ...object });
      await sleep(200);
      await qmp.run('object-del', { id: 'passing' });
    }
    await sleep(200);
  }

  async #links(qmp: Qmp): Promise<void> {
    for (const name of ['r0', 'n1', 'e0']) {
      await qmp.run('set_link', { name, up: false });
      await sleep(50);
      await qmp.run('set_link', { name, up: true });
      await sleep(2000);
    }
  }

  async #monitors(qmp: Qmp): Promise<void> {
    const questions = ['query-network', 'query-status', 'query-usernet', 'query-chardev', 'query-qmp-schema'];
    for (let i = randomInt(10); i > 0; i--) await qmp.run(questions[randomInt(questions.length)]!);
    // One more whose answer nobody reads.
    const unread = connect(this.#machine.qmpPath);
    unread.on('error', () => {});
    unread.write('{"execute":"qmp_capabilities"}{"execute":"query-qmp-schema"}');
    await sleep(randomInt(20));
    unread.destroy();
    await sleep(300);
  }

  /** Peers of the stream netdev: some send frames, some nonsense; all leave. */
  async #peers(): Promise<void> {
    const socket = connect(this.#machine.streamPath);
    socket.on('error', () => {});
    socket.resume();
    for (let i = 0; i < 100; i++) {
      const frame = Buffer.alloc(4 + 60 + randomInt(1400));
      frame.writeUInt32BE(frame.length - 4);
      frame.fill(0xff, 4, 10);
      frame.set([0x02, 0, 0, 0, 0, 9, 0x88, 0xb5], 10);
      socket.write(frame);
    }
    await sleep(50);
    if (randomInt(2) === 0) socket.write(randomBytes(100));
    await sleep(randomInt(50));
    socket.destroy();
    await sleep(100);
  }

  async #metrics(): Promise<void> {
    for (const path of ['/metrics', '/network.json', '/']) {
      const asked = request({ socketPath: this.#machine.metricsPath, path, headers: { host: 'localhost' } });
      asked.end();
      const [response] = await once(asked, 'response');
      for await (const _ of response);
      if (response.statusCode !== 200) throw new Error(`${path}: ${response.statusCode}`);
    }
    await sleep(500);
  }
}

function expectSum(what: string, got: string, wanted: string): void {
  if (got.slice(0, 64) !== wanted) throw new Error(`${what}: wrong hash`);
}
