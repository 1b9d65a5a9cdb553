/**
 * query-rx-filter, asked of QEMU's own virtio-net and of netemu's three models, all four in one QEMU 11.1 guest whose drivers are told the same: virtio-net's answers
 * are compared as JSON, those of e1000 and rtl8139 with what their registers can say.
 */

import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { RxFilterInfo } from '../../../src/nic/rx-filter.ts';
import { type GuestResult, startGuest } from '../lib/guest.ts';
import { prepare } from '../lib/prepare.ts';
import { Qmp } from '../lib/qmp.ts';
import { Rig } from './rig.ts';

const MODELS = ['theirs', 'virtio', 'e1000', 'rtl8139'] as const;
type Model = (typeof MODELS)[number];

/** What is done to each interface, and under which name its filter is then noted. */
const CHANGES: readonly [note: string, commands: string][] = [
  ['up', 'ip link set $d up'],
  ['joined', 'ip maddr add 01:00:5e:11:22:33 dev $d'],
  ['left', 'ip maddr del 01:00:5e:11:22:33 dev $d'],
  ['promiscuous', 'ip link set $d promisc on'],
  ['plain', 'ip link set $d promisc off'],
  ['allmulticast', 'ip link set $d allmulticast on'],
  ['plain-again', 'ip link set $d allmulticast off'],
  ['groups-40', 'for i in $(seq 10 49); do ip maddr add 01:00:5e:00:01:$i dev $d; done'],
  ['groups-70', 'for i in $(seq 50 79); do ip maddr add 01:00:5e:00:01:$i dev $d; done'],
  ['groups-none', 'for i in $(seq 10 79); do ip maddr del 01:00:5e:00:01:$i dev $d; done'],
  ['vlans', 'for i in 5 100 4000; do ip link add link $d name v$i type vlan id $i; ip link set v$i up; done'],
  ['vlans-fewer', 'ip link del v100'],
  ['vlans-none', 'ip link del v5; ip link del v4000'],
  [
    'unicast',
    'for i in 1 2 3; do ip link add link $d name m$i address 52:54:09:00:00:0$i type macvlan; ip link set m$i up; done',
  ],
  ['unicast-none', 'for i in 1 2 3; do ip link del m$i; done'],
  ['address', 'ip link set $d down; ip link set $d address 52:54:0a:aa:bb:cc; ip link set $d up'],
];

const notes = new Map<string, RxFilterInfo>();
const rigs: Rig[] = [];
let result: GuestResult;

const noteOf = (model: Model, name: string): RxFilterInfo => notes.get(`${model} ${name}`)!;

beforeAll(async () => {
  await prepare(['tools']);
  const macOf = (model: Model): string => `52:54:0${MODELS.indexOf(model)}:aa:bb:cc`;
  const args = [
    '-netdev',
    'user,id=n0',
    '-device',
    `virtio-net-pci,netdev=n0,id=theirs,mac=${macOf('theirs')}`,
  ];
  const drivers = { virtio: 'virtio-net-pci', e1000: 'e1000', rtl8139: 'rtl8139' } as const;
  for (const model of ['virtio', 'e1000', 'rtl8139'] as const) {
    const rig = await Rig.make({
      netdev: { type: 'user', id: 'n0' },
      device: { driver: drivers[model], netdev: 'n0', id: 'nic0', mac: macOf(model) },
    });
    rigs.push(rig);
    args.push(...rig.qemuArgs());
  }
  const socket = join(rigs[0]!.folder, 'qmp');
  args.push('-qmp', `unix:${socket},server=on,wait=off`);
  let qmp: Qmp | null = null;
  const steps = MODELS.flatMap((model) => [
    [
      `${model}-find`,
      `d=$(grep -l ${macOf(model)} /sys/class/net/*/address | cut -d/ -f5); [ -n "$d" ] && echo $d >/tmp/${model}`,
    ],
    ...CHANGES.map(([name, commands]) => [
      `${model}-${name}`,
      `set -e; d=$(cat /tmp/${model}); ${commands}; host filter ${model} ${name}`,
    ]),
    [`${model}-end`, `ip link set $(cat /tmp/${model}) down`],
  ]);
  const guest = await startGuest({
    qemu: '11.1',
    sharedMemory: true,
    args,
    timeoutMs: 300_000,
    host: {
      filter: async (key) => {
        const model = key.split(' ')[0] as Model;
        if (model === 'theirs') {
          qmp ??= await Qmp.connect(socket);
          const [info] = (await qmp.run('query-rx-filter', { name: 'theirs' })) as RxFilterInfo[];
          notes.set(key, info!);
        } else {
          const rig = rigs[MODELS.indexOf(model) - 1]!;
          notes.set(key, rig.device.nic.queryRxFilter('nic0'));
        }
        return 'noted';
      },
    },
    script: {
      // IPv6 would join its groups when duplicate address detection begins, some time after a change and not at the same time everywhere.
      load: 'set -e; for c in all default; do echo 1 >/proc/sys/net/ipv6/conf/$c/disable_ipv6; done; for m in virtio_pci virtio_net e1000 8139cp 8021q macvlan; do modprobe $m; done; cat /sys/class/net/*/address',
      ...Object.fromEntries(steps),
    },
  });
  result = await guest.done;
});

afterAll(() => {
  for (const rig of rigs) rig.close();
});

test('every step was done on every interface', () => {
  for (const step of result.steps) result.ok(step.name);
  expect(notes.size).toBe(MODELS.length * CHANGES.length);
});

describe("virtio-net's answer is QEMU's", () => {
  test.each(CHANGES.map(([name]) => name))('after: %s', (name) => {
    const of = (model: Model): object => {
      const info = noteOf(model, name);
      return { ...info, name: '', 'main-mac': info['main-mac'].replace(/^52:54:0[0-3]:/, '52:54:0x:') };
    };
    expect(of('virtio')).toEqual(of('theirs'));
  });

  test('and the changes were seen at all', () => {
    expect(noteOf('theirs', 'joined')['multicast-table']).toContain('01:00:5e:11:22:33');
    expect(noteOf('theirs', 'groups-70')['multicast-overflow']).toBe(true);
    expect(noteOf('theirs', 'unicast')['unicast-table'].length).toBe(3);
    expect(noteOf('theirs', 'vlans')['vlan-table']).toEqual(expect.arrayContaining([5, 100, 4000]));
  });
});

describe.each(['e1000', 'rtl8139'] as const)("%s's answer is what its registers say", (model) => {
  const of = (name: string): RxFilterInfo => noteOf(model, name);

  test('plain: no mode is on', () => {
    for (const name of ['up', 'plain', 'plain-again', 'groups-none']) {
      expect(of(name)).toMatchObject({ name: 'nic0', promiscuous: false, 'broadcast-allowed': true });
      expect(of(name).multicast).not.toBe('all');
      expect(of(name).unicast).toBe('normal');
    }
  });

  test('modes come and go', () => {
    expect(of('promiscuous').promiscuous).toBe(true);
    expect(of('allmulticast')).toMatchObject({ promiscuous: false, multicast: 'all' });
  });

  test('groups are let in, however many', () => {
    for (const name of ['joined', 'groups-40', 'groups-70']) {
      const { multicast, promiscuous } = of(name);
      expect(promiscuous).toBe(false);
      expect(['normal', 'all']).toContain(multicast);
    }
  });

  test('the address is the one that the guest set', () => {
    expect(of('up')['main-mac']).toBe(model === 'e1000' ? '52:54:02:aa:bb:cc' : '52:54:03:aa:bb:cc');
    expect(of('address')['main-mac']).toBe('52:54:0a:aa:bb:cc');
  });

  test('VLANs', () => {
    if (model === 'e1000') {
      expect(of('vlans')).toMatchObject({ vlan: 'normal' });
      expect(of('vlans')['vlan-table']).toEqual(expect.arrayContaining([5, 100, 4000]));
      expect(of('vlans-fewer')['vlan-table']).not.toContain(100);
      expect(of('vlans-none')['vlan-table']).not.toContain(5);
    } else {
      // The chip has no VLAN filter.
      for (const name of ['up', 'vlans', 'vlans-none']) expect(of(name)).toMatchObject({ vlan: 'all' });
    }
  });

  test('more unicast addresses: e1000 has places for them, rtl8139 takes all', () => {
    if (model === 'e1000')
      expect(of('unicast')['unicast-table']).toEqual(
        expect.arrayContaining([1, 2, 3].map((i) => `52:54:09:00:00:0${i}`)),
      );
    else expect(of('unicast').promiscuous).toBe(true);
    expect(of('unicast-none')).toMatchObject({ promiscuous: false, 'unicast-table': [] });
  });
});
