/** The command as a user types it serves a NIC, and a guest uses it; then a signal ends it and nothing is left. */

import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { runGuest } from '../lib/guest.ts';

const MAIN = fileURLToPath(new URL('../../../src/cli/main.ts', import.meta.url));

test('netemu --device e1000,vfio-user=PATH serves a guest until it is told to stop', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'netemu-command-'));
  const path = join(folder, 'nic.sock');
  const device = `e1000,netdev=n0,id=nic0,vfio-user=${path}`;
  const args = ['--import', 'tsx', MAIN, '--netdev', 'user,id=n0', '--device', device];
  const command = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  let said = '';
  const ended = new Promise<number | null>((resolve) => command.once('exit', resolve));
  try {
    const line = `nic0: served by vfio-user on ${path}`;
    await new Promise<void>((resolve, reject) => {
      const listen = (text: Buffer): void => {
        said += text;
        if (said.includes(line)) resolve();
      };
      command.stdout.on('data', listen);
      command.stderr.on('data', listen);
      command.once('exit', () => reject(new Error(`netemu ended: ${said}`)));
    });
    expect(statSync(path).mode & 0o777).toBe(0o600);
    const guest = await runGuest({
      qemu: '11.1',
      sharedMemory: true,
      args: ['-device', JSON.stringify({ driver: 'vfio-user-pci', socket: { type: 'unix', path } })],
      script: 'modprobe e1000; ip link set eth0 up; udhcpc -n -q -t 10 -T 1 -i eth0; ping -c 3 -A 10.0.2.2',
    });
    expect(guest.ok('main')).toContain('3 packets received');
  } finally {
    command.kill('SIGTERM');
  }
  expect(await ended).toBe(0);
  expect(existsSync(path)).toBe(false);
  rmSync(folder, { recursive: true });
});
