/** Back-ends that say what they should not, say nothing, or take more than they are given: the front-end gives them up, keeps running, leaks nothing, and serves with the next one. */
import { readdirSync } from 'node:fs';
import fc from 'fast-check';
import { afterEach, describe, expect, test } from 'vitest';
import { VirtualClock } from '../../../src/core/clock.ts';
import { concat, fields, u64 } from '../../guest/vhost-user/front-end.ts';
import { VhostGuest, type VhostGuestOptions } from '../../lib/vhost-guest.ts';
import { BackEnd, F_PROTOCOL, F_VERSION_1, PF, replyTo, type Script } from './back-end.ts';

const RECONNECT_MS = 10;
const clock = new VirtualClock();
let backEnd: BackEnd | null = null;
let guest: VhostGuest | null = null;
afterEach(() => {
  if (guest !== null) {
    const { pool } = guest.network;
    guest.close();
    expect(pool.free).toBe(pool.capacity);
    expect(guest.hostIo.stats().openHandles).toBe(0);
  }
  backEnd?.close();
  guest = null;
  backEnd = null;
});

function descriptors(): number {
  return readdirSync('/proc/self/fd').length;
}

/** A guest whose back-end may go wrong, and the time it takes to come back. */
async function start(
  script: Script = {},
  options: Partial<VhostGuestOptions> = {},
): Promise<{ back: BackEnd; guest: VhostGuest }> {
  backEnd = new BackEnd(script);
  guest = await VhostGuest.make({ path: backEnd.path, reconnectMs: RECONNECT_MS, clock, ...options });
  const made = guest;
  await made.until(() => made.nic.servedOutside);
  return { back: backEnd, guest: made };
}

/** Lets the wait before the next connection pass. */
function wait(ms: number): void {
  guest!.network.loop.runUntil(clock.nowNs() + ms * 1e6);
}

async function servedAgain(back: BackEnd, guest: VhostGuest): Promise<void> {
  const before = back.connections;
  wait(RECONNECT_MS + 1);
  await guest.until(() => back.connections > before && guest.nic.servedOutside);
}

const WRONG: readonly [string, Script['answer']][] = [
  ['another request', ({ request }) => ({ bytes: replyTo(request + 1, u64(0)) })],
  ['no reply flag', ({ request }) => ({ bytes: replyTo(request, u64(0), 1) })],
  ['another version', ({ request }) => ({ bytes: replyTo(request, u64(0), 6) })],
  ['a short payload', ({ request }) => ({ bytes: replyTo(request, new Uint8Array(4)) })],
  ['a long payload', ({ request }) => ({ bytes: replyTo(request, new Uint8Array(4096)) })],
  ['a length of 4 GiB', ({ request }) => ({ bytes: fields([request, 4], [5, 4], [0xffffffff, 4]) })],
  ['two replies', ({ request }) => ({ bytes: concat(replyTo(request, u64(0)), replyTo(request, u64(0))) })],
  [
    'half a reply, and then another',
    ({ request }) => ({ bytes: concat(replyTo(request, u64(0)).subarray(0, 15), replyTo(request, u64(0))) }),
  ],
  ['zeros', () => ({ bytes: new Uint8Array(64) })],
];

describe('hardening 55: a reply of', () => {
  test.each(WRONG)('%s ends the connection, and the next one serves', async (_name, answer) => {
    const { back, guest } = await start();
    const before = descriptors();
    back.script = { answer: answer! };
    guest.network.setLink('net0', false);
    await guest.until(() => guest.stats.badReplies! > 0 && !guest.netdev.ports[0]!.linkUp);
    guest.network.setLink('net0', true);
    back.script = {};
    await servedAgain(back, guest);
    expect(descriptors()).toBe(before);
  });

  test('no answer at all is waited for ten seconds', async () => {
    const { back, guest } = await start();
    back.script = { answer: () => null };
    guest.network.setLink('net0', false);
    const { requests } = guest.stats;
    await guest.until(() => guest.stats.requests! > requests!);
    wait(9_999);
    expect(guest.stats.replyTimeouts).toBe(0);
    wait(2);
    expect(guest.stats.replyTimeouts).toBe(1);
    guest.network.setLink('net0', true);
    back.script = {};
    await servedAgain(back, guest);
  });

  test('descriptors that nobody asked for are closed with the connection', async () => {
    const { back, guest } = await start();
    const before = descriptors();
    back.script = {
      answer: (_told, right) =>
        right && { bytes: right, fds: Array.from({ length: 20 }, () => back.hostIo.eventFd()) },
    };
    guest.network.setLink('net0', false);
    await guest.until(() => guest.stats.badReplies! > 0);
    guest.network.setLink('net0', true);
    back.script = {};
    await servedAgain(back, guest);
    expect(descriptors()).toBe(before);
  });

  test('"no" ends the connection', async () => {
    const { back, guest } = await start();
    back.script = { answer: ({ request }) => ({ bytes: replyTo(request, u64(22)) }) };
    guest.network.setLink('net0', false);
    await guest.until(() => guest.stats.badReplies === 1);
    guest.network.setLink('net0', true);
    back.script = {};
    await servedAgain(back, guest);
  });
});

test('hardening 55: what nobody asked for, with descriptors, again and again: as many are open afterwards', async () => {
  const { back, guest } = await start();
  const before = descriptors();
  for (let n = 0; n < 200; n++) {
    back.send(
      fields([n, 4], [5, 4], [8, 4]),
      Array.from({ length: 5 }, () => back.hostIo.eventFd()),
    );
    await guest.until(() => !guest.netdev.ports[0]!.linkUp);
    await servedAgain(back, guest);
  }
  expect(guest.stats.badReplies).toBe(200);
  expect(descriptors()).toBe(before);
});

test('hardening 55: over 10,000 messages as many descriptors are open', async () => {
  const { back, guest } = await start({
    protocol: PF.mq | PF.ack | PF.inflight | PF.slots | PF.rarp | PF.reset,
  });
  const before = descriptors();
  while (guest.stats.requests! < 10_000) {
    guest.network.setLink('net0', false);
    await guest.until(() => !guest.nic.servedOutside);
    guest.network.setLink('net0', true);
    await guest.until(() => guest.nic.servedOutside);
    back.told.length = 0;
  }
  expect(guest.stats.badReplies).toBe(0);
  expect(descriptors()).toBe(before);
}, 120_000);

test('hardening 55: any bytes, at any time', async () => {
  const { back, guest } = await start();
  const before = descriptors();
  await fc.assert(
    fc.asyncProperty(fc.uint8Array({ minLength: 1, maxLength: 200 }), async (bytes) => {
      back.send(bytes);
      await guest.until(() => !guest.netdev.ports[0]!.linkUp);
      await servedAgain(back, guest);
    }),
    { numRuns: 60 },
  );
  expect(descriptors()).toBe(before);
});

test.each([
  ['no queue pairs', { pairs: 0 }],
  ['no memory slots', { protocol: PF.mq | PF.slots, slots: 0 }],
] as const)('hardening 55: a back-end of %s cannot be opened', async (_name, script) => {
  backEnd = new BackEnd(script);
  await expect(VhostGuest.make({ path: backEnd.path, clock })).rejects.toThrow(/it has no/);
});

test('hardening 55: a back-end of absurdly many queue pairs and slots is one of many', async () => {
  const answer: Script['answer'] = ({ request }, right) =>
    right && {
      bytes: request === 17 || request === 36 ? replyTo(request, new Uint8Array(8).fill(0xff)) : right,
    };
  const { guest } = await start({ protocol: PF.mq | PF.slots | PF.ack, answer });
  expect(guest.stats.badReplies).toBe(0);
});

test('hardening 32: a back-end that comes back with less than the driver took is not used', async () => {
  const { back, guest } = await start();
  back.script = { features: F_VERSION_1 | F_PROTOCOL };
  back.hang();
  await guest.until(() => !guest.netdev.ports[0]!.linkUp);
  wait(RECONNECT_MS + 1);
  await guest.until(() => guest.stats.badBackends === 1);
  expect(guest.netdev.ports[0]!.linkUp).toBe(false);
  back.script = {};
  await servedAgain(back, guest);
});
