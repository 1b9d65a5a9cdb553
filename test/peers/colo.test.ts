/**
 * COLO's network half beside QEMU 11.1's: the same frames to both colo-compare objects and both filter-rewriters, and the lines that QEMU's users
 * write for a secondary with QEMU's filters at one end and netemu's at the other.
 */

import { type ChildProcess, spawn } from 'node:child_process';
import { createSocket, type Socket as UdpSocket } from 'node:dgram';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { packet } from '../lib/context.ts';
import { asIpv6, CLIENT, readTcp, SERVER, type Segment, tcpFrame, udpFrame } from '../lib/tcp-frame.ts';
import { forkyCommand } from './lib/forky.ts';
import { RunningNetemu } from './lib/netemu.ts';
import { prepare } from './lib/prepare.ts';
import { Qmp } from './lib/qmp.ts';

const FIN = 1;
const SYN = 2;
const ACK = 16;
const HEADER_BYTES = 12;

let folder: string;

beforeAll(async () => {
  await prepare(['qemu-11.1']);
  folder = mkdtempSync(join(tmpdir(), 'netemu-colo-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

interface Running {
  readonly qmp: Qmp;
  end(): Promise<void>;
}

/** A process with these options, which both programs know, and is ready when its monitor answers. */
async function start(program: 'qemu' | 'netemu', options: readonly string[]): Promise<Running> {
  if (program === 'netemu') {
    const socket = join(folder, 'monitor');
    const netemu = new RunningNetemu([
      ...options,
      '--guest',
      'none',
      '--qmp',
      `unix:${socket},server=on,wait=off`,
    ]);
    const qmp = await Qmp.connect(socket);
    return {
      qmp,
      end: async () => void (await netemu.stop()),
    };
  }
  const machine = ['-accel', 'tcg', '-machine', 'none', '-nodefaults', '-display', 'none', '-qmp', 'stdio'];
  const { program: command, args } = forkyCommand('qemu-system-x86_64', [...machine, ...options]);
  const child: ChildProcess = spawn(command, args, { stdio: ['pipe', 'pipe', 'inherit'] });
  const qmp = await new Qmp(child.stdout!, child.stdin!).negotiate();
  return {
    qmp,
    async end() {
      child.kill('SIGKILL');
      await once(child, 'close');
    },
  };
}

/** A chardev's other end: frames (or messages) behind their length, with an empty virtio_net_hdr if asked for. */
class Stream {
  readonly #socket: Socket;
  /** Of the header in front of each frame; undefined: the stream knows of none. */
  readonly #headerBytes: number | undefined;
  #bytes = Buffer.alloc(0);
  #wake: (() => void) | null = null;

  constructor(socket: Socket, headerBytes: number | undefined) {
    this.#socket = socket;
    this.#headerBytes = headerBytes;
    socket.on('data', (chunk) => {
      this.#bytes = Buffer.concat([this.#bytes, chunk]);
      this.#wake?.();
    });
    socket.on('error', () => {});
  }

  static async to(name: string, headerBytes?: number): Promise<Stream> {
    const socket = connect(join(folder, name));
    await once(socket, 'connect');
    return new Stream(socket, headerBytes);
  }

  send(...frames: Uint8Array[]): void {
    const header = this.#headerBytes;
    for (const frame of frames) {
      const front = Buffer.alloc(header === undefined ? 4 : 8 + header);
      front.writeUInt32BE(frame.length + (header ?? 0));
      if (header !== undefined) front.writeUInt32BE(header, 4);
      this.#socket.write(Buffer.concat([front, frame]));
    }
  }

  /** `headerBytes`: null for a stream without. */
  async next(headerBytes: number | null | undefined = this.#headerBytes): Promise<Buffer> {
    const lengths = headerBytes === undefined || headerBytes === null ? 4 : 8;
    for (;;) {
      if (this.#bytes.length >= lengths) {
        const end = lengths + this.#bytes.readUInt32BE();
        if (lengths === 8) expect(this.#bytes.readUInt32BE(4)).toBe(headerBytes);
        if (this.#bytes.length >= end) {
          const frame = this.#bytes.subarray(lengths + (headerBytes ?? 0), end);
          this.#bytes = this.#bytes.subarray(end);
          return frame;
        }
      }
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  get empty(): boolean {
    return this.#bytes.length === 0;
  }

  close(): void {
    this.#socket.destroy();
  }
}

const guest = (segment: Segment): Uint8Array =>
  tcpFrame({ src: SERVER, dst: CLIENT, srcPort: 80, dstPort: 1024, ...segment });
const data = (seq: number, text: string, flags = ACK): Uint8Array =>
  guest({ seq, ack: 10, flags, payload: new Uint8Array(Buffer.from(text)) });
/** What is no IPv4 passes at once: behind it, nothing more comes of what was sent before. */
const MARK = packet(99);

interface Case {
  readonly name: string;
  readonly primary: readonly Uint8Array[];
  readonly secondary: readonly Uint8Array[];
  /** What leaves, in order. */
  readonly out: readonly Uint8Array[];
  /** A checkpoint is wanted; when it is made, this leaves. */
  readonly held?: readonly Uint8Array[];
}

const CASES: readonly Case[] = [
  {
    name: 'equal TCP payload',
    primary: [data(100, 'hello'), data(105, 'world')],
    secondary: [data(100, 'hello'), data(105, 'world')],
    out: [data(100, 'hello'), data(105, 'world')],
  },
  {
    name: 'the same bytes, cut otherwise',
    primary: [data(100, 'hello'), data(105, 'world')],
    secondary: [data(100, 'hel'), data(103, 'loworld')],
    out: [data(100, 'hello'), data(105, 'world')],
  },
  {
    name: 'a handshake',
    primary: [guest({ seq: 99, ack: 10, flags: SYN | ACK }), data(100, 'x')],
    secondary: [guest({ seq: 5000, ack: 10, flags: SYN | ACK }), data(100, 'x')],
    out: [guest({ seq: 99, ack: 10, flags: SYN | ACK }), data(100, 'x')],
  },
  {
    name: 'data and its end',
    primary: [data(100, 'bye', ACK | FIN)],
    secondary: [data(100, 'bye', ACK | FIN)],
    out: [data(100, 'bye', ACK | FIN)],
  },
  {
    name: 'other TCP payload',
    primary: [data(100, 'hello')],
    secondary: [data(100, 'hullo')],
    out: [],
    held: [data(100, 'hello')],
  },
  {
    name: 'UDP that differs in the IP header only',
    primary: [udpFrame(Uint8Array.of(1, 2, 3), 7)],
    secondary: [udpFrame(Uint8Array.of(1, 2, 3), 8)],
    out: [udpFrame(Uint8Array.of(1, 2, 3), 7)],
  },
  {
    name: 'other UDP payload',
    primary: [udpFrame(Uint8Array.of(1, 2, 3), 7)],
    secondary: [udpFrame(Uint8Array.of(1, 2, 4), 7)],
    out: [],
    held: [udpFrame(Uint8Array.of(1, 2, 3), 7)],
  },
  {
    name: 'IPv6, which is not compared unless netemu is asked to',
    primary: [asIpv6(data(100, 'hello')), asIpv6(udpFrame(Uint8Array.of(1, 2, 3), 7))],
    secondary: [asIpv6(data(100, 'hullo')), asIpv6(udpFrame(Uint8Array.of(1, 2, 4), 7))],
    out: [asIpv6(data(100, 'hello')), asIpv6(udpFrame(Uint8Array.of(1, 2, 3), 7))],
  },
  {
    name: 'frames that are not compared',
    primary: [packet(1), packet(2)],
    secondary: [packet(3)],
    out: [packet(1), packet(2)],
  },
];

const chardev = (id: string): string[] => [
  '-chardev',
  `socket,id=${id},path=${join(folder, id)},server=on,wait=off`,
];

describe('colo-compare, QEMU 11.1 and netemu', () => {
  for (const program of ['qemu', 'netemu'] as const) {
    for (const vnetHdr of ['off', 'on'] as const) {
      it(`${program}, vnet_hdr_support=${vnetHdr}`, async () => {
        // QEMU 11.1 dies when a colo-compare with connections goes: it gets a new process for each case.
        const rounds = program === 'qemu' ? CASES.map((one) => [one]) : [CASES];
        for (const cases of rounds) {
          const running = await start(program, [
            ...['p', 's', 'o', 'n'].flatMap(chardev),
            ...['-object', 'iothread,id=io'],
          ]);
          try {
            for (const one of cases) {
              await play(one, running.qmp, vnetHdr === 'on');
              if (program === 'netemu') await running.qmp.run('object-del', { id: 'k' });
            }
          } finally {
            await running.end();
          }
        }
      });
    }
  }

  async function play(
    { name, primary, secondary, out, held }: Case,
    qmp: Qmp,
    vnetHdr: boolean,
  ): Promise<void> {
    await qmp.run('object-add', {
      ...{ 'qom-type': 'colo-compare', id: 'k', iothread: 'io', vnet_hdr_support: vnetHdr },
      ...{ primary_in: 'p', secondary_in: 's', outdev: 'o', notify_dev: 'n' },
    });
    const header = vnetHdr ? HEADER_BYTES : undefined;
    const [p, s, o, n] = await Promise.all([
      Stream.to('p', header),
      Stream.to('s', header),
      Stream.to('o', header),
      // What is told to notify_dev has the form of the other streams; what it tells has not.
      Stream.to('n', vnetHdr ? 0 : undefined),
    ]);
    const told = async (): Promise<string> => (await n.next(null)).toString();
    try {
      // A round trip each, until outdev's connection is served as well: what leaves before that is lost.
      for (let tag = 100; o.empty; tag++) {
        p.send(packet(tag));
        n.send(Buffer.from('COLO_USERSPACE_PROXY_INIT'));
        expect(await told()).toBe('COLO_COMPARE_GET_XEN_INIT');
      }
      p.send(MARK);
      while ((await o.next())[14] !== 99);
      p.send(...primary);
      s.send(...secondary);
      for (const frame of out) expect(await o.next(), name).toEqual(Buffer.from(frame));
      if (held !== undefined) {
        expect(await told(), name).toBe('DO_CHECKPOINT');
        n.send(Buffer.from('COLO_CHECKPOINT'));
        for (const frame of held) expect(await o.next(), name).toEqual(Buffer.from(frame));
      }
      p.send(MARK);
      expect(await o.next(), name).toEqual(Buffer.from(MARK));
    } finally {
      for (const one of [p, s, o, n]) one.close();
    }
  }
});

/** The other end of a dgram netdev. */
class Datagrams {
  readonly #socket: UdpSocket;
  readonly #got: Buffer[] = [];

  constructor(socket: UdpSocket) {
    this.#socket = socket;
    socket.on('message', (message) => this.#got.push(message));
  }

  static async open(): Promise<Datagrams> {
    const socket = createSocket('udp4').bind(0, '127.0.0.1');
    await once(socket, 'listening');
    return new Datagrams(socket);
  }

  get port(): number {
    return this.#socket.address().port;
  }

  send(frame: Uint8Array, port: number): void {
    this.#socket.send(frame, port, '127.0.0.1');
  }

  async next(): Promise<Buffer> {
    while (this.#got.length === 0) await once(this.#socket, 'message');
    return this.#got.shift()!;
  }

  close(): void {
    this.#socket.close();
  }
}

async function freePort(): Promise<number> {
  const socket = await Datagrams.open();
  const { port } = socket;
  socket.close();
  return port;
}

describe('filter-rewriter, QEMU 11.1 and netemu', () => {
  const PRIMARY = 7_000_000;
  const SECONDARY = 9_000_000;
  /** Who sends, and what numbers come out. */
  const STEPS: readonly { from: 'client' | 'guest'; segment: Segment; out: { seq: number; ack: number } }[] =
    [
      { from: 'client', segment: { seq: 500, flags: SYN }, out: { seq: 500, ack: 0 } },
      {
        from: 'guest',
        segment: { seq: SECONDARY, ack: 501, flags: SYN | ACK },
        out: { seq: SECONDARY, ack: 501 },
      },
      {
        from: 'client',
        segment: { seq: 501, ack: PRIMARY + 1, flags: ACK },
        out: { seq: 501, ack: SECONDARY + 1 },
      },
      {
        from: 'client',
        segment: { seq: 501, ack: PRIMARY + 1, flags: ACK, payload: Uint8Array.of(1, 2, 3) },
        out: { seq: 501, ack: SECONDARY + 1 },
      },
      {
        from: 'guest',
        segment: { seq: SECONDARY + 1, ack: 504, flags: ACK, payload: Uint8Array.of(9, 9) },
        out: { seq: PRIMARY + 1, ack: 504 },
      },
      {
        from: 'client',
        segment: { seq: 504, ack: PRIMARY + 3, flags: ACK | FIN },
        out: { seq: 504, ack: SECONDARY + 3 },
      },
      {
        from: 'guest',
        segment: { seq: SECONDARY + 3, ack: 505, flags: ACK | FIN },
        out: { seq: PRIMARY + 3, ack: 505 },
      },
      {
        from: 'client',
        segment: { seq: 505, ack: PRIMARY + 4, flags: ACK },
        out: { seq: 505, ack: SECONDARY + 4 },
      },
    ];

  for (const program of ['qemu', 'netemu'] as const) {
    it(program, async () => {
      const [client, secondary] = [await Datagrams.open(), await Datagrams.open()];
      const [toNetdev, toGuest] = [await freePort(), await freePort()];
      const netdev = (id: string, local: number, remote: number): string[] => [
        '-netdev',
        `dgram,id=${id},local.type=inet,local.host=127.0.0.1,local.port=${local},remote.type=inet,remote.host=127.0.0.1,remote.port=${remote}`,
        '-netdev',
        `hubport,id=h${id},hubid=0,netdev=${id}`,
      ];
      const running = await start(program, [
        ...netdev('n', toNetdev, client.port),
        ...netdev('g', toGuest, secondary.port),
        ...['-object', 'filter-rewriter,id=rew0,netdev=n,queue=all'],
      ]);
      try {
        for (const { from, segment, out } of STEPS) {
          if (from === 'client') client.send(tcpFrame(segment), toNetdev);
          else secondary.send(guest(segment), toGuest);
          const frame = await (from === 'client' ? secondary : client).next();
          // Checksums too.
          expect(readTcp(frame)).toMatchObject(out);
        }
      } finally {
        await running.end();
        client.close();
        secondary.close();
      }
    });
  }
});
