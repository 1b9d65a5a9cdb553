/** What the tests of strict=on share. */
import { expect } from 'vitest';
import type { Logger } from '../../src/core/log.ts';
import type { Nic } from '../../src/nic/nic.ts';

/** A logger that keeps warnings. */
export class LogBook implements Logger {
  readonly lines: { details: object; message: string }[] = [];

  debug(): void {}
  info(): void {}
  error(): void {}

  warn(details: object, message: string): void {
    this.lines.push({ details, message });
  }
}

/** The driver has done nothing against the manual. */
export function expectClean(nic: Nic): void {
  expect(nic.driverReport?.complaints()).toEqual([]);
}
