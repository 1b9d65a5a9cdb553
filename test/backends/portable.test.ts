/** The backends that work where the addon cannot be loaded do, and the others say that they need it. */

import { describe, expect, it } from 'vitest';
import { packet } from '../lib/context.ts';
import { BackendLab } from './lab.ts';
import { PAIRS } from './pairs.ts';

describe('without the addon', () => {
  it.each(
    PAIRS.filter(({ name }) => name !== 'dgram, unix'),
  )('$name carries frames both ways', async (pair) => {
    const lab = new BackendLab({ portable: true });
    const [a, b] = await pair.open(lab);
    await lab.until(() => a.ports[0]!.linkUp && b.ports[0]!.linkUp, 'the link');
    const guestA = lab.guest(a);
    const guestB = lab.guest(b);
    // A websocket's server may know of its client a little later than the client does.
    await lab.until(() => {
      if (guestA.received.length === 0) guestB.send(packet(1));
      if (guestB.received.length === 0) guestA.send(packet(1));
      return guestA.received.length > 0 && guestB.received.length > 0;
    });
    const lengths = [60, 1514, 2049, 9000, 60_000];
    for (const [i, length] of lengths.entries()) {
      guestA.send(packet(i + 2, length));
      guestB.send(packet(i + 2, length));
    }
    const long = (received: readonly Uint8Array[]) => received.filter((bytes) => bytes[14] !== 1);
    await lab.until(
      () => long(guestA.received).length === 5 && long(guestB.received).length === 5,
      'the frames',
    );
    for (const [i, length] of lengths.entries()) {
      expect(Buffer.compare(long(guestA.received)[i]!, packet(i + 2, length))).toBe(0);
      expect(Buffer.compare(long(guestB.received)[i]!, packet(i + 2, length))).toBe(0);
    }
    await lab.end();
  });

  it('says what needs it', async () => {
    const lab = new BackendLab({ portable: true });
    const unix = (name: string) => ({ type: 'unix', path: lab.path(name) });
    expect(await lab.refusal('tap', { ifname: 'x' })).toMatch(/^a tap needs the native addon/);
    expect(await lab.refusal('dgram', { local: unix('a'), remote: unix('b') })).toMatch(
      /^a unix datagram socket needs the native addon/,
    );
    expect(await lab.refusal('bridge', {})).toMatch(/needs the native addon/);
    await lab.end();
  });
});

describe('a netdev at every address', () => {
  it('is told to the user', async () => {
    const lab = new BackendLab();
    await lab.open('socket', { listen: ':0' });
    await lab.open('stream', { server: true, addr: { type: 'inet', host: '', port: '0' } });
    await lab.open('socket', { listen: '127.0.0.1:0' });
    expect(lab.logged).toEqual([
      'netdev n0 takes frames at every address of this machine (0.0.0.0), from whoever reaches it',
      'netdev n1 takes frames at every address of this machine (0.0.0.0), from whoever reaches it',
    ]);
    await lab.end();
  });
});
