/** Services of a Node process. */

import { spawn, spawnSync } from 'node:child_process';
import { lookup } from 'node:dns/promises';
import { chmodSync, chownSync, existsSync, lstatSync, openSync, readFileSync, rmSync } from 'node:fs';
import { constants } from 'node:os';
import { OptionError } from '../core/errors.ts';
import type { Services } from './services.ts';

export const nodeServices: Services = {
  async resolve(name, family) {
    return (await lookup(name, { family })).address;
  },
  run(program, args, fd) {
    return new Promise((resolve, reject) => {
      const child = spawn(program, args, {
        stdio: ['ignore', 'inherit', 'inherit', ...(fd === undefined ? [] : [fd])],
      });
      child.once('error', reject);
      child.once('exit', (code, signal) => {
        resolve(code ?? 128 + (signal === null ? 0 : constants.signals[signal]));
      });
    });
  },
  runNow(program, args) {
    const { status, signal } = spawnSync(program, args, { stdio: ['ignore', 'inherit', 'inherit'] });
    return status ?? (signal === null ? 127 : 128 + constants.signals[signal]);
  },
  exists: existsSync,
  openFile: (path) => openSync(path, 'r+'),
  removeFile(path) {
    rmSync(path, { force: true });
  },
  setAccess(path, mode, group) {
    if (group !== undefined) chownSync(path, lstatSync(path).uid, groupId(group));
    chmodSync(path, mode);
  },
  environment: process.env,
  processId: process.pid,
};

/** The number of a group of this machine, by name or already a number. */
function groupId(group: string): number {
  if (/^\d{1,9}$/.test(group)) return Number(group);
  const line = readFileSync('/etc/group', 'utf8')
    .split('\n')
    .find((one) => one.startsWith(`${group}:`));
  if (line === undefined) throw new OptionError(`group '${group}' not found`, { option: 'group' });
  return Number(line.split(':')[2]);
}
