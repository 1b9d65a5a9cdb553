/**
 * What every driver of every model is put through beyond its own tests: iperf3 both ways, each offload on and off, VLANs. Steps for the guest, the answers of this
 * process, and what must have come out.
 */

import { join } from 'node:path';
import { expect } from 'vitest';
import type { Port, PortStats } from '../../../src/core/port.ts';
import { run } from '../lib/command.ts';
import type { GuestResult } from '../lib/guest.ts';
import { iperfCommand } from '../lib/iperf.ts';
import type { Rig } from './rig.ts';
import { uploadCommand, type WebServer } from './services.ts';

/** The issue asks for ten seconds each way of iperf3; CI has time for fewer. */
const IPERF_SECONDS = Number(process.env.NETEMU_IPERF_SECONDS ?? 3);

export function iperfSteps(port: number, seconds = IPERF_SECONDS): Record<string, string> {
  return {
    iperfUp: iperfCommand(port, `-t ${seconds}`),
    iperfDown: iperfCommand(port, `-t ${seconds} -R`),
  };
}

/**
 * Both ways ran for their time and never stood still: no two seconds in a row without a byte (in one, a machine that is busy with other things may have given the guest none
 * of its time).
 */
export function expectNoStall(result: GuestResult, seconds = IPERF_SECONDS): void {
  for (const step of ['iperfUp', 'iperfDown']) {
    const report = JSON.parse(result.ok(step)) as {
      intervals: { sum: { bytes: number; seconds: number } }[];
    };
    const intervals = report.intervals.map(({ sum }) => sum);
    const ran = intervals.reduce((sum, interval) => sum + interval.seconds, 0);
    expect(ran, step).toBeGreaterThan(seconds - 1);
    const still = intervals.filter((one, i) => i > 0 && one.bytes === 0 && intervals[i - 1]!.bytes === 0);
    expect(still, step).toEqual([]);
  }
}

/** Settings of `ethtool -K`, each from a state where all that can be is on. */
const OFFLOADS: Readonly<Record<string, string>> = {
  all: '',
  tsoOff: 'tso off',
  gsoOff: 'tso off gso off',
  txOff: 'tso off gso off tx off',
  rxOff: 'rx off gro off',
  noneOn: 'tso off gso off tx off sg off rx off gro off',
};

/**
 * Moves the web server's file both ways in each setting, then 4 MiB by iperf3, whose writes are long enough to be cut into segments (the upload's are a KiB each).
 * `host frames` tells how many frames the NIC's port has seen, `host segmentations` how many of them were left to be cut.
 */
export function offloadSteps(web: WebServer, iperfPort: number): Record<string, string> {
  const file = `http://10.0.2.2:${web.port}/file`;
  const all = 'for o in rx tx sg tso gso gro; do ethtool -K eth0 $o on 2>/dev/null; done';
  const counted = `n=0; until before=$(host frames); cut=$(host segmentations); iperf3 -c 10.0.2.2 -p ${iperfPort} -n 4M >/dev/null 2>&1; do n=$((n+1)); [ $n -lt 50 ] || exit 1; sleep 0.2; done
      echo sent $(($(host frames)-before)) frames, $(($(host segmentations)-cut)) cut by the NIC`;
  const steps = Object.entries(OFFLOADS).map(([name, off]) => [
    `offloads-${name}`,
    `${all}; set -- ${off}; while [ $# -gt 0 ]; do ethtool -K eth0 $1 $2 2>/dev/null; shift 2; done; ethtool -k eth0
      wget -q -O /tmp/part ${file} && sha256sum </tmp/part; ${uploadCommand('/tmp/part', '10.0.2.2', web.port)}; ${counted}; ${all}; true`,
  ]);
  return Object.fromEntries(steps);
}

interface OffloadResult {
  readonly frames: number;
  readonly segmentations: number;
  readonly settings: string;
}

/** The bytes were right in every setting; returns how many frames each took, and what `ethtool -k` said. */
export function expectOffloads(result: GuestResult, web: WebServer): Record<string, OffloadResult> {
  const found: Record<string, OffloadResult> = {};
  for (const name of Object.keys(OFFLOADS)) {
    const text = result.ok(`offloads-${name}`);
    // Once as it came down, once as it went up.
    expect(text.split(web.fileHash).length - 1, name).toBe(2);
    const [, frames, segmentations] = text.match(/^sent (\d+) frames, (\d+) cut by the NIC$/m)!;
    found[name] = { frames: Number(frames), segmentations: Number(segmentations), settings: text };
  }
  return found;
}

/** Where the driver has segmentation, it is used, and saves frames, until it is switched off. */
export function expectSegmentation(found: Record<string, OffloadResult>): void {
  expect(found.all!.settings).toMatch(/^tcp-segmentation-offload: on/m);
  expect(found.gsoOff!.settings).toMatch(/^tcp-segmentation-offload: off/m);
  expect(found.noneOn!.settings).toMatch(/^tx-checksumming: off/m);
  expect(found.all!.segmentations).toBeGreaterThan(0);
  for (const off of ['tsoOff', 'gsoOff', 'noneOn']) expect(found[off]!.segmentations, off).toBe(0);
  for (const off of ['tsoOff', 'gsoOff'])
    expect(found[off]!.frames, off).toBeGreaterThan(1.5 * found.all!.frames);
}

export const VLANS = [5, 100, 4001] as const;
/** An id that the guest has no device for. */
const FOREIGN = 77;
const octet = (id: number): number => id % 200;

/** VLAN devices, and when they can send (a kernel drops what goes out before), `host tag ID` has the network ask for the guest's address there, tagged. */
export const VLAN_STEPS: Readonly<Record<string, string>> = {
  vlans: `set -e; modprobe 8021q
    for i in ${VLANS.join(' ')}; do ip link add link eth0 name eth0.$i type vlan id $i; ip addr add 10.$((i%200)).0.1/24 dev eth0.$i; ip link set eth0.$i up; done
    for i in ${VLANS.join(' ')}; do n=0; until [ "$(cat /sys/class/net/eth0.$i/operstate)" = up ]; do n=$((n+1)); [ $n -lt 100 ]; sleep 0.1; done; ip link show eth0.$i >/dev/null; done
    host vlan before; for i in ${VLANS.join(' ')} ${FOREIGN}; do host tag $i; done
    for i in ${VLANS.join(' ')}; do n=0; while [ "$(cat /sys/class/net/eth0.$i/statistics/rx_packets)" = 0 ]; do n=$((n+1)); [ $n -lt 100 ]; sleep 0.1; done; done
    host vlan after; ping -c 1 10.0.2.2; for i in ${VLANS.join(' ')}; do ip link del eth0.$i; done; ping -c 1 10.0.2.2`,
};

/** A broadcast ARP request for the guest's address on a VLAN, tagged, from 10.N.0.2. */
function taggedRequest(id: number): Uint8Array {
  const n = octet(id);
  const sender = [0x52, 0x54, 0, 0, 0, n];
  const bytes = [...new Array<number>(6).fill(0xff), ...sender, 0x81, 0, id >> 8, id & 255, 8, 6];
  bytes.push(0, 1, 8, 0, 6, 4, 0, 1, ...sender, 10, n, 0, 2, 0, 0, 0, 0, 0, 0, 10, n, 0, 1);
  return Uint8Array.from({ length: 64 }, (_, i) => bytes[i] ?? 0);
}

export interface MatrixNotes {
  readonly vlan: Map<string, Record<string, number>>;
}

/** The answers that the steps above ask for. */
export function matrixHandlers(
  rig: Rig,
  counters: () => Record<string, number>,
  notes: MatrixNotes,
): Record<string, (argument: string) => string> {
  const { network, device } = rig;
  const netdev = (): Port => network.netdevs.get('n0')!.ports[0]!;
  return {
    frames: () =>
      String(device.nic.ports.reduce((sum, { stats }: { stats: PortStats }) => sum + stats.sentFrames, 0)),
    segmentations: () => String(counters().txSegmentations),
    tag: (id) => {
      const frame = network.pool.from(taggedRequest(Number(id)));
      if (netdev().send(Int32Array.of(frame), 0, 1) === 0) network.pool.release(frame);
      return 'sent';
    },
    vlan: (name) => {
      notes.vlan.set(name, { ...counters() });
      return 'noted';
    },
  };
}

/** Frames came to each VLAN device and its answers went out with its tag; `filtered`: the foreign one was kept out by the NIC. */
export async function expectVlans(
  result: GuestResult,
  capture: string,
  notes: MatrixNotes,
  filtered: boolean,
): Promise<void> {
  expect(result.ok('vlans').match(/1 packets received/g)?.length).toBe(2);
  const fields = ['-T', 'fields', '-e', 'vlan.id', '-e', 'arp.src.proto_ipv4', '-e', 'arp.dst.proto_ipv4'];
  const rows = await run('tshark', ['-r', capture, '-Y', 'vlan && arp.opcode == 2', ...fields]);
  const seen = new Set(rows.trim().split('\n'));
  expect([...seen].sort()).toEqual(
    VLANS.map((id) => `${id}\t10.${octet(id)}.0.1\t10.${octet(id)}.0.2`).sort(),
  );
  const dropped = (name: string): number => notes.vlan.get(name)!.rxDropVlan ?? 0;
  expect(dropped('after') - dropped('before')).toBe(filtered ? 1 : 0);
}

export const captureOf = (rig: Rig, name: string): string => join(rig.folder, `${name}.pcap`);
