/** Logging by pino: JSON lines to standard error or a file. Without --log, warnings and errors only, as plain lines. */

import { pino } from 'pino';
import type { Declaration, LogLevel } from '../config/commandline.ts';
import { HostIoError } from '../core/errors.ts';
import type { Logger } from '../core/log.ts';

/** The logger that the line asks for; `warn` gets what is worth telling people when it asks for none. Throws HostIoError. */
export function loggerFor(declarations: readonly Declaration[], warn: (line: string) => void): Logger {
  const asked = declarations.findLast((declaration) => declaration.kind === 'log');
  const level: LogLevel | undefined = declarations.findLast(
    (declaration) => declaration.kind === 'log-level',
  )?.level;
  if (asked === undefined) {
    if (level === 'silent') return plainLogger(() => {});
    return plainLogger(warn);
  }
  const { path } = asked;
  try {
    const destination = pino.destination(
      path === undefined ? { dest: 2, sync: true } : { dest: path, sync: true },
    );
    return pino({ level: level ?? 'info', base: null }, destination);
  } catch (error) {
    const { code = 'EIO' } = error as NodeJS.ErrnoException;
    throw new HostIoError('open', code, `could not open '${path}': ${code}`);
  }
}

function plainLogger(warn: (line: string) => void): Logger {
  const tell = (_details: object, message: string): void => warn(message);
  return { debug() {}, info() {}, warn: tell, error: tell };
}
