/**
 * U-Boot, as the machine's firmware, on netemu's NICs: it places their BARs itself and drives them by polling, with drivers of its own (e1000, virtio-net in its
 * legacy form). It takes a lease, pings the gateway, and fetches a file by TFTP, whose CRC-32 it tells. It never asks for an interrupt. Debian's builds for
 * x86 have no driver of the rtl8139: there it shows that U-Boot sees and places the NIC.
 */

import { copyFileSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { crc32 } from 'node:zlib';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { DeviceInput } from '../../../src/config/devices/index.ts';
import { seededRandom } from '../../../src/core/clock.ts';
import { readCounters } from '../../../src/core/stats.ts';
import { type Guest, startFirmware } from '../lib/guest.ts';
import { prepare } from '../lib/prepare.ts';
import { Rig } from './rig.ts';

interface Row {
  board: 'qemu-x86' | 'qemu-x86_64';
  device: DeviceInput;
  /** What U-Boot calls the NIC, and the address it finds. */
  name: string;
  address: string;
}

const MAC = '52:54:00:00:50:0f';
const E1000 = { driver: 'e1000', netdev: 'n0', mac: MAC } satisfies DeviceInput;
const VIRTIO = { driver: 'virtio-net-pci', netdev: 'n0', mac: MAC } satisfies DeviceInput;
// U-Boot 2023.01 reads the first byte of a legacy virtio-net's address six times, on any device.
const VIRTIO_ADDRESS = '52:52:52:52:52:52';
const ROWS: Row[] = [
  { board: 'qemu-x86', device: E1000, name: 'e1000#0', address: MAC },
  { board: 'qemu-x86_64', device: E1000, name: 'e1000#0', address: MAC },
  { board: 'qemu-x86', device: VIRTIO, name: 'virtio-net#0', address: VIRTIO_ADDRESS },
  { board: 'qemu-x86_64', device: VIRTIO, name: 'virtio-net#0', address: VIRTIO_ADDRESS },
];
const FILE_BYTES = 3_000_001;
/** Where U-Boot loads to, within 256 MiB. */
const LOAD_ADDRESS = '4000000';

const folder = mkdtempSync(join(tmpdir(), 'netemu-u-boot-'));
const random = seededRandom(11);
const data = Uint8Array.from({ length: FILE_BYTES }, () => random());

beforeAll(async () => {
  await prepare(['firmware-u-boot']);
  writeFileSync(join(folder, 'data'), data);
});

afterAll(() => rmSync(folder, { recursive: true }));

async function boot(rig: Rig, board: Row['board']): Promise<Guest> {
  // The machine may see another /usr than we do.
  const rom = join(folder, 'u-boot.rom');
  copyFileSync(`/usr/lib/u-boot/${board}/u-boot.rom`, rom);
  const guest = await startFirmware({
    qemu: '11.1',
    sharedMemory: true,
    args: ['-bios', rom, ...rig.qemuArgs()],
  });
  // The key lies ready before U-Boot begins to count; once more, in case the line was reset in between.
  await guest.printed(/^Net: /m);
  guest.type('\r');
  await guest.printed(/Hit any key to stop autoboot/);
  guest.type('\r');
  await guest.printed(/^=> $/m);
  return guest;
}

let commands = 0;

/** What one command prints. Its end is told by a word that is not in the line as typed. */
async function command(guest: Guest, text: string): Promise<string> {
  commands++;
  const from = guest.console.length;
  guest.type(`${text}; echo end of ''${commands}\r`);
  await guest.printed(new RegExp(`^end of ${commands}\n=> $`, 'm'));
  return guest.console.slice(from);
}

test.each(ROWS)('$board, $name: a lease, a ping, a file by TFTP', async (row) => {
  const { board, device, name, address } = row;
  const rig = await Rig.make({
    netdev: { type: 'user', id: 'n0', tftp: folder },
    device,
    busyPollNs: 20_000,
  });
  try {
    const guest = await boot(rig, board);
    await command(guest, 'virtio scan');
    expect(await command(guest, 'net list')).toContain(`eth0 : ${name} ${address} active`);
    expect(await command(guest, 'setenv autoload no; dhcp')).toContain(
      'DHCP client bound to address 10.0.2.15',
    );
    const ping = await command(guest, 'ping 10.0.2.2');
    expect(ping).toContain(`Using ${name} device`);
    expect(ping).toContain('host 10.0.2.2 is alive');
    const loaded = await command(guest, `tftpboot ${LOAD_ADDRESS} 10.0.2.2:data`);
    expect(loaded).toContain(`Bytes transferred = ${FILE_BYTES} (${FILE_BYTES.toString(16)} hex)`);
    const sum = crc32(data).toString(16).padStart(8, '0');
    expect(await command(guest, `crc32 ${LOAD_ADDRESS} \${filesize}`)).toContain(`==> ${sum}`);
    guest.kill();
    await guest.done;
    const { nic } = rig.device;
    expect(Object.entries(readCounters(nic.stats)).filter(([key, n]) => /Bad/.test(key) && n > 0)).toEqual(
      [],
    );
  } finally {
    rig.close();
  }
});

test('rtl8139, of which there is no driver: seen, and its BARs placed', async () => {
  const rig = await Rig.make({
    netdev: { type: 'user', id: 'n0' },
    device: { driver: 'rtl8139', netdev: 'n0', mac: MAC },
  });
  try {
    const guest = await boot(rig, 'qemu-x86');
    expect(await command(guest, 'pci')).toMatch(/^00\.02\.00 +0x10ec +0x8139 +Network controller/m);
    const bars = await command(guest, 'pci bar 0.2.0');
    expect(bars).toMatch(/^ 0 +0x0000000000002[0-9a-f]00 +0x0000000000000100 +32 +I\/O/m);
    expect(bars).toMatch(/^ 1 +0x00000000c0000000 +0x0000000000000100 +32 +MEM/m);
    guest.kill();
    await guest.done;
  } finally {
    rig.close();
  }
});
