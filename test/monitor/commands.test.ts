/** Commands whose answers are more than a line, and what they do to the network. */

import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { packet } from '../lib/context.ts';
import { type Message, type TestClient, TestMonitor } from './lib.ts';

describe('monitor commands', () => {
  let test: TestMonitor;
  let client: TestClient;

  beforeEach(async () => {
    test = new TestMonitor();
    client = await test.client();
  });
  afterEach(async () => await test.close());

  const netdev = (id: string) => client.run('netdev_add', { type: 'user', id });
  const nic = (id: string, more: object = {}) => client.run('device_add', { driver: 'e1000', id, ...more });

  it('query-rx-filter answers in the shape of the QAPI', async () => {
    await nic('e0');
    expect(await client.run('query-rx-filter', { name: 'e0' })).toEqual([
      {
        name: 'e0',
        promiscuous: false,
        multicast: expect.stringMatching(/^(normal|none|all)$/),
        unicast: expect.stringMatching(/^(normal|none|all)$/),
        vlan: expect.stringMatching(/^(normal|none|all)$/),
        'broadcast-allowed': expect.any(Boolean),
        'multicast-overflow': false,
        'unicast-overflow': false,
        'main-mac': '52:54:00:12:34:56',
        'vlan-table': [],
        'unicast-table': [],
        'multicast-table': [],
      },
    ]);
  });

  it('query-driver-complaints tells what a driver did, of NICs with strict=on', async () => {
    await nic('e0');
    await nic('e1', { strict: true });
    const { nic: model } = test.network.devices.get('e1')!;
    model.writeBar(0, 0x400, 4, 1);
    const complaint = {
      rule: 'reserved-bits',
      register: expect.any(String),
      section: '8254x 13.4',
      message: 'a reserved bit was set',
      count: 1,
      'first-value': 1,
    };
    expect(await client.run('query-driver-complaints')).toEqual([{ name: 'e1', complaints: [complaint] }]);
    expect(await client.run('query-driver-complaints', { name: 'e1' })).toEqual([
      { name: 'e1', complaints: [complaint] },
    ]);
    client.send('{"execute":"query-driver-complaints","arguments":{"name":"e0"}}');
    expect(await client.messages()).toMatchObject([
      { error: { class: 'GenericError', desc: "NIC 'e0' was made without strict=on" } },
    ]);
  });

  it('a netdev that comes back under its name is plugged in again', async () => {
    await netdev('n0');
    await nic('e0', { netdev: 'n0' });
    expect(test.network.devices.get('e0')!.nic.ports[0]!.up).toBe(true);
    await client.run('netdev_del', { id: 'n0' });
    expect(test.network.devices.get('e0')!.nic.ports[0]!.up).toBe(false);
    await netdev('n0');
    expect(test.network.devices.get('e0')!.nic.ports[0]!.up).toBe(true);
  });

  it('device_del is followed by DEVICE_DELETED, once, behind its reply', async () => {
    await nic('e0');
    client.send('{"execute":"device_del","arguments":{"id":"/machine/peripheral/e0"}}');
    const messages = await client.messages();
    expect(messages[0]).toEqual({ return: {} });
    expect(messages.slice(1)).toEqual([
      {
        timestamp: expect.any(Object),
        event: 'DEVICE_DELETED',
        data: { device: 'e0', path: '/machine/peripheral/e0' },
      },
    ]);
    expect(test.machines.size).toBe(0);
  });

  it('stop holds frames where they are, cont lets them go on', async () => {
    await netdev('n0');
    await nic('e0', { netdev: 'n0' });
    const far = test.recorders.get('n0')!;
    await client.run('stop');
    expect(far.send(packet(1))).toBe(0);
    expect(test.network.devices.get('e0')!.nic.dmaEnabled).toBe(false);
    await nic('e1');
    await client.run('cont');
    expect(far.waiting).toEqual([]);
  });

  it('announce-self sends the rounds it was told to, from the NICs it was told', async () => {
    await netdev('n0');
    await netdev('n1');
    await nic('e0', { netdev: 'n0' });
    await nic('e1', { netdev: 'n1' });
    const sent = () => test.recorders.get('n0')!.received;
    await client.run('announce-self', { initial: 50, max: 100, rounds: 4, step: 100, interfaces: ['e0'] });
    expect(sent()).toHaveLength(1);
    expect([...sent()[0]!.subarray(0, 22)]).toEqual([
      ...Array<number>(6).fill(0xff),
      ...[0x52, 0x54, 0, 0x12, 0x34, 0x56],
      ...[0x80, 0x35, 0, 1, 8, 0, 6, 4, 0, 3],
    ]);
    const at = (ms: number): number => {
      test.network.loop.runUntil(ms * 1e6);
      return sent().length;
    };
    expect([at(49), at(50), at(149), at(150), at(249), at(250), at(10_000)]).toEqual([1, 2, 2, 3, 3, 4, 4]);
    expect(test.recorders.get('n1')!.received).toHaveLength(0);
  });

  it('query-network and query-stats tell the same counters', async () => {
    await netdev('n0');
    await nic('e0', { netdev: 'n0' });
    test.recorders.get('n0')!.send(packet(1), packet(2));
    const graph = (await client.run('query-network')) as {
      nics: Message[];
      netdevs: { queues: { counters: Message; peer: string }[] }[];
    };
    expect(graph.nics).toHaveLength(1);
    expect(graph.netdevs[0]!.queues[0]).toMatchObject({ peer: 'e0', counters: { sentFrames: 2 } });
    const stats = (await client.run('query-stats', { target: 'queue' })) as {
      'qom-path': string;
      stats: { name: string; value: number }[];
    }[];
    const queue = stats.find((one) => one['qom-path'] === '/netdevs/n0/queue[0]')!;
    expect(queue.stats).toContainEqual({ name: 'sentFrames', value: 2 });
    const some = await client.run('query-stats', {
      target: 'queue',
      providers: [{ provider: 'netemu', names: ['sentFrames'] }],
    });
    expect((some as typeof stats)[0]!.stats).toEqual([{ name: 'sentFrames', value: 0 }]);
    const schemas = (await client.run('query-stats-schemas')) as { target: string }[];
    expect(schemas.map(({ target }) => target)).toEqual(
      expect.arrayContaining(['nic', 'queue', 'netdev', 'pool']),
    );
  });

  it('qom-set changes a filter while it is in use', async () => {
    await netdev('n0');
    await client.run('object-add', { 'qom-type': 'filter-netem', id: 'f', netdev: 'n0', delay: '10ms' });
    expect(await client.run('qom-get', { path: 'f', property: 'delay' })).toBe('10ms');
    await client.run('qom-set', { path: '/objects/f', property: 'delay', value: '1500us' });
    expect(await client.run('qom-get', { path: 'f', property: 'delay' })).toBe('1500us');
    await client.run('qom-set', { path: '/objects/f', property: 'loss', value: 12.5 });
    expect(await client.run('qom-get', { path: 'f', property: 'loss' })).toBe(12.5);
    expect(await client.fail('qom-set', { path: 'f', property: 'netdev', value: 'x' })).toMatchObject({
      desc: "Attempt to set property 'netdev' of object 'f' (type 'filter-netem') while it is in use",
    });
    expect(await client.fail('qom-set', { path: 'f', property: 'loss', value: 101 })).toMatchObject({
      desc: "Parameter 'loss' expects a percentage from 0 to 100",
    });
  });

  it('the schema describes every command and event, and every type it names', async () => {
    const schema = (await client.run('query-qmp-schema')) as { name: string; 'meta-type': string }[];
    const names = new Set(schema.map(({ name }) => name));
    expect(names.size).toBe(schema.length);
    const commands = (await client.run('query-commands')) as { name: string }[];
    for (const { name } of commands) expect(names).toContain(name);
    for (const info of schema as Message[]) {
      for (const key of ['arg-type', 'ret-type', 'element-type']) {
        if (info[key] !== undefined) expect(names, `${info.name} ${key}`).toContain(info[key]);
      }
      for (const member of (info.members ?? []) as { type?: string }[]) {
        if (member.type !== undefined) expect(names).toContain(member.type);
      }
      for (const variant of (info.variants ?? []) as { type: string }[])
        expect(names).toContain(variant.type);
    }
  });

  it('x-query-virtio shows what a virtio device offers, and its queues', async () => {
    await client.run('device_add', { driver: 'virtio-net-pci', id: 'v0' });
    const path = '/machine/peripheral/v0/virtio-backend';
    expect(await client.run('x-query-virtio')).toEqual([{ name: 'virtio-net', path }]);
    const status = (await client.run('x-query-virtio-status', { path })) as Message;
    expect(status).toMatchObject({ 'num-vqs': 3, status: { statuses: [] }, started: false, broken: false });
    expect((status['host-features'] as { transports: string[] }).transports).toContain('VIRTIO_F_VERSION_1');
    expect((status['host-features'] as { 'dev-features': string[] })['dev-features']).toContain(
      'VIRTIO_NET_F_MAC',
    );
    expect(status['host-features'] as object).not.toHaveProperty('unknown-dev-features');
    expect(await client.run('x-query-virtio-queue-status', { path, queue: 0 })).toMatchObject({
      'vring-num': 256,
      inuse: 0,
      enabled: false,
    });
    expect(await client.fail('x-query-virtio-queue-status', { path, queue: 99 })).toMatchObject({
      desc: 'Invalid virtqueue number 99',
    });
    expect(await client.fail('x-query-virtio-status', { path: '/zz' })).toMatchObject({
      desc: 'Path /zz is not a realized VirtIODevice',
    });
    expect(await client.run('human-monitor-command', { 'command-line': 'info virtio' })).toBe(
      `${path} [virtio-net]\r\n`,
    );
  });

  it('quit answers, then says SHUTDOWN, then ends the program', async () => {
    client.send('{"execute":"quit"}');
    const messages = await client.messages();
    expect(messages).toEqual([
      { return: {} },
      { timestamp: expect.any(Object), event: 'SHUTDOWN', data: { guest: false, reason: 'host-qmp-quit' } },
    ]);
    expect(test.quits).toBe(1);
  });

  it('10,000 random operations leave a consistent graph and hold nothing', async () => {
    let state = 12345;
    const pick = (limit: number): number => {
      state = (state * 1103515245 + 12345) & 0x7fffffff;
      return (state >> 8) % limit;
    };
    const one = (): object => {
      const n = pick(4);
      switch (pick(8)) {
        case 0:
          return {
            execute: 'netdev_add',
            arguments:
              pick(2) === 0
                ? { type: 'user', id: `n${n}` }
                : { type: 'hubport', id: `n${n}`, hubid: pick(2) },
          };
        case 1:
          return { execute: 'netdev_del', arguments: { id: `n${n}` } };
        case 2:
          return {
            execute: 'device_add',
            arguments: { driver: 'e1000', id: `e${n}`, netdev: `n${pick(4)}` },
          };
        case 3:
          return { execute: 'device_del', arguments: { id: `e${n}` } };
        case 4:
          return {
            execute: 'set_link',
            arguments: { name: `${pick(2) === 0 ? 'e' : 'n'}${n}`, up: pick(2) === 0 },
          };
        case 5:
          return {
            execute: 'object-add',
            arguments: { 'qom-type': 'filter-netem', id: `f${n}`, netdev: `n${pick(4)}`, delay: '1ms' },
          };
        case 6:
          return { execute: 'object-del', arguments: { id: `f${n}` } };
        default:
          return { execute: pick(4) === 0 ? 'stop' : 'cont' };
      }
    };
    const { network } = test;
    for (let i = 0; i < 10_000; i++) {
      client.send(JSON.stringify(one()));
      for (const far of test.recorders.values()) if (far.waiting.length < 4) far.send(packet(i & 0xff));
      if (i % 8 !== 7) continue;
      await test.settle();
      network.loop.runUntil(test.clock.nowNs() + 300_000);
      client.text();
      for (const { id, config, nic: one } of network.devices.values()) {
        const peer = one.ports[0]!.peer;
        const wanted = network.netdevs.get(config.netdev ?? '')?.ports[0];
        if (peer !== null) expect(peer, id).toBe(wanted);
      }
      for (const { filter } of network.objects.values()) {
        const chains = [...network.netdevs.values()].filter(({ chain }) => chain.filters.includes(filter!));
        expect(chains).toHaveLength(1);
      }
    }
    await test.settle();
    expect(test.monitor.stats.commands).toBe(10_000);
  });
});
