/**
 * Two netemu processes joined by every kind of backend: one end of each pair lives in a child, whose hub passes everything on to a second link back
 * to here. The child is then killed, and netemu's link is what it says.
 */

import { type ChildProcess, spawn } from 'node:child_process';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import type { Backend } from '../../src/backends/backend.ts';
import { BackendLab, freePorts } from '../backends/lab.ts';
import { PAIRS } from '../backends/pairs.ts';
import { packet, tags } from '../lib/context.ts';

const ROOT = new URL('../..', import.meta.url).pathname;

/** Numbers over 2^53 as JSON writes them. */
function json(value: Record<string, unknown>): string {
  return JSON.stringify(value, (_key, item) => (typeof item === 'bigint' ? `big:${item}` : item)).replace(
    /"big:(\d+)"/g,
    '$1',
  );
}

async function netemu(netdevs: readonly Record<string, unknown>[]): Promise<ChildProcess> {
  const child = spawn(
    process.execPath,
    ['--import', 'tsx', join(ROOT, 'bench/peers/netemu-hub.ts'), '0', ...netdevs.map(json)],
    { cwd: ROOT, stdio: ['ignore', 'pipe', 'inherit'] },
  );
  await new Promise<void>((resolve, reject) => {
    child.stdout.once('data', () => resolve());
    child.once('exit', (code) => reject(new Error(`netemu ended with ${code}`)));
  });
  return child;
}

/** Stands for the netdev in the child. */
const ELSEWHERE: Backend = { describe: () => 'elsewhere', stats: {}, ports: [], close() {} };

describe('two netemu processes', () => {
  it.each(PAIRS)('joined by $name', async (pair) => {
    const lab = new BackendLab();
    const [near, far] = freePorts(lab, 2) as [number, number];
    const inet = (port: number) => ({ type: 'inet', host: '127.0.0.1', port: String(port) });
    const back = lab.guest(await lab.open('dgram', { local: inet(near), remote: inet(far) }));
    let child: ChildProcess | undefined;
    let local: Backend | undefined;
    // The pair's first netdev opens in the child, its second here.
    const divided = Object.create(lab) as BackendLab;
    divided.open = async (type, options = {}) => {
      if (child === undefined) {
        child = await netemu([
          { type, id: 'link', ...options },
          { type: 'dgram', id: 'back', local: inet(far), remote: inet(near) },
        ]);
        return ELSEWHERE;
      }
      local = await lab.open(type, options);
      return local;
    };
    await pair.open(divided);
    const link = local!;
    const guest = lab.guest(link);
    await lab.until(() => link.ports[0]!.linkUp, 'the link');
    // A datagram peer may not have looked for us yet: the first frame may find nobody.
    await lab.until(() => {
      if (back.received.length === 0) guest.send(packet(99));
      return back.received.length > 0;
    });
    await lab.until(() => {
      if (guest.received.length === 0) back.send(packet(98));
      return guest.received.length > 0;
    });
    const lengths = [60, 1514, 9000, 60_000];
    for (const [i, length] of lengths.entries()) {
      guest.send(packet(i, length));
      back.send(packet(i + 10, length));
    }
    const wanted = (received: readonly Uint8Array[]) => received.filter((bytes) => bytes[14]! < 90);
    await lab.until(
      () => wanted(back.received).length === 4 && wanted(guest.received).length === 4,
      'the frames',
    );
    expect(tags(wanted(back.received))).toEqual([0, 1, 2, 3]);
    expect(tags(wanted(guest.received))).toEqual([10, 11, 12, 13]);
    for (const [i, length] of lengths.entries())
      expect(Buffer.compare(wanted(back.received)[i]!, packet(i, length))).toBe(0);
    const gone = new Promise((resolve) => child!.once('exit', resolve));
    child!.kill('SIGKILL');
    await gone;
    if (/listen|stream|url/.test(pair.name) && !pair.name.includes('websocket'))
      await lab.until(() => !link.ports[0]!.linkUp, 'the link’s end');
    // A killed process leaves its socket file, which the next one takes over; here nobody does.
    for (const name of ['a', 's']) rmSync(lab.path(name), { force: true });
    await lab.end();
  });
});
