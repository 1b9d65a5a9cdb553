/** netmap against memory laid out as the published interface says, and the ioctls on it: the module itself was never here. */

import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { NetmapStats } from '../../src/backends/netmap-port.ts';
import { packet, tags } from '../lib/context.ts';
import { BackendLab } from './lab.ts';
import { type KernelOptions, NetmapKernel } from './netmap-kernel.ts';
import { pairSuite } from './pair-suite.ts';

/** Any file: who answers its ioctls is the kernel of the test. */
const devname = '/dev/null';

pairSuite({
  name: 'netmap, two ports of one memory',
  frameMaxBytes: 69_632,
  async open(lab) {
    new NetmapKernel(lab.hostIo, { slots: 512 });
    return [
      await lab.open('netmap', { ifname: 'vale0:a', devname }),
      await lab.open('netmap', { ifname: 'vale0:b', devname }),
    ];
  },
});

describe('netmap', () => {
  let lab: BackendLab;

  beforeEach(() => {
    lab = new BackendLab();
  });

  afterEach(() => lab.end());

  async function joined(options: KernelOptions = {}) {
    const kernel = new NetmapKernel(lab.hostIo, options);
    const a = await lab.open('netmap', { ifname: 'eth0', devname });
    const b = await lab.open('netmap', { ifname: 'eth1', devname });
    return { kernel, a, b, guestA: lab.guest(a), guestB: lab.guest(b) };
  }

  it('speaks to the API that the kernel has, and names the port', async () => {
    const { kernel, a } = await joined({ api: 12 });
    expect(kernel.versions.slice(0, 3)).toEqual([14, 13, 12]);
    expect(kernel.names).toEqual(['eth0', 'eth1']);
    expect(a.describe()).toBe('ifname=eth0');
  });

  it('finds the receive rings behind the host’s, which old kernels do not count and new ones may have several of', async () => {
    for (const hostRings of [0, 1, 3]) {
      const { guestA, guestB } = await joined({ hostRings, rxRings: 2 });
      guestA.send(packet(hostRings + 1));
      await lab.until(() => guestB.received.length === 1);
      expect(tags(guestB.received)).toEqual([hostRings + 1]);
    }
  });

  it('tells the kernel once of a batch, and reads without a system call', async () => {
    const { kernel, guestA, guestB } = await joined({ slots: 128 });
    for (let round = 0; round < 10; round++) {
      guestA.send(...Array.from({ length: 60 }, (_, i) => packet(i)));
      lab.settle();
    }
    expect(guestB.received.length).toBe(600);
    expect(kernel.txSyncs).toBe(10);
    expect(kernel.rxSyncs).toBe(0);
  });

  it('reads every receive ring, and keeps the order within each', async () => {
    const { kernel, guestA, guestB } = await joined({ rxRings: 4, slots: 64 });
    let next = 0;
    kernel.pickRing = () => next++ % 4;
    guestA.send(...Array.from({ length: 40 }, (_, i) => packet(i)));
    await lab.until(() => guestB.received.length === 40);
    const got = tags(guestB.received);
    for (let ring = 0; ring < 4; ring++)
      expect(got.filter((tag) => tag % 4 === ring)).toEqual(
        Array.from({ length: 10 }, (_, i) => 4 * i + ring),
      );
  });

  it('lets the guest wait while the ring is full, and goes on in order when the kernel took some', async () => {
    const { kernel, guestA, guestB } = await joined({ slots: 16 });
    kernel.cableTakes = false;
    guestA.send(...Array.from({ length: 30 }, (_, i) => packet(i)));
    expect(guestA.waiting.length).toBe(15);
    lab.settle();
    expect(guestA.waiting.length).toBe(15);
    kernel.cableTakes = true;
    await lab.until(() => guestB.received.length === 30);
    expect(tags(guestB.received)).toEqual(Array.from({ length: 30 }, (_, i) => i));
  });

  it('sends frames longer than the ring never, counted, and the rest of the batch', async () => {
    const { a, guestA, guestB } = await joined({ slots: 16, bufferBytes: 512 });
    guestA.send(packet(1), packet(2, 15 * 512 + 1), packet(3, 15 * 512));
    await lab.until(() => guestB.received.length === 2);
    expect(guestB.received.map(({ length }) => length)).toEqual([60, 15 * 512]);
    expect((a.stats as NetmapStats).txDropTooLong).toBe(1);
  });

  it('hardening 15: throws away slots that lead outside of the memory, with lengths over a buffer or without an end', async () => {
    const { kernel, b, guestA, guestB } = await joined({ slots: 256 });
    const ring = kernel.ports[1]!.rx[0]!;
    const slot = (i: number) => ring.at + 256 + 16 * i;
    const { view } = kernel;
    guestA.send(...Array.from({ length: 100 }, (_, i) => packet(i)));
    view.setUint32(slot(1), 0xffff_fff0, true);
    view.setUint16(slot(2) + 4, 2049, true);
    for (let i = 3; i < 80; i++) view.setUint16(slot(i) + 6, 0x20, true);
    await lab.until(() => guestB.received.length > 0 && tags(guestB.received).includes(99));
    // One for each of the first two; 64 slots and then the rest of those that say that more follows.
    expect((b.stats as NetmapStats).rxDropBadSlots).toBeGreaterThanOrEqual(3);
    expect(tags(guestB.received).slice(0, 1)).toEqual([0]);
    expect(tags(guestB.received).slice(-19)).toEqual(Array.from({ length: 19 }, (_, i) => 81 + i));
    view.setUint32(ring.at + 20, 0xffff_ffff, true);
    lab.settle();
  });

  it('whose interface goes away takes its link down, says so, and drops what comes', async () => {
    const { kernel, a, guestA } = await joined();
    kernel.ports[0]!.gone = true;
    await lab.until(() => !a.ports[0]!.linkUp);
    expect(lab.logged).toEqual(['interface eth0 is gone']);
    expect(guestA.links.at(-1)).toBe(false);
    guestA.send(packet(1));
    expect(guestA.port.stats.dropLinkDown).toBe(1);
    expect(kernel.unmapped).toBe(1);
  });

  it('says why it cannot be', async () => {
    expect(await lab.refusal('netmap', { ifname: 'eth0' })).toBe(
      "netdev type 'netmap' needs the netmap kernel module, which is not loaded (there is no /dev/netmap)",
    );
    expect(await lab.refusal('netmap', { ifname: 'eth0', devname: lab.folder })).toBe(
      `could not open ${lab.folder}: Is a directory`,
    );
    // A device that knows no such request.
    expect(await lab.refusal('netmap', { ifname: 'eth0', devname })).toBe(
      'could not put eth0 in netmap mode: Inappropriate ioctl for device',
    );
    expect(await lab.refusal('netmap', { ifname: 'a-name-of-sixteen' })).toBe(
      "Parameter 'ifname' expects an interface or valeX:Y (1 to 15 characters)",
    );
    new NetmapKernel(lab.hostIo, { refuse: 6 });
    expect(await lab.refusal('netmap', { ifname: 'eth9', devname })).toBe(
      'could not put eth9 in netmap mode: No such device or address',
    );
    new NetmapKernel(lab.hostIo, { api: 99 });
    expect(await lab.refusal('netmap', { ifname: 'eth9', devname })).toBe(
      'could not put eth9 in netmap mode: Invalid argument',
    );
  });

  it('refuses rings that lie outside of the memory', async () => {
    for (const at of [4096 + 56, 12_288 + 8]) {
      const kernel = new NetmapKernel(lab.hostIo);
      kernel.view.setInt32(at, 0x7fff_fff0, true);
      expect(await lab.refusal('netmap', { ifname: 'eth0', devname })).toBe(
        'the netmap device describes rings outside of its memory',
      );
      expect(kernel.unmapped).toBe(1);
    }
  });
});
