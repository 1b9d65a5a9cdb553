/**
 * A machine boots from netemu's NIC, each model with Debian's iPXE for it in the expansion ROM that netemu serves: SeaBIOS runs it, its driver takes a lease and fetches a
 * script by TFTP; by the script it loads a Linux kernel and a small initial file system, one by netemu's TFTP and the other by HTTP, and boots them. OVMF does the same with the drivers of the EFI ROMs, and fetches a file with its own driver of virtio-net.
 */

import { copyFileSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { DeviceInput } from '../../../src/config/devices/index.ts';
import { readCounters } from '../../../src/core/stats.ts';
import { CpioWriter } from '../lib/cpio.ts';
import { startFirmware } from '../lib/guest.ts';
import { ensureKernel } from '../lib/kernel.ts';
import { prepare } from '../lib/prepare.ts';
import { Rig } from './rig.ts';

interface Row {
  firmware: 'SeaBIOS' | 'OVMF';
  device: DeviceInput;
  rom: string;
  kernelBy: 'tftp' | 'http';
}

const MAC = '52:54:00:00:50:0e';
const E1000 = { driver: 'e1000', netdev: 'n0', mac: MAC } satisfies DeviceInput;
const RTL8139 = { driver: 'rtl8139', netdev: 'n0', mac: MAC } satisfies DeviceInput;
const VIRTIO = { driver: 'virtio-net-pci', netdev: 'n0', mac: MAC } satisfies DeviceInput;
const ROWS: Row[] = [
  { firmware: 'SeaBIOS', device: E1000, rom: 'pxe-e1000.rom', kernelBy: 'tftp' },
  { firmware: 'SeaBIOS', device: RTL8139, rom: 'pxe-rtl8139.rom', kernelBy: 'http' },
  { firmware: 'SeaBIOS', device: VIRTIO, rom: 'pxe-virtio.rom', kernelBy: 'tftp' },
  { firmware: 'OVMF', device: E1000, rom: 'efi-e1000.rom', kernelBy: 'http' },
  { firmware: 'OVMF', device: RTL8139, rom: 'efi-rtl8139.rom', kernelBy: 'tftp' },
  { firmware: 'OVMF', device: VIRTIO, rom: 'efi-virtio.rom', kernelBy: 'http' },
];
const BOOTED = 'a system from the network runs';
const INIT = `#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
[ -e /sys/firmware/efi ] && by=OVMF || by=SeaBIOS
echo "${BOOTED} by $by: $(/bin/busybox cat /proc/cmdline)"
/bin/busybox poweroff -f
`;

const folder = mkdtempSync(join(tmpdir(), 'netemu-pxe-'));
const asked: string[] = [];
let server: Server;
let httpPort = 0;

beforeAll(async () => {
  await prepare(['firmware', 'firmware-uefi', 'network-clients']);
  const { image } = await ensureKernel('amd64');
  copyFileSync(image, join(folder, 'kernel'));
  const initrd = new CpioWriter();
  for (const path of ['proc', 'sys', 'dev', 'bin']) initrd.directory(path);
  initrd.device('dev/console', 5, 1);
  initrd.file('bin/busybox', readFileSync('/bin/busybox'), 0o755);
  initrd.file('init', INIT, 0o755);
  writeFileSync(join(folder, 'initrd'), initrd.finish());
  server = createServer((request, response) => {
    asked.push(decodeURIComponent(request.url ?? ''));
    const body = readFileSync(join(folder, request.url === '/kernel' ? 'kernel' : 'initrd'));
    response.setHeader('content-length', body.length);
    response.end(body);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  httpPort = (server.address() as AddressInfo).port;
});

afterAll(() => {
  server?.close();
  rmSync(folder, { recursive: true });
});

/** OVMF in the machine's flash; its variables are a copy, which it writes to. */
function ovmf(): string[] {
  const variables = join(folder, 'variables');
  copyFileSync('/usr/share/OVMF/OVMF_VARS.fd', variables);
  // The machine may see another /usr than we do.
  const code = join(folder, 'ovmf');
  copyFileSync('/usr/share/OVMF/OVMF_CODE.fd', code);
  return [
    ...['-drive', `if=pflash,format=raw,unit=0,readonly=on,file=${code}`],
    ...['-drive', `if=pflash,format=raw,unit=1,file=${variables}`],
  ];
}

test.each(ROWS)('$firmware, $rom and Linux, its kernel by $kernelBy', async (row) => {
  const { firmware, device, rom, kernelBy } = row;
  asked.length = 0;
  const url = { tftp: 'tftp://10.0.2.2/', http: `http://10.0.2.2:${httpPort}/` };
  const initrdBy = kernelBy === 'tftp' ? 'http' : 'tftp';
  writeFileSync(
    join(folder, 'boot.ipxe'),
    `#!ipxe
kernel ${url[kernelBy]}kernel initrd=initrd console=ttyS0 no_timer_check panic=-1 from=\${net0/mac}
initrd ${url[initrdBy]}initrd
boot
`,
  );
  const rig = await Rig.make({
    netdev: { type: 'user', id: 'n0', tftp: folder, bootfile: 'boot.ipxe' },
    device,
    rom: readFileSync(`/usr/lib/ipxe/qemu/${rom}`),
    busyPollNs: 20_000,
  });
  try {
    const guest = await startFirmware({
      qemu: '11.1',
      sharedMemory: true,
      memoryMiB: 512,
      args: [...rig.qemuArgs({ bootindex: 0 }), ...(firmware === 'OVMF' ? ovmf() : [])],
      timeoutMs: 180_000,
    });
    const { exitCode, stderr, console: said } = await guest.done;
    expect({ exitCode, stderr }, said).toEqual({ exitCode: 0, stderr: '' });
    // By EFI the command line begins with the file's name.
    const words = `initrd=initrd console=ttyS0 no_timer_check panic=-1 from=${MAC}`;
    expect(said).toMatch(new RegExp(`^${BOOTED} by ${firmware}: (kernel )?${words}\\r?$`, 'm'));
    expect(asked).toEqual([kernelBy === 'http' ? '/kernel' : '/initrd']);
    const counters = readCounters(rig.device.nic.stats);
    expect(Object.entries(counters).filter(([name, count]) => /Bad/.test(name) && count > 0)).toEqual([]);
  } finally {
    rig.close();
  }
});

test('OVMF with its own driver of virtio-net, and no ROM, fetches its boot file by TFTP', async () => {
  const bytes = statSync(join(folder, 'initrd')).size;
  const netdev = { type: 'user', id: 'n0', tftp: folder, bootfile: 'initrd' } as const;
  const rig = await Rig.make({ netdev, device: VIRTIO });
  try {
    const guest = await startFirmware({
      qemu: '11.1',
      sharedMemory: true,
      args: [...rig.qemuArgs({ bootindex: 0 }), ...ovmf()],
      timeoutMs: 180_000,
    });
    await guest.printed(/NBP file downloaded successfully/);
    guest.kill();
    const { console: said } = await guest.done;
    expect(said).toContain('Station IP address is 10.0.2.15');
    expect(said).toContain(`NBP filesize is ${bytes} Bytes`);
  } finally {
    rig.close();
  }
});
