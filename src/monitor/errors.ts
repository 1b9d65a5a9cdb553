/** Errors as QMP tells them: a class that clients match on and a sentence for people. */

import { HostIoError, OptionError, type QmpErrorClass, UnsupportedError } from '../core/errors.ts';

export interface QmpError {
  readonly class: QmpErrorClass;
  readonly desc: string;
}

/** What the client is told; undefined for an error of our own. */
export function explain(error: unknown): QmpError | undefined {
  if (error instanceof OptionError) return { class: error.qmpClass, desc: error.message };
  if (error instanceof HostIoError || error instanceof UnsupportedError) {
    return { class: 'GenericError', desc: error.message };
  }
  return undefined;
}

export function deviceNotFound(name: string): OptionError {
  return new OptionError(`Device '${name}' not found`, { qmpClass: 'DeviceNotFound' });
}

export function generic(sentence: string): OptionError {
  return new OptionError(sentence);
}
