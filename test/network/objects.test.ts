/** A network made by the embedding API: what it refuses, and objects that stand on no netdev. */

import { describe, expect, it } from 'vitest';
import { UnsupportedError } from '../../src/core/errors.ts';
import type { DeviceHost } from '../../src/pci/device-host.ts';
import { TestMonitor } from '../monitor/lib.ts';

describe('a network', () => {
  it.each([
    [{ driver: 'e1000', 'vfio-user': '/run/x.sock' }, 'VfioUserServer'],
    [{ driver: 'virtio-net-pci', 'vhost-user': '/run/x.sock' }, 'VhostUserBackend'],
  ] as const)('does not take %j with a host of the embedder', async (input, server) => {
    const test = new TestMonitor();
    const host = {} as DeviceHost;
    const add = () => test.network.addDevice({ ...input, id: 'e0', host });
    expect(add).toThrow(UnsupportedError);
    expect(add).toThrow(server);
    expect(test.network.devices.size).toBe(0);
    await test.close();
  });

  it('makes colo-compare on its chardevs, counts it, changes it, and gives the chardevs back', async () => {
    const test = new TestMonitor();
    const client = await test.client();
    for (const id of ['a', 'b', 'c', 'n'])
      await client.run('chardev-add', { id, backend: { type: 'ringbuf', data: {} } });
    await client.run('object-add', { 'qom-type': 'iothread', id: 'io' });
    const colo = { 'qom-type': 'colo-compare', id: 'k', primary_in: 'a', secondary_in: 'b', outdev: 'c' };
    expect(await client.fail('object-add', { ...colo, iothread: 'zz' })).toEqual({
      class: 'DeviceNotFound',
      desc: "Device 'zz' not found",
    });
    expect(await client.fail('object-add', { ...colo, iothread: 'io', secondary_in: 'zz' })).toEqual({
      class: 'DeviceNotFound',
      desc: "Device 'zz' not found",
    });
    expect(await client.fail('object-add', { ...colo, iothread: 'io', outdev: 'a' })).toMatchObject({
      desc: "'indev' and 'outdev' could not be same for compare module",
    });
    await client.run('object-add', { ...colo, iothread: 'io', notify_dev: 'n' });
    expect(await client.fail('chardev-remove', { id: 'a' })).toMatchObject({ desc: "Chardev 'a' is busy" });
    expect(await client.fail('object-add', { ...colo, id: 'k2', iothread: 'io' })).toMatchObject({
      desc: "Device 'a' is in use",
    });
    const graph = (await client.run('query-network')) as { objects: object[] };
    expect(graph.objects).toEqual([
      { id: 'io', type: 'iothread', counters: {} },
      { id: 'k', type: 'colo-compare', counters: expect.objectContaining({ outFrames: 0 }) },
    ]);
    expect(await client.run('query-stats', { target: 'object' })).toHaveLength(2);
    await client.run('qom-set', { path: '/objects/k', property: 'compare_timeout', value: 100 });
    expect(await client.run('qom-get', { path: '/objects/k', property: 'compare_timeout' })).toBe(100);
    expect(
      await client.fail('qom-set', { path: '/objects/k', property: 'max_queue_size', value: 0 }),
    ).toMatchObject({ desc: "Property 'colo-compare.max_queue_size' requires a positive value" });
    expect(
      await client.fail('qom-set', { path: '/objects/k', property: 'outdev', value: 'n' }),
    ).toMatchObject({ desc: expect.stringContaining('while it is in use') });
    await client.run('object-del', { id: 'k' });
    await client.run('chardev-remove', { id: 'a' });
    await test.close();
  });
});
