/**
 * The user network as the network of a namespace, and the programs that people's machines use it with: the list of lib/user-clients.ts, with a
 * GiB by curl. user-netns.test.ts has the command itself and its forwards.
 */

import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { capture } from './lib/command.ts';
import { guestProgram } from './lib/guest-program.ts';
import { NetnsShell } from './lib/netns.ts';
import { prepare } from './lib/prepare.ts';
import { userClients } from './lib/user-clients.ts';
import { UserServices } from './lib/user-services.ts';

const folder = mkdtempSync(join(tmpdir(), 'netemu-user-clients-'));
let services: UserServices;
let shell: NetnsShell;

beforeAll(async () => {
  await prepare(['tools', 'network-clients']);
  services = await UserServices.start();
  writeFileSync(join(folder, 'udp-flows'), await guestProgram('udp-flows'), { mode: 0o755 });
  shell = new NetnsShell(['--netdev', `user,${services.netdevOptions('fec0::15')}`]);
});

afterAll(async () => {
  await shell?.close();
  await services?.close();
  rmSync(folder, { recursive: true });
});

describe('clients', () => {
  userClients(
    () => ({
      shell,
      said: () => shell.said,
      ifname: 'tap0',
      mtu: 65_520,
      folder,
      udpFlows: join(folder, 'udp-flows'),
    }),
    () => services,
    { downBytes: 1 << 30, upBytes: 256 << 20, iperfBytes: 256 << 20, sshBytes: 16 << 20 },
  );
});

describe('nothing stays behind', () => {
  it('smb= leaves no process and no folder', async () => {
    const states = (): string[] => readdirSync(tmpdir()).filter((name) => name.startsWith('netemu-smb-'));
    const before = states();
    const main = new URL('../../dist/cli/main.js', import.meta.url).pathname;
    const { stdout, status } = await capture(process.execPath, [
      ...[main, 'netns', '--netdev', `user,smb=${services.share}`, '--', 'sh', '-c'],
      "smbclient //10.0.2.4/qemu -N -c 'ls' && ls -d /tmp/netemu-smb-*",
    ]);
    expect(status).toBe(0);
    const own = [...stdout.matchAll(/(netemu-smb-\w+)\n/g)]
      .map(([, name]) => name!)
      .filter((name) => !before.includes(name));
    expect(own).toHaveLength(1);
    expect(states().filter((name) => !before.includes(name))).toEqual([]);
    const processes = (await capture('ps', ['-eo', 'stat,args'])).stdout.split('\n');
    expect(processes.filter((line) => !line.startsWith('Z') && line.includes(own[0]!))).toEqual([]);
  });
});
