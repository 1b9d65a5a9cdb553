/** The host has no room for a frame: EAGAIN, ENOBUFS, ENOMEM and a network that is down, from the kernel itself or put in its place. */

import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { DatagramPortStats } from '../../src/backends/datagram-port.ts';
import { ERRNO } from '../../src/host-io/host-io.ts';
import { packet, type RecordingClient, tags } from '../lib/context.ts';
import { BackendLab, freePorts } from './lab.ts';

const LOCAL = '127.0.0.1';
const inet = (port: number) => ({ type: 'inet', host: LOCAL, port: String(port) });

let lab: BackendLab;

beforeEach(() => {
  lab = new BackendLab();
});

afterEach(() => lab.end());

interface Link {
  guest: RecordingClient;
  far: RecordingClient;
  stats: DatagramPortStats;
}

async function link(): Promise<Link> {
  const [a, b] = freePorts(lab, 2) as [number, number];
  const near = await lab.open('dgram', { local: inet(a), remote: inet(b) });
  const far = await lab.open('dgram', { local: inet(b), remote: inet(a) });
  return { guest: lab.guest(near), far: lab.guest(far), stats: near.stats as DatagramPortStats };
}

/** The next `times` sends end with `errno`; returns how many were tried. */
function failing(errno: number, times: number): () => number {
  const { hostIo } = lab;
  const send = hostIo.sendDatagrams.bind(hostIo);
  let tried = 0;
  hostIo.sendDatagrams = (...words) => {
    tried++;
    return tried <= times ? -errno : send(...words);
  };
  return () => tried;
}

const batch = (from: number, count: number) => Array.from({ length: count }, (_, i) => packet(from + i));

describe('frames for a host without room', () => {
  it.each([
    ['ENOBUFS', ERRNO.ENOBUFS],
    ['ENOMEM', ERRNO.ENOMEM],
  ])('are kept over a few %s and go out in order, none lost', async (_name, errno) => {
    const { guest, far, stats } = await link();
    const tried = failing(errno, 5);
    guest.send(...batch(1, 10));
    expect(guest.waiting.length).toBe(10);
    expect(tried()).toBe(1);
    await lab.untilLater(() => far.received.length === 10, 1e6);
    expect(tags(far.received)).toEqual(Array.from({ length: 10 }, (_, i) => i + 1));
    expect(stats).toMatchObject({ txFrames: 10, txRetries: 5, txDropNoBuffers: 0 });
  });

  it('are lost after eight tries, counted, and hold the guest no longer; with room again all pass', async () => {
    const { guest, far, stats } = await link();
    const tried = failing(ERRNO.ENOBUFS, 20);
    guest.send(...batch(1, 10));
    await lab.untilLater(() => guest.waiting.length === 0, 1e6);
    expect(stats).toMatchObject({ txRetries: 8, txDropNoBuffers: 10, txFrames: 0 });
    const after = tried();
    expect(after).toBe(18);
    // Two more fail, each once.
    guest.send(...batch(11, 4));
    await lab.until(() => far.received.length === 2);
    expect(tags(far.received)).toEqual([13, 14]);
    expect(stats).toMatchObject({ txRetries: 8, txDropNoBuffers: 12, txFrames: 2 });
  });

  it('wait for the descriptor after EAGAIN, without being tried meanwhile', async () => {
    const { guest, far, stats } = await link();
    const tried = failing(ERRNO.EAGAIN, 1);
    guest.send(...batch(1, 3));
    expect(guest.waiting.length).toBe(3);
    expect(tried()).toBe(1);
    await lab.until(() => far.received.length === 3);
    expect(stats).toMatchObject({ txBlocked: 1, txFrames: 3, txRetries: 0 });
  });

  it.each([
    ['ENETDOWN', ERRNO.ENETDOWN],
    ['EHOSTUNREACH', ERRNO.EHOSTUNREACH],
  ])('are dropped and counted with %s, the rest of the batch passes', async (_name, errno) => {
    const { guest, far, stats } = await link();
    failing(errno, 2);
    guest.send(...batch(1, 4));
    await lab.until(() => far.received.length === 2);
    expect(tags(far.received)).toEqual([3, 4]);
    expect(stats).toMatchObject({ txDropUnreachable: 2, txFrames: 2 });
  });

  it('wait no longer than their netdev', async () => {
    const { guest, stats } = await link();
    failing(ERRNO.ENOBUFS, 1);
    guest.send(packet(1));
    expect(stats.txRetries).toBe(1);
    // The end of the test checks that no frame and no timer is left.
  });

  it('wait in the guest while a unix peer does not read, and all arrive when it does', async () => {
    const one = { type: 'unix', path: lab.path('1') };
    const two = { type: 'unix', path: lab.path('2') };
    const far = await lab.open('dgram', { local: two, remote: one });
    const near = await lab.open('dgram', { local: one, remote: two });
    const farGuest = lab.guest(far);
    const guest = lab.guest(near);
    const stats = near.stats as DatagramPortStats;
    farGuest.room = 0;
    // The kernel's own EAGAIN: its queue for a unix socket has a few places.
    let sent = 0;
    while (guest.waiting.length === 0 && sent < 5000) {
      guest.send(packet(sent++ & 0xff));
      if (sent % 8 === 0) lab.settle();
    }
    expect(stats.txBlocked).toBeGreaterThan(0);
    farGuest.allow(Number.POSITIVE_INFINITY);
    await lab.until(() => farGuest.received.length === sent);
    expect(tags(farGuest.received)).toEqual(Array.from({ length: sent }, (_, i) => i & 0xff));
  });
});
