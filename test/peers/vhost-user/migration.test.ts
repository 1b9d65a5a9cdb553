/**
 * A Linux guest moves live from one QEMU to another, each on a netemu back-end of its own, while it downloads: the first netemu logs the pages that it writes for QEMU to copy, the second goes on where
 * the rings stand, and tells the network by RARP where the guest is now. The two are on one Ethernet: a hub of a third netemu with the user network
 * on it, and a stream to each.
 */

import { createHash } from 'node:crypto';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { seededRandom } from '../../../src/core/clock.ts';
import { type Guest, type GuestResult, startGuest } from '../lib/guest.ts';
import { prepare } from '../lib/prepare.ts';
import { Qmp } from '../lib/qmp.ts';
import { LEASE, LOAD, Rig, type Seat } from './rig.ts';

const CHUNK_BYTES = 1 << 16;
const QEMU = '11.1';
/** More than any test sends: the stream ends when `end` says so. */
const ENDLESS = 2 ** 40;

/** Serves one stream that goes on until it is ended, and hashes what it sent. */
class Stream {
  readonly server: Server;
  readonly #hash = createHash('sha256');
  readonly #chunk = Buffer.from(Uint32Array.from({ length: CHUNK_BYTES / 4 }, seededRandom(3)).buffer);
  sentBytes = 0;
  #endAt = ENDLESS;
  #waiting: [number, () => void][] = [];

  constructor() {
    this.server = createServer((_request, response) => {
      const more = (): void => {
        for (;;) {
          if (this.sentBytes >= this.#endAt) {
            response.end();
            return;
          }
          this.#chunk.writeUInt32LE(this.sentBytes / CHUNK_BYTES, 0);
          const bytes = Buffer.from(this.#chunk);
          this.#hash.update(bytes);
          this.sentBytes += CHUNK_BYTES;
          const goOn = response.write(bytes);
          this.#waiting = this.#waiting.filter(([at, resolve]) => this.sentBytes < at || resolve());
          if (!goOn) {
            response.once('drain', more);
            return;
          }
        }
      };
      more();
    });
  }

  /** Resolves when `bytes` more were sent. */
  async after(bytes: number): Promise<void> {
    const at = this.sentBytes + bytes;
    await new Promise<void>((resolve) => this.#waiting.push([at, resolve]));
  }

  end(): void {
    this.#endAt = this.sentBytes;
  }

  get hash(): string {
    return this.#hash.copy().digest('hex');
  }
}

const PLAN: readonly [string, string][] = [
  ['split', ''],
  ['packed', ',packed=on'],
];

describe.each(PLAN)('%s', (_name, properties) => {
  let world: Rig;
  let here: Rig;
  let there: Rig;
  let source: Seat;
  let target: Seat;
  let stream: Stream;
  let result: GuestResult;
  let status: { status?: string; 'dirty-sync-count'?: number } = {};
  let sentWhileMoving = 0;
  let missed = 0;

  beforeAll(async () => {
    await prepare(['tools', 'qemu-11.1']);
    stream = new Stream();
    await new Promise<void>((resolve) => stream.server.listen(0, '127.0.0.1', resolve));
    const { port } = stream.server.address() as AddressInfo;
    // What is behind a NIC decides what it offers, and QEMU moves a guest only to a NIC that offers all that it uses: both have the same behind them.
    world = await Rig.make({ type: 'user', id: 'n0' });
    await world.network.addNetdev({ type: 'hubport', id: 'h0', hubid: 0, netdev: 'n0' });
    const attach = async (name: string): Promise<Rig> => {
      const addr = { type: 'unix', path: join(world.folder, name) } as const;
      await world.network.addNetdev({ type: 'stream', id: name, server: true, addr });
      await world.network.addNetdev({ type: 'hubport', id: `h-${name}`, hubid: 0, netdev: name });
      return await Rig.make({ type: 'stream', id: 'n0', server: false, addr });
    };
    here = await attach('here');
    there = await attach('there');
    const device = { driver: 'virtio-net-pci', packed: true };
    source = here.seat({ ...device, netdev: 'n0', id: 'nic0' } as never);
    target = there.seat({ ...device, netdev: 'n0', id: 'nic0' } as never);

    const monitors = [join(here.folder, 'qmp'), join(there.folder, 'qmp')] as const;
    const channel = join(here.folder, 'migrate.sock');
    let second: Guest | null = null;
    let moved: Promise<void> | null = null;
    let first: Qmp | null = null;

    const migrate = async (): Promise<void> => {
      await stream.after(4 << 20);
      first = await Qmp.connect(monitors[0]);
      await first.run('migrate-set-parameters', { 'max-bandwidth': 2 ** 33 });
      const before = stream.sentBytes;
      await first.run('migrate', { uri: `unix:${channel}` });
      do {
        status = (await first.run('query-migrate')) as typeof status;
        missed += source.host.memory.dirtyLog?.missed ?? 0;
        // A moment of the guest's, not of the clock's.
        if (status.status === 'active') await stream.after(CHUNK_BYTES);
      } while (status.status !== 'completed' && status.status !== 'failed');
      sentWhileMoving = stream.sentBytes - before;
      await stream.after(4 << 20);
      stream.end();
    };

    const options = {
      qemu: QEMU,
      sharedMemory: true,
      memoryMiB: 256,
      timeoutMs: 300_000,
      script: {
        bind: `set -e; ${LOAD}; ${LEASE}`,
        download: `wget -q -O - http://10.0.2.2:${port}/stream | sha256sum >/tmp/hash & host migrate; wait`,
        // From here on the steps are told to the target's harness.
        moved: 'host where; cat /tmp/hash',
        ping: 'ping -c 5 -A 10.0.2.2',
        dmesg: 'dmesg -r',
      },
    } as const;
    const args = (seat: Seat, monitor: string): string[] => [
      ...seat.qemuArgs({ qemu: QEMU, properties: `${properties},guest_announce=off` }),
      '-qmp',
      `unix:${monitor},server=on,wait=off`,
    ];
    second = await startGuest({
      ...options,
      args: [...args(target, monitors[1]), '-incoming', `unix:${channel}`],
      host: { where: () => 'at the target' },
    });
    const guest = await startGuest({
      ...options,
      args: args(source, monitors[0]),
      host: {
        where: () => 'at the source',
        migrate: () => {
          moved = migrate();
          return 'begun';
        },
      },
    });
    guest.done.catch(() => {});
    result = await second.done;
    await moved;
    await (first as Qmp | null)?.run('quit');
    await guest.done;
  });

  afterAll(() => {
    stream?.server.closeAllConnections();
    stream?.server.close();
    here?.close();
    there?.close();
    world?.close();
  });

  test('the guest moves while its download runs, and ends at the target', () => {
    expect(status.status).toBe('completed');
    expect(result.ok('moved')).toContain('at the target');
    expect(sentWhileMoving).toBeGreaterThan(0);
    expect(source.backend.connected).toBe(false);
  });

  test('the pages that the source wrote went to the log', () => {
    expect(source.backend.ringStats.logsBegun).toBe(1);
    expect(missed).toBe(0);
    expect(source.host.memory.dirtyLog).toBeNull();
  });

  test('no byte of the download was lost or changed', () => {
    expect(stream.sentBytes).toBeGreaterThan(8 << 20);
    expect(result.ok('moved')).toContain(stream.hash);
  });

  test('the network hears by RARP where the guest is now, and the gateway answers it there', () => {
    expect(target.backend.ringStats.announcements).toBeGreaterThan(0);
    expect(target.backend.ringStats.announcementsLost).toBe(0);
    expect(result.ok('ping')).toContain('5 packets received');
  });

  test('no ring was broken, no message was bad, and the kernel has no complaint', () => {
    for (const { nic, backend } of [source, target]) {
      expect(nic.stats.brokenRings).toBe(0);
      expect(backend.wireStats.badMessages).toBe(0);
    }
    const complaints = result
      .ok('dmesg')
      .split('\n')
      .filter((line) => /virtio|eth0|NETDEV WATCHDOG|not a head/i.test(line))
      .filter((line) => Number(line.match(/^<(\d+)>/)?.[1]) % 8 <= 4);
    expect(complaints).toEqual([]);
  });
});
