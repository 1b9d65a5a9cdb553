/** Files, processes and name servers of the host, as the user network gets them. */
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { FramePool } from '../../src/core/pool.ts';
import { createNativeHostIo } from '../../src/host-io/native.ts';
import { openSmbShare } from '../../src/host-io/smb-share.ts';
import { openTftpRoot } from '../../src/host-io/tftp-root.ts';
import { nodeUserServices } from '../../src/host-io/user-services.ts';

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'netemu-services-'));
  mkdirSync(join(dir, 'root/sub'), { recursive: true });
  writeFileSync(join(dir, 'root/a'), 'file a');
  writeFileSync(join(dir, 'root/sub/b'), 'file b');
  writeFileSync(join(dir, 'secret'), 'secret');
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

const descriptors = (): number => readdirSync('/proc/self/fd').length;

describe('TFTP files', () => {
  const read = (name: string): string | null => {
    const file = openTftpRoot(join(dir, 'root')).open(name);
    if (file === null) return null;
    const target = new Uint8Array(100);
    const got = file.read(0, target, 10, 50);
    file.close();
    file.close();
    return new TextDecoder().decode(target.subarray(10, 10 + got));
  };
  it('reads files and folders beneath the root, leading slashes meaning the root', () => {
    expect(read('a')).toBe('file a');
    expect(read('/a')).toBe('file a');
    expect(read('sub/b')).toBe('file b');
    expect(read('./sub//b')).toBe('file b');
  });
  it('hardening 42: no name leads out, no link is followed, only regular files', () => {
    symlinkSync('../secret', join(dir, 'root/link'));
    symlinkSync('..', join(dir, 'root/up'));
    symlinkSync(join(dir, 'root/a'), join(dir, 'root/inside'));
    execFileSync('mkfifo', [join(dir, 'root/fifo')]);
    symlinkSync('/dev/zero', join(dir, 'root/zero'));
    const before = descriptors();
    const names = [
      '..',
      '../secret',
      'sub/../../secret',
      'link',
      'up/secret',
      'inside',
      'sub',
      '',
      '/',
      '.',
      'fifo',
      'zero',
      'a\0',
      'sub\\b',
      '..\\secret',
      `${dir}/secret`,
      'x'.repeat(2000),
      'a/b',
    ];
    for (const name of names) expect([name, read(name)]).toEqual([name, null]);
    expect(descriptors()).toBe(before);
  });
  it('a root that is none is an error of the option', () => {
    expect(() => openTftpRoot(join(dir, 'nothing'))).toThrow('tftp folder');
    expect(() => openTftpRoot(join(dir, 'secret'))).toThrow('tftp folder');
  });
});

describe('processes', () => {
  it('guestfwd cmd: runs one for each connection, with the stream as its input and output', async () => {
    const hostIo = createNativeHostIo();
    hostIo.attachPool(new FramePool({ smallSlots: 16, largeSlots: 1 }));
    const services = nodeUserServices();
    expect(services.refuseGuestForward!({ kind: 'command', command: 'cat' })).toBeUndefined();
    expect(services.refuseGuestForward!({ kind: 'chardev', id: 'c' })).toContain('character devices');
    const handle = services.openGuestForward!(hostIo, { kind: 'command', command: 'tr a-z A-Z' });
    hostIo.sendBytes(handle, new TextEncoder().encode('hello'), 0, 5);
    hostIo.shutdownWrite(handle);
    const target = new Uint8Array(100);
    let text = '';
    for (;;) {
      const got = hostIo.receiveBytes(handle, target, 0, 100);
      if (got === 0) break;
      if (got > 0) text += new TextDecoder().decode(target.subarray(0, got));
      else await new Promise((resolve) => setImmediate(resolve));
    }
    expect(text).toBe('HELLO');
    hostIo.close(handle);
    expect(hostIo.stats().openHandles).toBe(0);
    hostIo.shutdown();
  });
  it('hardening T7: what a share needs lies in a folder that nobody can guess or enter, and goes with it', () => {
    const hostIo = createNativeHostIo();
    const folders = (): string[] => readdirSync(tmpdir()).filter((name) => name.startsWith('netemu-smb-'));
    const before = new Set(folders());
    let shares: { close(): void }[] = [];
    try {
      shares = [openSmbShare(hostIo, join(dir, 'root')), openSmbShare(hostIo, join(dir, 'root'))];
    } catch (error) {
      // A machine without smbd says so, and nothing is left of the attempt.
      expect((error as Error).message).toBe('smb= needs the smbd program, which is not installed');
    }
    const made = folders().filter((name) => !before.has(name));
    expect(made.length).toBe(shares.length);
    for (const name of made) {
      expect(name).toMatch(/^netemu-smb-[A-Za-z0-9]{6}$/);
      expect(statSync(join(tmpdir(), name)).mode & 0o777).toBe(0o700);
      expect(statSync(join(tmpdir(), name, 'smb.conf')).mode & 0o777).toBe(0o600);
    }
    for (const share of shares) share.close();
    expect(folders().filter((name) => !before.has(name))).toEqual([]);
    hostIo.shutdown();
  });
  it('smb says what is wrong', () => {
    const hostIo = createNativeHostIo();
    expect(() => openSmbShare(hostIo, join(dir, 'secret'))).toThrow('it is no folder');
    expect(() => openSmbShare(hostIo, `${dir}\n[evil]`)).toThrow('it is no folder');
    hostIo.shutdown();
  });
});
