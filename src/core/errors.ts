/**
 * Errors, told apart by who is at fault. A guest or a network peer never causes one: what they do wrong is
 * counted (see stats.ts) and answered as the silicon would.
 */

/** The user gave a bad option. `message` is one plain sentence, QEMU's wording where one exists. */
export class OptionError extends Error {
  override name = 'OptionError';
  /** The option at fault, as the user spells it, when one is. */
  readonly option: string | undefined;
  /** The nearest valid spelling, when there is one. */
  readonly nearest: string | undefined;
  /** The QMP error class clients match on. */
  readonly qmpClass: QmpErrorClass;

  constructor(
    message: string,
    detail: { option?: string; nearest?: string | undefined; qmpClass?: QmpErrorClass } = {},
  ) {
    super(message);
    this.option = detail.option;
    this.nearest = detail.nearest;
    this.qmpClass = detail.qmpClass ?? 'GenericError';
  }
}

export type QmpErrorClass =
  | 'GenericError'
  | 'DeviceNotFound'
  | 'CommandNotFound'
  | 'DeviceNotActive'
  | 'KVMMissingCap';

/** A system call of the host failed. */
export class HostIoError extends Error {
  override name = 'HostIoError';
  /** The system call, such as `bind`. */
  readonly syscall: string;
  /** The errno's name, such as `EADDRINUSE`. */
  readonly code: string;

  constructor(syscall: string, code: string, message: string) {
    super(message);
    this.syscall = syscall;
    this.code = code;
  }
}

/** This platform or build cannot do it (no addon, no kernel module, a browser). */
export class UnsupportedError extends Error {
  override name = 'UnsupportedError';
}

/** What is declared and understood, but has nothing behind it here. `instead`: what does the same. */
export function notInThisBuild(what: string, instead?: string): UnsupportedError {
  const hint = instead === undefined ? '' : `: ${instead}`;
  return new UnsupportedError(`${what} is not available in this build of netemu${hint}`);
}

/** netemu broke one of its own rules. */
export class InvariantError extends Error {
  override name = 'InvariantError';
}
