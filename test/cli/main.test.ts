/** The command as a user runs it, from the built files. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';

const MAIN = new URL('../../dist/cli/main.js', import.meta.url).pathname;
const folder = mkdtempSync(join(tmpdir(), 'netemu-cli-'));
afterAll(() => rmSync(folder, { recursive: true }));

function netemu(...args: string[]) {
  const { status, stdout, stderr } = spawnSync(process.execPath, [MAIN, ...args], {
    encoding: 'utf8',
    timeout: 60_000,
  });
  return { status, stdout, stderr };
}

describe('netemu', () => {
  it('prints help and its version', () => {
    expect(netemu('--help')).toMatchObject({
      status: 0,
      stdout: expect.stringContaining('--netdev'),
      stderr: '',
    });
    expect(netemu('-version')).toMatchObject({
      status: 0,
      stdout: expect.stringMatching(/^netemu \d+\.\d+\.\d+\n$/),
      stderr: '',
    });
    expect(netemu('--netdev', 'user,help')).toMatchObject({
      status: 0,
      stdout: expect.stringContaining('hostfwd'),
    });
  });

  it('drives a virtio-net that has only its legacy interface', () => {
    const device = 'virtio-net-pci,netdev=n0,disable-modern=on';
    const { stdout } = netemu('--netdev', 'user,id=n0', '--device', device, '--guest', 'probe,once');
    expect(stdout).toContain('DHCP lease 10.0.2.15/24');
  });

  it.each([
    [
      ['--netdev', 'bogus,id=x'],
      "netemu: --netdev bogus,id=x: Parameter 'type' does not accept value 'bogus'\n",
    ],
    [['--nedev', 'user,id=x'], "netemu: --nedev: invalid option (did you mean '--netdev'?)\n"],
    [
      ['--netdev', 'user,id=n0', '--device', 'e1000,netdev=n1'],
      "netemu: --device e1000,netdev=n1: Property 'e1000.netdev' can't find value 'n1'\n",
    ],
    [
      [
        '--netdev',
        'hubport,id=h,hubid=0',
        '--object',
        `filter-dump,id=f,netdev=h,file=${folder}/none/x.pcap`,
      ],
      `netemu: --object filter-dump,id=f,netdev=h,file=${folder}/none/x.pcap: could not open '${folder}/none/x.pcap': ENOENT\n`,
    ],
    [
      ['--config', `${folder}/none.json`],
      `netemu: --config ${folder}/none.json: cannot read '${folder}/none.json': ENOENT\n`,
    ],
  ])('tells what is wrong with %j in one line', (args, text) => {
    const { status, stdout, stderr } = netemu(...args);
    expect(
      stderr
        .split('\n')
        .filter((line) => !line.startsWith('netemu: warning: '))
        .join('\n'),
    ).toBe(text);
    expect(stdout).toBe('');
    expect(status).toBe(1);
  });

  it('takes everything from a configuration file', () => {
    const file = join(folder, 'config.json');
    writeFileSync(
      file,
      JSON.stringify({
        netdev: [{ type: 'hubport', id: 'h0', hubid: 0 }],
        device: [{ driver: 'e1000', netdev: 'h0' }],
        guest: { type: 'none' },
        object: [{ 'qom-type': 'filter-dump', id: 'f0', netdev: 'h9', file: 'x' }],
      }),
    );
    const { status, stderr } = netemu('--config', file);
    expect(stderr).toContain("Parameter 'netdev' expects a network backend id");
    expect(status).toBe(1);
  });
});

describe('netemu bench', () => {
  it('measures a NIC both ways, as a table and as JSON', () => {
    const table = netemu('bench', '--device', 'e1000', '--size', '64', '--count', '2000');
    expect(table).toMatchObject({ status: 0, stderr: '' });
    expect(table.stdout).toMatch(/^e1000 +tx +64 /m);
    expect(table.stdout).toMatch(/^e1000 +rx +64 /m);
    const html = join(folder, 'report.html');
    const json = netemu(
      'bench',
      '-device',
      'e1000',
      '--direction',
      'rx',
      '--size',
      '60,1514',
      '--count',
      '2000',
      '--json',
      '--html',
      html,
    );
    const rows = json.stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as { frames: number; bytes: number; frameBytes: number });
    expect(rows.map((row) => row.frameBytes)).toEqual([60, 1514]);
    for (const row of rows) {
      expect(row.frames).toBeGreaterThanOrEqual(2000);
      expect(row.bytes).toBe(row.frames * row.frameBytes);
    }
    expect(json.status).toBe(0);
  });

  it.each([
    [['bench'], 'netemu: give a --device, a --netdev, or both\n'],
    [['bench', '--device', 'e1000', '--size', '7'], 'netemu: --size 7: expects a number from 14 to 69632\n'],
    [['bench', '--device', 'nope'], "netemu: --device nope: 'nope' is not a valid device model name\n"],
    [['bench', '--frob'], "netemu: Unknown option '--frob'\n"],
  ])('refuses %j', (args, text) => {
    expect(netemu(...args)).toEqual({ status: 1, stdout: '', stderr: text });
  });
});
