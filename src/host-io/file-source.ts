/** A recording that is played back, read whole. */

import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { HostIoError, OptionError } from '../core/errors.ts';

const FILE_MAX_BYTES = 1 << 29;

/** Throws HostIoError, or OptionError for what is no regular file or has more than 512 MiB. */
export function readWholeFile(path: string): Uint8Array {
  let fd: number | undefined;
  try {
    fd = openSync(path, 'r');
    const stat = fstatSync(fd);
    if (!stat.isFile()) throw new OptionError(`'${path}' is no regular file`);
    if (stat.size > FILE_MAX_BYTES) throw new OptionError(`'${path}' has more than 512 MiB`);
    const bytes = new Uint8Array(stat.size);
    let filled = 0;
    while (filled < bytes.length) {
      const count = readSync(fd, bytes, filled, bytes.length - filled, filled);
      if (count === 0) break;
      filled += count;
    }
    return bytes.subarray(0, filled);
  } catch (error) {
    if (error instanceof OptionError) throw error;
    const { code = 'EIO', syscall = 'open' } = error as NodeJS.ErrnoException;
    throw new HostIoError(syscall, code, `could not read '${path}': ${code}`);
  } finally {
    if (fd !== undefined) closeSync(fd);
  }
}
