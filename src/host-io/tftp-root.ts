/**
 * Files beneath one folder, for the TFTP server of the user network. A name is walked part by part, each opened relative to the folder before it
 * (through /proc/self/fd, which is openat in effect) and never through a symbolic link, so neither `..`, nor an absolute path, nor a link
 * planted in the folder, nor one swapped in meanwhile leads out of it. Only regular files are read. Leading slashes are dropped: boot ROMs
 * write them for the root of the server.
 */

import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs';
import type { TftpFile, TftpRoot } from '../backends/user/site.ts';
import { OptionError } from '../core/errors.ts';

const NAME_MAX_BYTES = 1024;
const DIRECTORY = constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW;
// Non-blocking, so that opening a FIFO returns.
const FILE = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;

/** Throws OptionError when `path` is no folder. */
export function openTftpRoot(path: string): TftpRoot {
  try {
    // The folder itself may be a link: its owner named it.
    closeSync(openSync(path, constants.O_RDONLY | constants.O_DIRECTORY));
  } catch {
    throw new OptionError(`tftp folder '${path}' cannot be opened`, { option: 'tftp' });
  }
  return { open: (name) => openBeneath(path, name) };
}

function openBeneath(root: string, name: string): TftpFile | null {
  if (name.length > NAME_MAX_BYTES || name.includes('\0') || name.includes('\\')) return null;
  const parts = name.split('/').filter((part) => part !== '' && part !== '.');
  if (parts.length === 0 || parts.includes('..')) return null;
  let directory = -1;
  try {
    directory = openSync(root, constants.O_RDONLY | constants.O_DIRECTORY);
    for (const part of parts.slice(0, -1)) {
      const next = openSync(`/proc/self/fd/${directory}/${part}`, DIRECTORY);
      closeSync(directory);
      directory = next;
    }
    return openFile(openSync(`/proc/self/fd/${directory}/${parts.at(-1)}`, FILE));
  } catch {
    return null;
  } finally {
    if (directory >= 0) closeSync(directory);
  }
}

function openFile(fd: number): TftpFile | null {
  const facts = fstatSync(fd);
  if (!facts.isFile()) {
    closeSync(fd);
    return null;
  }
  let open = true;
  return {
    sizeBytes: facts.size,
    read: (position, target, at, length) => {
      try {
        return readSync(fd, target, at, length, position);
      } catch {
        return -1;
      }
    },
    close: () => {
      if (open) closeSync(fd);
      open = false;
    },
  };
}
