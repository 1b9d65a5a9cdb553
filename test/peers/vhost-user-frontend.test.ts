/**
 * The vhost-user netdev against other programs' back-ends: DPDK's vhost library in testpmd and in Open vSwitch, passt, and another netemu. The guest is the driver's half of virtio-net in this process,
 * netemu's probe guest, or Linux in a QEMU whose RAM and queues go through netemu's vfio-user to the back-end.
 */

import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { numbered, numberOf, VhostGuest, type VhostGuestOptions } from '../lib/vhost-guest.ts';
import { ensureDpdk, Testpmd } from './lib/dpdk.ts';
import { forkyCommand } from './lib/forky.ts';
import { runGuest } from './lib/guest.ts';
import { RunningNetemu } from './lib/netemu.ts';
import { ensureOvs, OpenVSwitch } from './lib/ovs.ts';
import { prepare } from './lib/prepare.ts';
import { startWebServer } from './vfio-user/services.ts';

const RECONNECT_MS = 100;
const MiB = 1 << 20;
const ROUNDS = 8;

let folder: string;
const closing: (() => unknown)[] = [];

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'netemu-vhost-front-'));
});
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
  rmSync(folder, { recursive: true });
});

async function testpmd(options: ConstructorParameters<typeof Testpmd>[0]): Promise<Testpmd> {
  const peer = new Testpmd(options);
  closing.push(() =>
    peer.child.exitCode === null && peer.child.signalCode === null ? peer.stop() : undefined,
  );
  await peer.ready();
  return peer;
}

async function guestAt(options: VhostGuestOptions): Promise<VhostGuest> {
  const guest = await VhostGuest.make(options);
  closing.push(() => guest.close());
  await until(guest, () => guest.nic.servedOutside);
  return guest;
}

/** Waits for other processes: within the test's own limit of time. */
async function until(guest: VhostGuest, holds: () => boolean): Promise<void> {
  for (const end = performance.now() + 30_000; !holds(); ) {
    if (performance.now() > end) {
      throw new Error(
        `it never came to hold: ${guest.received.length} received, ${guest.sent} sent, ${JSON.stringify(guest.stats)}`,
      );
    }
    await pause(2);
  }
}

let number = 0;
/** What `reach` sends; nothing else has this number. */
const MARK = 0x8000;

/** Frames that came back, without those of `reach`. */
const echoes = (guest: VhostGuest): Uint8Array[] =>
  guest.received.filter((frame) => numberOf(frame) !== MARK);

/** A back-end that has only just been told of its rings may drop what it would send: waits for the first frame that comes back. */
async function reach(guest: VhostGuest, pair = 0): Promise<void> {
  const from = guest.received.length;
  for (let tries = 0; guest.received.length === from && tries < 300; tries++) {
    guest.send([numbered(MARK)], pair);
    await pause(50);
  }
  expect(guest.received.length).toBeGreaterThan(from);
}

/** Sends frames of many lengths on each pair and waits until all of them are back. */
async function roundTrip(guest: VhostGuest, rounds: number, pairs = 1): Promise<void> {
  for (let pair = 0; pair < pairs; pair++) await reach(guest, pair);
  for (let round = 0; round < rounds; round++) {
    for (let pair = 0; pair < pairs; pair++) {
      const frames = Array.from({ length: 64 }, () =>
        numbered(++number & 0x7fff, 64 + ((number * 37) % 1400)),
      );
      const from = echoes(guest).length;
      expect(guest.send(frames, pair)).toBe(frames.length);
      await until(guest, () => echoes(guest).length >= from + frames.length);
      const back = echoes(guest).slice(from);
      expect(back.map(numberOf)).toEqual(frames.map(numberOf));
      // Byte for byte, but for the addresses, which were swapped.
      expect(back.map((frame) => frame.subarray(12))).toEqual(frames.map((frame) => frame.subarray(12)));
    }
  }
}

const RINGS = [
  ['split', { packed: false }],
  ['packed', { packed: true }],
] as const;

describe('DPDK testpmd', () => {
  beforeAll(ensureDpdk);

  describe.each(RINGS)('%s rings', (_name, properties) => {
    test.each([1, 2])('%i queue pairs: frames go there and come back', async (queues) => {
      const path = join(folder, 'vhost.sock');
      const peer = await testpmd({ vdevs: [`net_vhost0,iface=${path},queues=${queues}`], queues });
      const guest = await guestAt({ path, queues, properties });
      await roundTrip(guest, ROUNDS, queues);
      const counts = await peer.counts();
      expect(counts.rxPackets).toBeGreaterThanOrEqual(ROUNDS * 64 * queues);
      expect(counts.txPackets).toBeGreaterThanOrEqual(ROUNDS * 64 * queues);
      for (let pair = 0; pair < queues; pair++)
        expect(guest.driver.receivedOn[pair]).toBeGreaterThanOrEqual(ROUNDS * 64);
    });

    test.each([
      ['we connect', false],
      ['it connects', true],
    ])('it is killed and comes back, %s', async (_who, server) => {
      const path = join(folder, 'vhost.sock');
      const vdevs = [`net_vhost0,iface=${path}${server ? ',client=1' : ''}`];
      const first = testpmd({ vdevs });
      if (!server) await first;
      // Of a packed ring with chains nobody could tell where the dead one stood; with tables it is like Linux's.
      const guest = await guestAt({
        path,
        server,
        properties,
        driver: { indirect: true },
        ...(!server && { reconnectMs: RECONNECT_MS }),
      });
      await roundTrip(guest, 5);
      await (await first).kill();
      await until(guest, () => !guest.netdev.ports[0]!.up);
      if (!server) rmSync(path, { force: true });
      // What the driver sends meanwhile waits in its ring.
      const { sent } = guest;
      guest.send(Array.from({ length: 8 }, () => numbered(MARK)));
      expect(guest.sent).toBe(sent);
      await testpmd({ vdevs });
      await until(guest, () => guest.sent === sent + 8);
      await roundTrip(guest, 5);
      expect(guest.links).toEqual([false, true]);
      expect(guest.events.filter((name) => name.startsWith('NETDEV_VHOST_USER'))).toEqual([
        'NETDEV_VHOST_USER_CONNECTED',
        'NETDEV_VHOST_USER_DISCONNECTED',
        'NETDEV_VHOST_USER_CONNECTED',
      ]);
      expect(guest.stats.takenOver).toBe(2);
    });
  });

  test('set_link takes the rings back and gives them again; so does a driver that begins anew', async () => {
    const path = join(folder, 'vhost.sock');
    await testpmd({ vdevs: [`net_vhost0,iface=${path}`] });
    const guest = await guestAt({ path });
    await roundTrip(guest, 2);
    guest.network.setLink('net0', false);
    await until(guest, () => !guest.nic.servedOutside && guest.stats.stops === 1);
    guest.network.setLink('net0', true);
    await until(guest, () => guest.nic.servedOutside);
    await roundTrip(guest, 2);
    guest.driver.close();
    await until(guest, () => guest.nic.readBar(4, 20, 1) === 0);
    expect(guest.driver.open()).toBe(true);
    await until(guest, () => guest.nic.servedOutside);
    await roundTrip(guest, 2);
  });
});

describe('Open vSwitch with DPDK', () => {
  beforeAll(ensureOvs);

  test.each([
    ['split', 1],
    ['split', 2],
    ['packed', 1],
    ['packed', 2],
  ] as const)('two guests on its bridge talk, %s rings, %i queue pairs', async (ring, queues) => {
    const properties = { packed: ring === 'packed' };
    const switchFolder = mkdtempSync(join(tmpdir(), 'netemu-ovs-'));
    closing.push(() => rmSync(switchFolder, { recursive: true }));
    const ovs = await OpenVSwitch.start(switchFolder);
    closing.push(() => ovs.stop());
    // One port connects to us, we connect to the other one.
    const listening = join(folder, 'vh0.sock');
    await ovs.addClientPort('vh0', listening);
    const path = await ovs.addServerPort('vh1');
    const [a, b] = await Promise.all([
      guestAt({ path: listening, server: true, queues, properties }),
      guestAt({ path, queues, properties }),
    ]);
    for (const [from, to] of [
      [a, b],
      [b, a],
    ] as const) {
      for (let pair = 0; pair < queues; pair++) {
        const frames = Array.from({ length: 64 }, (_, i) => numbered(1000 * pair + i, 64 + i * 20));
        const before = to.received.length;
        // The first frames find a port that is still being told of its guest.
        const wanted = (): boolean =>
          to.received.slice(before).some((frame) => numberOf(frame) === 1000 * pair);
        for (let tries = 0; !wanted() && tries < 100; tries++) {
          from.send(frames.slice(0, 1), pair);
          await pause(50);
        }
        from.send(frames.slice(1), pair);
        await until(to, () =>
          to.received.slice(before).some((frame) => numberOf(frame) === 1000 * pair + 63),
        );
        const numbers = new Set(to.received.slice(before).map(numberOf));
        expect(
          [...numbers].filter((n) => n >= 1000 * pair && n < 1000 * pair + 64).sort((x, y) => x - y),
        ).toEqual(frames.map(numberOf));
      }
    }
  });
});

function netemu(...args: string[]): RunningNetemu {
  const program = new RunningNetemu(args);
  closing.push(() => program.stop());
  return program;
}

const FRONT = (path: string): string[] => [
  ...['--chardev', `socket,id=c0,path=${path}`, '--netdev', 'vhost-user,id=n0,chardev=c0'],
  ...['--device', 'virtio-net-pci,netdev=n0'],
];

describe('netemu', () => {
  /** A hub in another process, whose two NICs serve the queues of two guests in this one. */
  test.each(
    RINGS,
  )('%s rings, INFLIGHT: it is killed in mid-traffic, again and again, and both guests go on', async (_name, {
    packed,
  }) => {
    const paths = ['vm0.sock', 'vm1.sock'].map((name) => join(folder, name));
    const serve = async (): Promise<RunningNetemu> => {
      const program = netemu(
        ...paths.flatMap((path, i) => [
          ...['--netdev', `hubport,id=h${i},hubid=0`],
          ...['--device', `virtio-net-pci,netdev=h${i},packed=on,vhost-user=${path},server=on`],
        ]),
      );
      await program.until(/(served by vhost-user.*){2}/s);
      return program;
    };
    let hub = await serve();
    // Buffers of several descriptors: only the notes of who died tell where a packed ring of such stands.
    const guests = await Promise.all(
      paths.map((path) =>
        guestAt({
          path,
          reconnectMs: RECONNECT_MS,
          properties: { packed },
          driver: { indirect: false },
        }),
      ),
    );
    const [a, b] = guests as [VhostGuest, VhostGuest];
    const taken = new Map(guests.map((guest) => [guest, 0]));
    const send = (guest: VhostGuest, frames: readonly Uint8Array[]): number => {
      const count = guest.send(frames);
      taken.set(guest, taken.get(guest)! + count);
      return count;
    };
    const flood = Array.from({ length: 32 }, () => numbered(MARK, 700));
    for (let kill = 0; kill < 3; kill++) {
      let dead = false;
      const flooding = (async () => {
        while (!dead) {
          for (const guest of guests) send(guest, flood);
          await pause(1);
        }
      })();
      await until(b, () => guests.every((guest) => guest.received.length > 0));
      hub.child.kill('SIGKILL');
      await hub.finished;
      await until(a, () => guests.every((guest) => !guest.netdev.ports[0]!.up));
      dead = true;
      await flooding;
      hub = await serve();
      await until(a, () => guests.every((guest) => guest.nic.servedOutside));
      for (const [from, to] of [
        [a, b],
        [b, a],
      ] as const) {
        // No buffer was lost: all that the driver gave come back, and then as many more as ever fit.
        await until(from, () => from.sent === taken.get(from));
        const frames = Array.from({ length: 64 }, () => numbered(++number & 0x7fff, 900));
        const before = echoes(to).length;
        expect(send(from, frames)).toBe(frames.length);
        await until(to, () => echoes(to).length >= before + frames.length);
        expect(echoes(to).slice(before)).toEqual(frames);
      }
      for (const guest of guests) guest.received.length = 0;
    }
    for (const guest of guests) {
      expect(guest.stats.brokenRings).toBe(0);
      expect(guest.stats.connections).toBe(4);
    }
  });

  test("the probe guest takes a lease through passt's back-end", async () => {
    await prepare(['passt-forky']);
    const path = join(folder, 'passt.sock');
    const command = forkyCommand('passt', ['--vhost-user', '-f', '-s', path]);
    const passt = spawn(command.program, command.args, { stdio: 'ignore' });
    const gone = new Promise((resolve) => passt.once('close', resolve));
    closing.push(async () => {
      passt.kill();
      await gone;
    });
    while (!existsSync(path)) await pause(20);
    const front = netemu(...FRONT(path), '--guest', 'probe');
    await front.until(/DHCP lease \d+\.\d+\.\d+\.\d+/);
  });

  test('the probe guest downloads through the user network of another netemu', async () => {
    const web = await startWebServer(8 * MiB);
    closing.push(() => web.close());
    const path = join(folder, 'vm.sock');
    const back = netemu(
      '--netdev',
      'user,id=n0',
      '--device',
      `virtio-net,netdev=n0,vhost-user=${path},server=on`,
    );
    await back.until(/served by vhost-user/);
    const front = netemu(
      ...FRONT(path),
      ...['--guest', `probe,once,get=http://10.0.2.2:${web.port}/file,expect-sha256=${web.fileHash}`],
    );
    expect((await front.finished).status, front.output).toBe(0);
  });

  test("Linux in a QEMU on our vfio-user: its queues are served by another netemu's back-end", async () => {
    await prepare(['qemu-11.1', 'kernel-amd64', 'initramfs-amd64']);
    const web = await startWebServer(8 * MiB);
    closing.push(() => web.close());
    const path = join(folder, 'vm.sock');
    const nic = join(folder, 'nic.sock');
    const back = netemu(
      '--netdev',
      'user,id=n0',
      '--device',
      `virtio-net,netdev=n0,vhost-user=${path},server=on`,
    );
    await back.until(/served by vhost-user/);
    const [chardev, socket, netdevFlag, netdev] = FRONT(path) as [string, string, string, string];
    const front = netemu(
      ...[chardev, `${socket},reconnect-ms=${RECONNECT_MS}`, netdevFlag, netdev],
      ...['--device', `virtio-net-pci,netdev=n0,vfio-user=${nic}`],
    );
    await front.until(/served by vfio-user/);
    const result = await runGuest({
      qemu: '11.1',
      sharedMemory: true,
      args: ['-device', JSON.stringify({ driver: 'vfio-user-pci', socket: { type: 'unix', path: nic } })],
      script: {
        lease:
          'modprobe virtio_pci; modprobe virtio_net; ip link set eth0 up; udhcpc -n -q -t 10 -T 1 -i eth0',
        ping: 'ping -c 3 -W 5 10.0.2.2',
        get: `wget -q -O - http://10.0.2.2:${web.port}/file | sha256sum`,
        again: 'rmmod virtio_net; modprobe virtio_net; ip link set eth0 up; udhcpc -n -q -t 10 -T 1 -i eth0',
      },
    });
    expect(result.ok('lease')).toContain('10.0.2.15');
    expect(result.ok('ping')).toContain(' 0% packet loss');
    expect(result.ok('get')).toContain(web.fileHash);
    expect(result.ok('again')).toContain('10.0.2.15');
  });
});
