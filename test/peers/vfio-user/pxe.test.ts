/**
 * A machine boots from netemu's NIC: SeaBIOS runs the expansion ROM that netemu serves (Debian's iPXE), whose e1000 driver takes a lease, fetches a script by TFTP
 * and runs it; the script fetches a file by HTTP and ends the machine.
 */

import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { startFirmware } from '../lib/guest.ts';
import { prepare } from '../lib/prepare.ts';
import { Rig } from './rig.ts';

test('SeaBIOS and iPXE boot from the ROM that netemu serves, by DHCP, TFTP and HTTP', async () => {
  await prepare(['firmware']);
  const asked: string[] = [];
  const server = createServer((request, response) => {
    asked.push(decodeURIComponent(request.url ?? ''));
    response.end('#!ipxe\nreboot\n');
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  const folder = mkdtempSync(join(tmpdir(), 'netemu-pxe-'));
  writeFileSync(join(folder, 'boot.ipxe'), `#!ipxe\nchain http://10.0.2.2:${port}/next?mac=\${net0/mac}\n`);
  const rig = await Rig.make({
    netdev: { type: 'user', id: 'n0', tftp: folder, bootfile: 'boot.ipxe' },
    device: { driver: 'e1000', netdev: 'n0', mac: '52:54:00:00:50:0e' },
    rom: readFileSync('/usr/lib/ipxe/qemu/pxe-e1000.rom'),
  });
  try {
    const guest = await startFirmware({
      qemu: '11.1',
      sharedMemory: true,
      args: [...rig.qemuArgs({ bootindex: 0 })],
      timeoutMs: 120_000,
    });
    const { exitCode, stderr } = await guest.done;
    expect({ exitCode, stderr, asked }).toEqual({
      exitCode: 0,
      stderr: '',
      asked: ['/next?mac=52:54:00:00:50:0e'],
    });
  } finally {
    rig.close();
    server.close();
    rmSync(folder, { recursive: true });
  }
});
