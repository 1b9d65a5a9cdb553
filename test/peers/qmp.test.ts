/**
 * The monitor with clients and servers that are not ours: QEMU 11.1's own monitor answers the same requests (fixtures/qmp), the qemu.qmp library
 * and qmp-shell drive a running netemu through everything, QEMU sits at the other end of the chardevs of filters, and a Linux guest sees
 * what set_link does.
 */

import { type ChildProcess, spawn } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { connect as connectTcp, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { capture } from './lib/command.ts';
import { forkyCommand } from './lib/forky.ts';
import { runGuest } from './lib/guest.ts';
import { RunningNetemu } from './lib/netemu.ts';
import { prepare } from './lib/prepare.ts';
import { openDescriptors, residentBytes } from './lib/process.ts';
import { Qmp } from './lib/qmp.ts';
import { Schema, type SchemaEntry, schemaDifferences } from './lib/qmp-schema.ts';

const FIXTURES = new URL('../../fixtures/qmp/', import.meta.url);
/** Of commands that need the host. */
const PROCESS_FIXTURES = new URL('../../fixtures/qmp-process/', import.meta.url);

let folder: string;

beforeAll(async () => {
  await prepare(['qemu-11.1', 'qmp']);
  folder = mkdtempSync(join(tmpdir(), 'netemu-qmp-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const path = (name: string): string => join(folder, name);

/** QEMU 11.1 without a disk or a display; its monitor is on its standard streams. */
function startQemu(...args: string[]): { child: ChildProcess; qmp: Promise<Qmp> } {
  const machine = [
    '-accel',
    'tcg',
    '-machine',
    'pc',
    '-m',
    '64',
    '-nodefaults',
    '-nic',
    'none',
    '-display',
    'none',
  ];
  const { program, args: words } = forkyCommand('qemu-system-x86_64', [...machine, '-qmp', 'stdio', ...args]);
  const child = spawn(program, words, { stdio: ['pipe', 'pipe', 'ignore'] });
  return { child, qmp: new Qmp(child.stdout!, child.stdin!).negotiate() };
}

/** A netemu with a QMP socket of its own. */
async function startNetemu(name: string, ...args: string[]): Promise<{ netemu: RunningNetemu; qmp: Qmp }> {
  const socket = path(name);
  const netemu = new RunningNetemu([
    ...args,
    '--guest',
    'none',
    '--qmp',
    `unix:${socket},server=on,wait=off`,
  ]);
  return { netemu, qmp: await Qmp.connect(socket) };
}

async function udpPort(): Promise<number> {
  const socket = createSocket('udp4').bind(0, '127.0.0.1');
  await once(socket, 'listening');
  const { port } = socket.address();
  await new Promise<void>((resolve) => socket.close(() => resolve()));
  return port;
}

describe('QEMU 11.1 answers as fixtures/qmp say', () => {
  interface Step {
    readonly send: unknown;
    readonly reply: object;
    /** What QEMU answers where netemu differs on purpose, and why. */
    readonly qemu?: object;
    readonly why?: string;
  }

  const conversation = async (folder: URL, file: string, qmp: Qmp, whose: 'netemu' | 'qemu') => {
    const { steps } = JSON.parse(readFileSync(new URL(file, folder), 'utf8')) as { steps: Step[] };
    for (const { send, reply, qemu, why } of steps) {
      const wanted = whose === 'qemu' ? (qemu ?? reply) : reply;
      expect(await qmp.ask(send), JSON.stringify(send)).toEqual(wanted);
      expect(why === undefined).toBe(qemu === undefined);
    }
  };

  for (const folder of [FIXTURES, PROCESS_FIXTURES]) {
    for (const file of readdirSync(folder).sort()) {
      it(file, async () => {
        const { child, qmp } = startQemu('-name', 'test');
        try {
          await conversation(folder, file, await qmp, 'qemu');
        } finally {
          child.kill('SIGKILL');
        }
      });
    }
  }

  for (const file of readdirSync(PROCESS_FIXTURES).sort()) {
    it(`${file}, and netemu in a process of its own`, async () => {
      const { netemu, qmp } = await startNetemu('fixtures');
      try {
        await conversation(PROCESS_FIXTURES, file, qmp, 'netemu');
      } finally {
        await netemu.stop();
      }
    });
  }
});

it('query-qmp-schema says of commands and events what QEMU 11.1 does, but for what fixtures/qmp-schema explains', async () => {
  const known = JSON.parse(
    readFileSync(new URL('../../fixtures/qmp-schema/differences.json', import.meta.url), 'utf8'),
  ) as { onlyNetemu: string[]; differences: { difference: string; why: string }[] };
  const { child, qmp } = startQemu();
  const { netemu, qmp: own } = await startNetemu('schema');
  try {
    const theirs = new Schema((await (await qmp).run('query-qmp-schema')) as SchemaEntry[]);
    const ours = new Schema((await own.run('query-qmp-schema')) as SchemaEntry[]);
    expect(ours.top.filter((name) => !theirs.entries.has(name)).sort()).toEqual([...known.onlyNetemu].sort());
    const shared = ours.top.filter((name) => theirs.entries.has(name));
    expect(shared.length).toBeGreaterThan(50);
    expect(shared.flatMap((name) => schemaDifferences(ours, theirs, name))).toEqual(
      known.differences.map(({ difference }) => difference),
    );
    // Every type that is referred to is there, and each name once.
    const text = (await own.run('query-qmp-schema')) as SchemaEntry[];
    expect(new Set(text.map(({ name }) => name)).size).toBe(text.length);
  } finally {
    child.kill('SIGKILL');
    await netemu.stop();
  }
});

/** Drives the netemu at argv[1] and prints a line for each thing that was seen. */
const LIBRARY = `
import asyncio, sys
from qemu.qmp import QMPClient, EventListener, ExecuteError

async def main():
    qmp = QMPClient('netemu')
    await qmp.connect(sys.argv[1])
    seen = []
    with qmp.listener() as listener:
        async def run(command, **arguments):
            arguments = {key.replace('__', '-'): value for key, value in arguments.items()}
            return await qmp.execute(command, arguments)
        async def fails(command, **arguments):
            try:
                await run(command, **arguments)
            except ExecuteError as error:
                print(error.error_class + ': ' + str(error))
        print((await run('query-status'))['status'])
        await run('netdev_add', type='user', id='n1')
        await run('device_add', driver='e1000', id='e1', netdev='n1')
        await run('object-add', qom__type='filter-netem', id='f1', netdev='n1', delay='5ms')
        forward = await run('hostfwd-add', netdev='n1', rule='tcp:127.0.0.1:0-:22')
        print('forward', forward['port'] > 0)
        filters = await run('query-rx-filter', name='e1')
        print(filters[0]['main-mac'], filters[0]['vlan'])
        await run('set_link', name='e1', up=False)
        network = await run('query-network')
        print('link', network['nics'][0]['queues'][0]['link-up'])
        await run('set_link', name='e1', up=True)
        network = await run('query-network')
        print('link', network['nics'][0]['queues'][0]['link-up'], network['netdevs'][0]['filters'][0]['id'])
        await run('qom-set', path='/objects/f1', property='delay', value='7ms')
        print(await run('qom-get', path='/objects/f1', property='delay'))
        await run('stop')
        await run('cont')
        await run('system_reset')
        await run('hostfwd-remove', netdev='n1', rule='tcp:127.0.0.1:0')
        await run('object-del', id='f1')
        await run('device_del', id='e1')
        await run('netdev_del', id='n1')
        await fails('netdev_del', id='n1')
        await fails('query-rx-filter', name='e1')
        await fails('no-such-command')
        print(await run('human-monitor-command', command__line='info network') == '')
        names = {entry['name'] for entry in await run('query-qmp-schema')}
        print('schema', 'netdev_add' in names and 'NIC_RX_FILTER_CHANGED' in names)
        await run('quit')
        while True:
            event = await listener.get()
            seen.append(event['event'])
            if event['event'] == 'SHUTDOWN':
                break
    print(' '.join(seen))
    try:
        await qmp.disconnect()
    except EOFError:
        pass  # The other end has quit, as it was told to.

asyncio.run(main())
`;

/** Has the qemu.qmp library set the link of argv[2] at the monitor argv[1]. */
const SET_LINK = `
import asyncio, sys
from qemu.qmp import QMPClient

async def main():
    qmp = QMPClient('netemu')
    await qmp.connect(sys.argv[1])
    await qmp.execute('set_link', {'name': sys.argv[2], 'up': sys.argv[3] == 'on'})
    await qmp.disconnect()

asyncio.run(main())
`;

async function python(script: string, ...args: string[]) {
  const { program, args: words } = forkyCommand('/usr/bin/python3', ['-c', script, ...args]);
  return await capture(program, words);
}

describe('clients that are not ours', () => {
  it('the qemu.qmp library drives netemu through all of it; events come in order, once', async () => {
    const socket = path('library');
    const netemu = new RunningNetemu(['--guest', 'none', '--qmp', `unix:${socket},server=on,wait=on`]);
    await netemu.until(/waiting for connection on: disconnected:unix:/);
    const { stdout, stderr } = await python(LIBRARY, socket);
    expect(stderr).toBe('');
    expect(stdout.trimEnd().split('\n')).toEqual([
      'running',
      'forward True',
      '52:54:00:12:34:56 all',
      'link False',
      'link True f1',
      '7ms',
      "DeviceNotFound: Device 'n1' not found",
      'GenericError: invalid net client name: e1',
      'CommandNotFound: The command no-such-command has not been found',
      'True',
      'schema True',
      'STOP RESUME NIC_RX_FILTER_CHANGED RESET DEVICE_DELETED SHUTDOWN',
    ]);
    expect((await netemu.finished).status).toBe(0);
  });

  it('qmp-shell does, and its HMP mode', async () => {
    const { netemu, qmp } = await startNetemu('shell');
    const shell = async (lines: readonly string[], ...options: string[]): Promise<string> => {
      const { program, args } = forkyCommand('qmp-shell', [...options, path('shell')]);
      const child = spawn(program, args, { stdio: ['pipe', 'pipe', 'pipe'] });
      let output = '';
      child.stdout.on('data', (chunk: Buffer) => {
        output += chunk.toString();
      });
      child.stdin.end(`${lines.join('\n')}\n`);
      await once(child, 'close');
      return output;
    };
    const text = await shell([
      'netdev_add type=user id=n0 restrict=true',
      'device_add driver=rtl8139x id=e0 netdev=n0',
      'device_add driver=e1000 id=e0 netdev=n0',
      'set_link name=e0 up=false',
      'query-name',
    ]);
    expect(text).toContain('Connected to QEMU 11.1.2');
    expect(text.match(/\{"return": \{\}\}/g)).toHaveLength(4);
    expect(text).toContain("'rtl8139x' is not a valid device model name");
    expect(await shell(['info network'], '-H')).toContain(
      'e0: index=0,type=nic,model=e1000,macaddr=52:54:00:12:34:56',
    );
    await qmp.run('quit');
    expect((await netemu.finished).status).toBe(0);
  });
});

/** One UDP socket that stands for the far end of a dgram netdev. */
async function datagrams(): Promise<{
  port: number;
  send(frame: Uint8Array, to: number): void;
  next(): Promise<Buffer>;
  close(): void;
}> {
  const socket = createSocket('udp4').bind(0, '127.0.0.1');
  await once(socket, 'listening');
  const got: Buffer[] = [];
  socket.on('message', (message) => got.push(message));
  return {
    port: socket.address().port,
    send: (frame, to) => socket.send(frame, to, '127.0.0.1'),
    async next() {
      while (got.length === 0) await once(socket, 'message');
      return got.shift()!;
    },
    close: () => socket.close(),
  };
}

/** A broadcast frame that no other is like. */
function frame(tag: number): Uint8Array {
  const bytes = new Uint8Array(100).fill(tag);
  bytes.fill(0xff, 0, 6);
  bytes.set([0x52, 0x54, 0, 1, 2, 3, 0x88, 0xb5], 6);
  return bytes;
}

/** A netdev whose other ends are a test's socket and a hub, with something else on the hub, so that frames pass. */
const dgramOnHub = (id: string, local: number, remote: number): string[] => [
  '-netdev',
  `dgram,id=${id},local.type=inet,local.host=127.0.0.1,local.port=${local},remote.type=inet,remote.host=127.0.0.1,remote.port=${remote}`,
  '-netdev',
  `hubport,id=h${id},hubid=0,netdev=${id}`,
];

describe('filters with QEMU at the other end of the chardev', () => {
  for (const vnetHdr of ['off', 'on']) {
    it(`QEMU mirrors, netemu puts in: vnet_hdr_support=${vnetHdr}`, async () => {
      const [a, b, out] = [await datagrams(), await datagrams(), await datagrams()];
      const [portA, portB, portC] = [await udpPort(), await udpPort(), await udpPort()];
      const wire = path(`to-netemu-${vnetHdr}`);
      const qemu = startQemu(
        ...dgramOnHub('a', portA, a.port),
        ...dgramOnHub('b', portB, b.port),
        ...['-chardev', `socket,id=c,path=${wire},server=on,wait=off`],
        ...['-object', `filter-mirror,id=m,netdev=a,queue=tx,outdev=c,vnet_hdr_support=${vnetHdr}`],
      );
      await qemu.qmp;
      const { netemu, qmp } = await startNetemu(
        `in-${vnetHdr}`,
        ...dgramOnHub('d', portC, out.port),
        ...['-chardev', `socket,id=c,path=${wire}`],
        ...['-object', `filter-redirector,id=r,netdev=d,queue=rx,indev=c,vnet_hdr_support=${vnetHdr}`],
      );
      try {
        a.send(frame(7), portA);
        expect(await b.next()).toEqual(Buffer.from(frame(7)));
        expect(await out.next()).toEqual(Buffer.from(frame(7)));
        const [filter] = (
          (await qmp.run('query-network')) as { netdevs: { filters: { counters: object }[] }[] }
        ).netdevs[0]!.filters;
        expect(filter!.counters).toMatchObject({ inFrames: 1, badStreams: 0 });
      } finally {
        qemu.child.kill('SIGKILL');
        await netemu.stop();
        for (const one of [a, b, out]) one.close();
      }
    });
  }

  for (const vnetHdr of ['off', 'on']) {
    it(`netemu redirects, QEMU puts in: vnet_hdr_support=${vnetHdr}`, async () => {
      const [a, b] = [await datagrams(), await datagrams()];
      const [portA, portB, portSpare] = [await udpPort(), await udpPort(), await udpPort()];
      const wire = path(`to-qemu-${vnetHdr}`);
      const { netemu } = await startNetemu(
        `out-${vnetHdr}`,
        ...dgramOnHub('d', portA, a.port),
        ...dgramOnHub('e', portSpare, a.port),
        ...['-chardev', `socket,id=c,path=${wire},server=on,wait=off`],
        ...['-object', `filter-redirector,id=r,netdev=d,queue=tx,outdev=c,vnet_hdr_support=${vnetHdr}`],
      );
      const qemu = startQemu(
        ...dgramOnHub('q', portB, b.port),
        ...['-chardev', `socket,id=c,path=${wire}`],
        ...['-object', `filter-redirector,id=r,netdev=q,queue=rx,indev=c,vnet_hdr_support=${vnetHdr}`],
      );
      try {
        await qemu.qmp;
        a.send(frame(9), portA);
        expect(await b.next()).toEqual(Buffer.from(frame(9)));
      } finally {
        qemu.child.kill('SIGKILL');
        await netemu.stop();
        for (const one of [a, b]) one.close();
      }
    });
  }
});

describe('bad input to a netemu whose link is full', () => {
  let netemu: RunningNetemu;
  let qmp: Qmp;

  beforeAll(async () => {
    const socket = path('bad');
    netemu = new RunningNetemu([
      ...['--netdev', 'hubport,id=h0,hubid=0', '--netdev', 'hubport,id=h1,hubid=0'],
      ...['--device', 'e1000,id=e0,netdev=h0', '--device', 'e1000,id=e1,netdev=h1'],
      ...['--guest', 'probe,tx=0', '--qmp', `unix:${socket},server=on,wait=off`],
    ]);
    qmp = await Qmp.connect(socket);
    while ((await frames()) < 1000) await new Promise((resolve) => setImmediate(resolve));
  });
  afterAll(async () => await netemu.stop());

  const frames = async (): Promise<number> => {
    const { nics } = (await qmp.run('query-network')) as {
      nics: { queues: { counters: { sentFrames: number } }[] }[];
    };
    return nics.reduce((sum, nic) => sum + nic.queues[0]!.counters.sentFrames, 0);
  };
  const client = async (): Promise<Socket> => {
    const socket = connectTcp(path('bad'));
    socket.on('error', () => {});
    await once(socket, 'data');
    return socket;
  };
  /** Sends it behind the negotiation, and returns the first error that comes back. */
  const errorFor = async (bytes: string | Buffer): Promise<unknown> => {
    const socket = await client();
    let text = '';
    socket.on('data', (chunk) => {
      text += chunk.toString();
    });
    socket.write('{"execute":"qmp_capabilities"}\n');
    socket.write(bytes);
    for (;;) {
      const found = /^\{"error".*$/m.exec(text);
      if (found !== null) {
        socket.destroy();
        return (JSON.parse(found[0]) as { error: { desc: string } }).error.desc;
      }
      await once(socket, 'data');
    }
  };

  const INPUTS: readonly (readonly [string, () => Promise<void>])[] = [
    ['broken JSON', async () => expect(await errorFor('{"execute": }\n')).toMatch(/JSON parse error/)],
    ['deep nesting', async () => expect(await errorFor(`${'['.repeat(100_000)}\n`)).toMatch(/nesting depth/)],
    [
      'a token of 64 MiB',
      async () => {
        const token = Buffer.alloc(64 << 20, 'a');
        token.write('{"execute":"');
        token[token.length - 1] = 10;
        expect(await errorFor(token)).toMatch(/size limit/);
      },
    ],
    [
      'a wrong type',
      async () =>
        expect(await errorFor('{"execute":"set_link","arguments":{"name":5,"up":true}}\n')).toBe(
          "Invalid parameter type for 'name', expected: string",
        ),
    ],
    [
      'an unknown command',
      async () => expect(await errorFor('{"execute":"frob"}\n')).toBe('The command frob has not been found'),
    ],
    [
      'bytes that are no UTF-8',
      async () => expect(await errorFor(Buffer.from([34, 255, 34, 10]))).toMatch(/UTF-8/),
    ],
    [
      'a client that never reads',
      async () => {
        const socket = await client();
        socket.pause();
        socket.write('{"execute":"qmp_capabilities"}\n');
        for (let i = 0; i < 2000; i++) socket.write('{"execute":"query-qmp-schema"}\n');
        for (let i = 0; i < 50; i++) await qmp.run('query-status');
        socket.destroy();
      },
    ],
    [
      'a client that leaves in mid-reply',
      async () => {
        for (let i = 0; i < 20; i++) {
          const socket = await client();
          socket.write('{"execute":"qmp_capabilities"}\n{"execute":"query-qmp-schema"}\n');
          await once(socket, 'data');
          socket.destroy();
        }
      },
    ],
    [
      '1,000 clients',
      async () => {
        const sockets = Array.from({ length: 1000 }, () => connectTcp(path('bad')).on('error', () => {}));
        for (let i = 0; i < 50; i++) await qmp.run('query-status');
        for (const socket of sockets) socket.destroy();
      },
    ],
  ];

  it.each(INPUTS)('%s', async (_, send) => {
    await qmp.run('query-status');
    const pid = netemu.child.pid!;
    const before = { frames: await frames(), bytes: residentBytes(pid), descriptors: openDescriptors(pid) };
    await send();
    // Whoever left is forgotten, and nothing was kept; frames went on all the time.
    while (openDescriptors(pid) > before.descriptors) await qmp.run('query-status');
    expect(residentBytes(pid) - before.bytes).toBeLessThan(96 << 20);
    expect(await frames()).toBeGreaterThan(before.frames);
  });
});

it('a guestless netemu answers on loopback TCP too, and refuses to on others', async () => {
  const probe = createServer().listen(0, '127.0.0.1');
  await once(probe, 'listening');
  const { port } = probe.address() as { port: number };
  probe.close();
  await once(probe, 'close');
  const netemu = new RunningNetemu(['--guest', 'none', '--qmp', `tcp:127.0.0.1:${port},server=on,wait=off`]);
  for (;;) {
    const socket = connectTcp(port, '127.0.0.1');
    const connected = await once(socket, 'connect').then(
      () => true,
      () => false,
    );
    if (!connected) continue;
    const qmp = await new Qmp(socket, socket).negotiate();
    await qmp.run('quit');
    break;
  }
  expect((await netemu.finished).status).toBe(0);
  const refused = await new RunningNetemu(['--qmp', 'tcp:0.0.0.0:0,server=on,wait=off']).finished;
  expect(refused).toMatchObject({
    status: 1,
    output: expect.stringContaining('loopback address or a unix socket only'),
  });
});

it("a Linux guest's link follows set_link, and its filter is what query-rx-filter tells", async () => {
  const vfio = path('vfio');
  const socket = path('guest');
  const netemu = new RunningNetemu([
    ...['--netdev', 'user,id=n0', '--device', `e1000,id=e0,netdev=n0,vfio-user=${vfio}`],
    ...['--qmp', `unix:${socket},server=on,wait=off`],
  ]);
  const qmp = await Qmp.connect(socket);
  const filters: unknown[] = [];
  const carrier = (state: number) =>
    `n=0; until [ "$(cat /sys/class/net/eth0/carrier)" = ${state} ]; do n=$((n+1)); [ $n -gt 200 ] && exit 1; sleep 0.1; done`;
  try {
    const result = await runGuest({
      qemu: '11.1',
      sharedMemory: true,
      memoryMiB: 256,
      args: ['-device', JSON.stringify({ driver: 'vfio-user-pci', socket: { type: 'unix', path: vfio } })],
      timeoutMs: 300_000,
      host: {
        link: async (state) => {
          const { stderr } = await python(SET_LINK, socket, 'e0', state);
          return stderr === '' ? 'done' : stderr;
        },
        filter: async () => {
          filters.push(((await qmp.run('query-rx-filter', { name: 'e0' })) as unknown[])[0]);
          return 'done';
        },
      },
      script: {
        up: `set -e; modprobe e1000; ip link set eth0 up; ${carrier(1)}; host filter`,
        down: `set -e; host link off; ${carrier(0)}`,
        again: `set -e; host link on; ${carrier(1)}`,
        promiscuous: 'set -e; ip link set eth0 promisc on; sleep 0.2; host filter',
      },
    });
    for (const step of ['up', 'down', 'again', 'promiscuous']) result.ok(step);
    expect(filters).toEqual([
      expect.objectContaining({
        'main-mac': '52:54:00:12:34:56',
        promiscuous: false,
        'broadcast-allowed': true,
      }),
      expect.objectContaining({ promiscuous: true }),
    ]);
    await qmp.event('NIC_RX_FILTER_CHANGED');
    expect(qmp.events.find(({ event }) => event === 'NIC_RX_FILTER_CHANGED')).toMatchObject({
      data: { name: 'e0', path: '/machine/peripheral/e0' },
    });
  } finally {
    await netemu.stop();
  }
});
