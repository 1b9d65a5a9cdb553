/**
 * What vhost-net is told, and when, by a kernel of the test that remembers it. Whether a real one works by it is in test/peers/backends-vhost-net.test.ts.
 */

import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type ServedTap, VHOST, VhostNet } from '../../src/backends/vhost-net.ts';
import type { Handle } from '../../src/host-io/host-io.ts';
import type { DeviceHost, SharedRam } from '../../src/pci/device-host.ts';
import { F_EVENT_IDX, F_INDIRECT_DESC, F_VERSION_1, Features } from '../../src/virtio/features.ts';
import type { QueueSource } from '../../src/virtio/hand-over.ts';
import type { QueuePosition, VirtQueue } from '../../src/virtio/queue.ts';
import { BackendLab } from './lab.ts';

const NAMES = new Map(Object.entries(VHOST).map(([name, request]) => [request as number, name]));
const F_MRG_RXBUF = 15;
const KERNEL = new Features([F_MRG_RXBUF, 26, 27, F_INDIRECT_DESC, F_EVENT_IDX, F_VERSION_1, 33]);
const RAM_BYTES = 1 << 16;

interface Call {
  device: number;
  name: string;
  words: number[];
}

let lab: BackendLab;
let calls: Call[];
let devices: Handle[];
let taps: (ServedTap & { told: (string | number)[] })[];
let bases: Map<string, number>;
let refuse: string | null;
let ram: SharedRam & { ranges: { address: number; length: number; handle: number; offset: number }[] };
let stopped: [number, QueuePosition][];
let interrupts: number[];
let broken: number;

const stats = () => ({
  vhostStarts: 0,
  vhostStops: 0,
  vhostKicks: 0,
  vhostInterrupts: 0,
  vhostBrokenRings: 0,
});

beforeEach(() => {
  lab = new BackendLab();
  calls = [];
  stopped = [];
  interrupts = [];
  broken = 0;
  refuse = null;
  bases = new Map();
  const { hostIo } = lab;
  devices = [hostIo.eventFd(), hostIo.eventFd()];
  taps = [0, 1].map(() => {
    const told: (string | number)[] = [];
    return {
      told,
      handle: hostIo.eventFd(),
      vnetHeader: true,
      lend: (lent: boolean) => told.push(lent ? 'lent' : 'back'),
      setHeaderBytes: (bytes: number) => told.push(bytes),
    };
  });
  hostIo.control = (handle, request, argument) => {
    const words = argument === undefined ? [] : [...new Uint32Array(argument.buffer)];
    const name = NAMES.get(request)!;
    const device = devices.indexOf(handle);
    calls.push({ device, name, words });
    if (name === refuse) return -14;
    const out = argument && new Uint32Array(argument.buffer);
    if (name === 'GET_FEATURES') out!.set([KERNEL.word(0), KERNEL.word(1)]);
    if (name === 'SET_VRING_BASE') bases.set(`${device}.${words[0]}`, words[1]!);
    if (name === 'GET_VRING_BASE') out![1] = bases.get(`${device}.${words[0]}`)!;
    return 0;
  };
  const handle = hostIo.memoryFd('ram', RAM_BYTES);
  ram = { ranges: [{ address: 0x10_0000, length: RAM_BYTES, handle, offset: 0 }], onChanged: null };
});

afterEach(async () => {
  for (const { handle } of ram.ranges) lab.hostIo.close(handle);
  for (const { handle } of taps) lab.hostIo.close(handle);
  await lab.end();
});

function queue(at: number, avail = 0): VirtQueue {
  const layout = { size: 256, descriptors: at, driver: at + 4096, device: at + 8192 };
  return { layout, size: 256, packed: false, position: () => ({ avail, used: avail }) } as VirtQueue;
}

class Source implements QueueSource {
  readonly name = 'nic';
  readonly host = { sharedRam: ram } as unknown as DeviceHost;
  readonly accepted = new Features([F_VERSION_1, F_MRG_RXBUF, F_INDIRECT_DESC, 0, 7, 27]);
  readonly needed = new Features();
  wanted = true;
  epoch = 1;
  readonly queueCount = 4;
  pairsInUse = 1;
  readonly ipMtuBytes = 0;
  readonly queues: (VirtQueue | null)[] = [0, 1, 2, 3].map((i) => queue(0x10_0000 + i * 0x4000));
  queueAt = (index: number): VirtQueue | null => this.queues[index]!;
  stoppedAt = (index: number, _queue: VirtQueue, position: QueuePosition): void => {
    stopped.push([index, position]);
  };
  interrupt = (index: number): void => {
    interrupts.push(index);
  };
  broken = (): void => {
    broken++;
  };
}

const make = (pollUs = 0): [VhostNet, ReturnType<typeof stats>] => {
  const counters = stats();
  return [new VhostNet('n0', lab.hostIo, lab.context, taps, devices, pollUs, counters), counters];
};

const named = (name: string): Call[] => calls.filter((call) => call.name === name);

describe('vhost-net', () => {
  it('offers what the kernel knows of rings, and leaves checksums and segments to the tap', () => {
    const [vhost] = make(50);
    for (const bit of [F_MRG_RXBUF, F_INDIRECT_DESC, F_EVENT_IDX, F_VERSION_1, 0, 1, 7, 11, 27])
      expect(vhost.features.has(bit), `bit ${bit}`).toBe(true);
    for (const bit of [26, 33, 34]) expect(vhost.features.has(bit), `bit ${bit}`).toBe(false);
    expect(calls.map(({ device, name }) => `${device} ${name}`)).toEqual(
      [0, 1].flatMap((device) =>
        ['SET_OWNER', 'GET_FEATURES', 'SET_VRING_BUSYLOOP_TIMEOUT', 'SET_VRING_BUSYLOOP_TIMEOUT'].map(
          (name) => `${device} ${name}`,
        ),
      ),
    );
    expect(named('SET_VRING_BUSYLOOP_TIMEOUT').map(({ words }) => words)).toEqual([
      [0, 50],
      [1, 50],
      [0, 50],
      [1, 50],
    ]);
    vhost.close();
  });

  it('is told features, memory and rings before the tap, and kicks what waits', () => {
    const [vhost, counters] = make();
    const source = new Source();
    vhost.attach(source);
    expect(vhost.active).toBe(false);
    calls.length = 0;
    vhost.update();
    lab.settle();
    expect(vhost.started).toBe(true);
    const ring = [
      'SET_VRING_NUM',
      'SET_VRING_BASE',
      'SET_VRING_ADDR',
      'SET_VRING_KICK',
      'SET_VRING_CALL',
      'SET_VRING_ERR',
    ];
    const backends = ['NET_SET_BACKEND', 'NET_SET_BACKEND'];
    expect(calls.map(({ name }) => name)).toEqual([
      'SET_FEATURES',
      'SET_MEM_TABLE',
      ...ring,
      ...ring,
      ...backends,
    ]);
    // Not the bit of ANY_LAYOUT, which says something else here.
    expect(named('SET_FEATURES')[0]!.words).toEqual([(1 << F_MRG_RXBUF) | (1 << F_INDIRECT_DESC), 1]);
    const table = named('SET_MEM_TABLE')[0]!.words;
    expect(table.slice(0, 6)).toEqual([1, 0, 0x10_0000, 0, RAM_BYTES, 0]);
    const base = table[6]! + table[7]! * 2 ** 32;
    const places = named('SET_VRING_ADDR').map(({ words }) => words);
    const place = (words: number[], at: number) => words[at]! + words[at + 1]! * 2 ** 32 - base;
    expect(places.map((words) => [words[0], place(words, 2), place(words, 4), place(words, 6)])).toEqual([
      [0, 0, 8192, 4096],
      [1, 0x4000, 0x4000 + 8192, 0x4000 + 4096],
    ]);
    expect(named('NET_SET_BACKEND').map(({ words }) => words)).toEqual(
      [0, 1].map((at) => [at, lab.hostIo.fdOf(taps[0]!.handle)]),
    );
    expect(taps[0]!.told).toEqual(['lent', 12]);
    vhost.kick(1);
    expect(counters).toMatchObject({ vhostStarts: 1, vhostKicks: 1 });
    vhost.update();
    lab.settle();
    expect(counters.vhostStarts).toBe(1);
    vhost.close();
    expect(taps[0]!.told).toEqual(['lent', 12, 'back']);
  });

  it('gives rings back where they stand, and goes on from there', () => {
    const [vhost] = make();
    const source = new Source();
    vhost.attach(source);
    vhost.update();
    lab.settle();
    bases.set('0.0', 65_530);
    bases.set('0.1', 7);
    source.wanted = false;
    calls.length = 0;
    vhost.update();
    lab.settle();
    expect(vhost.active).toBe(false);
    expect(calls.map(({ name, words }) => `${name} ${words[0]} ${words[1]}`)).toEqual([
      'NET_SET_BACKEND 0 4294967295',
      'GET_VRING_BASE 0 0',
      'NET_SET_BACKEND 1 4294967295',
      'GET_VRING_BASE 1 0',
    ]);
    expect(stopped).toEqual([
      [0, { avail: 65_530, used: 65_530 }],
      [1, { avail: 7, used: 7 }],
    ]);
    source.wanted = true;
    source.queues[0] = queue(0x10_0000, 65_530);
    vhost.update();
    lab.settle();
    expect(bases.get('0.0')).toBe(65_530);
    // A driver's reset: these queues are nobody's to give back.
    stopped.length = 0;
    source.epoch++;
    source.wanted = false;
    vhost.update();
    lab.settle();
    expect(stopped).toEqual([]);
    expect(vhost.busyWith()).toBe(false);
    vhost.detach(source);
    vhost.close();
  });

  it('serves as many pairs as the driver uses, a device for each', () => {
    const [vhost] = make();
    const source = new Source();
    vhost.attach(source);
    vhost.update();
    lab.settle();
    expect(new Set(named('NET_SET_BACKEND').map(({ device }) => device))).toEqual(new Set([0]));
    source.pairsInUse = 2;
    vhost.update();
    lab.settle();
    expect(new Set(named('NET_SET_BACKEND').map(({ device }) => device))).toEqual(new Set([0, 1]));
    vhost.close();
  });

  it('stops for a change of the guest’s RAM, and starts with what there is then', () => {
    const [vhost, counters] = make();
    const source = new Source();
    vhost.attach(source);
    vhost.update();
    lab.settle();
    ram.ranges.push({
      address: 0x40_0000,
      length: RAM_BYTES,
      handle: lab.hostIo.memoryFd('more', RAM_BYTES),
      offset: 0,
    });
    ram.onChanged!();
    lab.settle();
    expect(named('SET_MEM_TABLE').at(-1)!.words[0]).toBe(2);
    expect(counters).toMatchObject({ vhostStarts: 2, vhostStops: 1 });
    vhost.close();
  });

  it.each([
    ['the kernel refuses', () => 'SET_MEM_TABLE', 'vhost-net: VHOST_SET_MEM_TABLE: Bad address'],
    [
      'a ring lies outside of RAM',
      (source: Source) => {
        source.queues[1] = queue(0x10_0000 + RAM_BYTES - 100);
        return null;
      },
      'vhost-net: a ring lies outside of the RAM that files hold',
    ],
  ] as const)('says so when %s, and breaks the device, not the program', (_name, prepare, message) => {
    const [vhost, counters] = make();
    const source = new Source();
    refuse = prepare(source);
    vhost.attach(source);
    vhost.update();
    lab.settle();
    expect(lab.logged).toEqual([message]);
    expect(broken).toBe(1);
    expect(vhost.active).toBe(false);
    expect(counters.vhostBrokenRings).toBe(1);
    vhost.close();
  });

  it('passes interrupts on, while it serves', async () => {
    const [vhost] = make();
    const source = new Source();
    vhost.attach(source);
    vhost.update();
    lab.settle();
    const fd = named('SET_VRING_CALL')[1]!.words[1]!;
    const { writeSync } = await import('node:fs');
    writeSync(fd, new BigUint64Array([1n]));
    await lab.until(() => interrupts.length > 0);
    expect(interrupts).toEqual([1]);
    vhost.close();
  });

  it('refuses a machine without files of RAM, and a second device', () => {
    const [vhost] = make();
    const bare = { ...new Source(), host: {} as DeviceHost } as QueueSource;
    expect(() => vhost.attach(bare)).toThrow('vhost-net needs a guest whose RAM lies in files');
    vhost.attach(new Source());
    expect(() => vhost.attach(new Source())).toThrow("netdev 'n0' is in use");
    vhost.close();
  });
});
