/** `netemu --guest v86` as a person runs it: a kernel with all options boots, its console is on the terminal in both directions, and every way to end it. */

import { copyFileSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ensureInitramfs, writeRunImage } from './lib/initramfs.ts';
import { ensureKernel } from './lib/kernel.ts';
import { netemu, RunningNetemu } from './lib/netemu.ts';
import { prepare } from './lib/prepare.ts';

const folder = mkdtempSync(join(tmpdir(), 'netemu-v86-command-'));
const NIC = ['--netdev', 'user,id=n0', '--device', 'e1000,netdev=n0'];
const APPEND = 'append=console=ttyS0 tsc=reliable mitigations=off random.trust_cpu=on panic=-1 word=hello';
let kernel = '';
const initrd = join(folder, 'initrd');

const SCRIPT = `exec >/dev/ttyS0 2>&1 </dev/ttyS0
modprobe e1000 && ip link set eth0 up && udhcpc -i eth0 -n -q -t 20 && ip addr show eth0 && ping -c 1 10.0.2.2
cat /proc/cmdline
grep MemTotal /proc/meminfo
echo "type a line"
read -r line
echo "it was: $line"
`;

beforeAll(async () => {
  await prepare(['firmware', 'kernel-686', 'initramfs-686']);
  kernel = (await ensureKernel('686')).image;
  writeRunImage(await ensureInitramfs('686'), { main: SCRIPT }, {}, initrd);
  copyFileSync('/usr/share/seabios/bios.bin', join(folder, 'bios'));
  copyFileSync('/usr/share/seabios/vgabios-stdvga.bin', join(folder, 'vga'));
});
afterAll(() => rmSync(folder, { recursive: true }));

describe('netemu --guest v86', () => {
  it('boots with all its options, and its console speaks and listens', async () => {
    const guest = `v86,kernel=${kernel},initrd=${initrd},${APPEND},memory=128M,bios=${folder}/bios,vga-bios=${folder}/vga`;
    const command = new RunningNetemu([...NIC, '--guest', guest], { stdin: 'pipe' });
    await command.until(/type a line/);
    command.child.stdin!.write('a line that was typed\n');
    // Then init powers off, and the command ends of itself.
    const { status, output } = await command.finished;
    expect(status, output).toBe(0);
    expect(output).toContain('it was: a line that was typed');
    expect(output).toContain('reboot: System halted');
    expect(output).toContain('Linux version 6.1');
    expect(output).toMatch(/inet 10\.0\.2\.15\/24/);
    expect(output).toContain('1 packets received');
    expect(output).toContain('word=hello');
    const kibibytes = Number(/MemTotal: +(\d+) kB/.exec(output)?.[1]);
    expect(kibibytes).toBeGreaterThan(64 << 10);
    expect(kibibytes).toBeLessThan(128 << 10);
  });

  it.each(['SIGINT', 'SIGTERM'] as const)('ends with exit code 0 on %s', async (signal) => {
    const command = new RunningNetemu([...NIC, '--guest', `v86,kernel=${kernel},${APPEND}`]);
    await command.until(/Linux version/);
    command.child.kill(signal);
    expect((await command.finished).status).toBe(0);
  });

  it('ends when the guest halts its CPU for good', async () => {
    // At the reset vector: cli, hlt.
    const bios = new Uint8Array(1 << 16);
    bios.set([0xfa, 0xf4], 0xfff0);
    writeFileSync(join(folder, 'halt'), bios);
    // A console that somebody could still type into does not keep it.
    const command = new RunningNetemu([...NIC, '--guest', `v86,bios=${folder}/halt`], { stdin: 'pipe' });
    const { status, output } = await command.finished;
    expect({ status, output }).toEqual({ status: 0, output: '' });
  });

  it('ends with exit code 1 and a line when v86 cannot go on', async () => {
    // A jump; cli, lidt of a table without an entry, protected mode, int3.
    const bios = new Uint8Array(1 << 16);
    bios.set([0xea, 0, 0, 0, 0xf0], 0xfff0);
    bios.set([0xfa, 0x2e, 0x0f, 0x01, 0x1e, 0x40, 0, 0x0f, 0x20, 0xc0, 0x0c, 0x01, 0x0f, 0x22, 0xc0, 0xcc]);
    writeFileSync(join(folder, 'fault'), bios);
    const { status, output } = await netemu([...NIC, '--guest', `v86,bios=${folder}/fault`]);
    expect(status, output).toBe(1);
    expect(output).toMatch(/^netemu: --guest v86: the guest did what v86 cannot go on from$/m);
    expect(output).not.toMatch(/^ +at /m);
  });

  it('tells in one line what is wrong with its options', async () => {
    const refusal = async (options: string, message: string): Promise<void> => {
      const { status, output } = await netemu([...NIC, '--guest', `v86,${options}`]);
      expect({ status, output }).toEqual({
        status: 1,
        output: `netemu: --guest v86,${options}: ${message}\n`,
      });
    };
    const none = `${folder}/none`;
    for (const options of [
      `kernel=${none}`,
      `kernel=${kernel},initrd=${none}`,
      `bios=${none}`,
      `vga-bios=${none}`,
    ])
      await refusal(options, `could not open '${none}': ENOENT`);
    await refusal(`initrd=${initrd}`, 'initrd= needs kernel=');
    await refusal('memory=1M', "Parameter 'memory' expects whole mebibytes from 16M to 2G");
  });
});
