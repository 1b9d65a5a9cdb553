/** The files of a process, restricted for all of its threads (Landlock). In processes of their own, for it cannot be undone. */

import { execFileSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { HostIoError } from '../../src/core/errors.ts';
import { createNativeHostIo } from '../../src/host-io/native.ts';

let base: string;

beforeEach(() => {
  base = mkdtempSync(join(tmpdir(), 'netemu-restrict-'));
  for (const name of ['folder', 'out', 'outside']) mkdirSync(join(base, name));
  writeFileSync(join(base, 'folder/file'), 'inside');
  writeFileSync(join(base, 'outside/file'), 'outside');
  symlinkSync(join(base, 'outside/file'), join(base, 'folder/link'));
});
afterEach(() => rmSync(base, { recursive: true }));

const host = createNativeHostIo();
const version = host.fileRulesVersion;
host.shutdown();

it('hardening: no thread, whenever it began, opens, lists, makes or removes anything elsewhere; or the kernel’s refusal is told', () => {
  if (version === 0) {
    const there = createNativeHostIo();
    expect(() => there.restrictFiles([])).toThrow(HostIoError);
    expect(there.filesRestricted).toBe(false);
    there.shutdown();
    return;
  }
  const program = fileURLToPath(new URL('./programs/restricted.ts', import.meta.url));
  const places = ['folder', 'out', 'outside'].map((name) => join(base, name));
  const output = execFileSync(process.execPath, ['--import', 'tsx', program, ...places], {
    encoding: 'utf8',
    timeout: 100_000,
  });
  const all = (text: string) => ({ sync: text, async: [text], workerBefore: text, workerAfter: text });
  expect(JSON.parse(output)).toEqual({
    readings: {
      'folder/file': all('inside'),
      'folder/link': all('EACCES'),
      'outside/file': all('EACCES'),
    },
    list: 'EACCES',
    stillOpen: 7,
    writeInside: 'done',
    writeReadable: 'EACCES',
    make: 'EACCES',
    // The kernel tells a move between places with different rules as one between devices.
    rename: expect.stringMatching(/^(EXDEV|EACCES)$/),
    remove: 'EACCES',
    link: 'done',
    throughOwnLink: 'EACCES',
    bindInside: 'done',
    bindOutside: 'EACCES',
  });
  expect(readFileSync(join(base, 'folder/file'), 'utf8')).toBe('inside');
  expect(existsSync(join(base, 'outside/socket'))).toBe(false);
});

it('refuses a path that is none before anything is restricted', () => {
  const there = createNativeHostIo();
  for (const path of ['a\0b', 'x'.repeat(5000)]) {
    expect(() => there.restrictFiles([{ path, may: 'read' }])).toThrow(HostIoError);
  }
  expect(there.filesRestricted).toBe(false);
  expect(readFileSync(join(base, 'outside/file'), 'utf8')).toBe('outside');
  there.shutdown();
});
