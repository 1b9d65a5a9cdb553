/**
 * The netemu command is killed (SIGKILL) while a guest uploads and downloads through it, and started again, several times: the guest's driver goes on with the rings that it has. Then the guest
 * is killed in mid-transfer, and the next one is served. And what netemu costs while the guest is idle.
 */

import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type Guest, type GuestResult, startGuest } from '../lib/guest.ts';
import { RunningNetemu } from '../lib/netemu.ts';
import { prepare } from '../lib/prepare.ts';
import { startWebServer, type WebServer } from '../vfio-user/services.ts';
import { LEASE, LOAD, vhostUserArgs } from './rig.ts';

const MiB = 1 << 20;
const KILLS = 4;
const UNTIL_PING = 'n=0; until ping -c 1 -W 1 10.0.2.2 >/dev/null; do n=$((n+1)); [ $n -lt 60 ]; done';

const folder = mkdtempSync(join(tmpdir(), 'netemu-restart-'));
const path = join(folder, 'vm.sock');
let netemu: RunningNetemu;
let web: WebServer;
let first: GuestResult;
let second: GuestResult;

const idle: { cpuMs: number; atMs: number }[] = [];

/** Processor time that a process has used. */
function cpuMs(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]!.split(' ');
  // In ticks of 10 ms, as Linux tells it on every machine.
  return 10 * (Number(fields[11]) + Number(fields[12]));
}

async function serve(): Promise<RunningNetemu> {
  netemu = new RunningNetemu([
    '--netdev',
    'user,id=n0',
    '--device',
    `virtio-net-pci,netdev=n0,id=nic0,vhost-user=${path},server=on`,
  ]);
  await netemu.until(/served by vhost-user/);
  return netemu;
}

beforeAll(async () => {
  await prepare(['tools', 'qemu-11.1']);
  web = await startWebServer(32 * MiB);
  const file = `http://10.0.2.2:${web.port}/file`;
  await serve();
  let guest: Guest | null = null;
  const options = { qemu: '11.1', sharedMemory: true, memoryMiB: 256, timeoutMs: 300_000 } as const;
  const args = vhostUserArgs({ qemu: '11.1', path, listen: true });
  const forever = (get: string): string =>
    `(set +e; while :; do wget -q -T 2 -O /dev/null ${get} 2>/dev/null; done)`;
  const traffic = `${forever(file)} & A=$!; ${forever(`--post-file /tmp/file ${file}`)} & B=$!;`;
  guest = await startGuest({
    ...options,
    args,
    host: {
      kill: async () => {
        netemu.child.kill('SIGKILL');
        await netemu.finished;
        await serve();
        return 'killed';
      },
      idle: () => {
        idle.push({ cpuMs: cpuMs(netemu.child.pid!), atMs: performance.now() });
        return 'measured';
      },
      die: () => {
        guest?.kill();
        return '';
      },
    },
    script: {
      // The engine tidies its memory once, some seconds after the last work: that is over when the measurement begins.
      idle: `set -e; ${LOAD}; ${LEASE}; ping -c 20 -A 10.0.2.2 >/dev/null; sleep 12; host idle; sleep 10; host idle`,
      bind: `set -e; ${LOAD}; ${LEASE}; wget -q -O /tmp/file ${file}`,
      kills: `set -e; ${traffic} for i in $(seq ${KILLS}); do ping -c 20 -A 10.0.2.2 >/dev/null; host kill; ${UNTIL_PING}; done; kill $A $B; killall wget || true`,
      again: `wget -q -O - ${file} | sha256sum && wget -q -O - --post-file /tmp/file ${file}`,
      dmesg: 'dmesg -r',
      die: `wget -q -O /dev/null ${file} & ping -c 3 -A 10.0.2.2; host die; sleep 60`,
    },
  });
  first = await guest.done;
  second = await (
    await startGuest({
      ...options,
      args,
      script: { bind: `set -e; ${LOAD}; ${LEASE}; ping -c 3 -A 10.0.2.2` },
    })
  ).done;
});

afterAll(async () => {
  web?.close();
  await netemu?.stop();
  rmSync(folder, { recursive: true });
});

test('a guest that has nothing to say costs less than 0.5 % of a processor', () => {
  const [from, to] = idle as [(typeof idle)[0], (typeof idle)[0]];
  const share = (to.cpuMs - from.cpuMs) / (to.atMs - from.atMs);
  console.log(`netemu with an idle guest: ${(100 * share).toFixed(2)} % of a processor`);
  expect(share).toBeLessThan(0.005);
});

test('the guest goes on after each kill, with its rings as they are', () => {
  expect(first.ok('kills').match(/^killed$/gm)?.length).toBe(KILLS);
  expect(first.ok('again')).toContain(web.fileHash);
  expect(first.ok('again')).toContain('stored');
});

test('the driver found nothing wrong with what it was given back', () => {
  const complaints = first
    .ok('dmesg')
    .split('\n')
    .filter((line) => /virtio|eth0|NETDEV WATCHDOG|not a head|unexpected/i.test(line))
    .filter((line) => Number(line.match(/^<(\d+)>/)?.[1]) % 8 <= 4);
  expect(complaints).toEqual([]);
});

test('a guest that is killed in mid-transfer makes room for the next one', () => {
  expect(first.steps.at(-1)).toMatchObject({ name: 'die', status: null });
  expect(second.ok('bind')).toContain('3 packets received');
});
