/**
 * Checks of a saved state, which is as untrusted as a guest: shapes and ranges, with an error that names the field. Each model's state.ts says what
 * its fields are; what they mean goes through the same masks and decoders as live writes.
 */

import { OptionError } from '../core/errors.ts';

export class StateCheck {
  readonly #model: string;

  constructor(model: string) {
    this.#model = model;
  }

  fail(where: string): never {
    throw new OptionError(`${this.#model} state: '${where}' is missing or out of range`);
  }

  object(value: unknown, where: string): Record<string, unknown> {
    if (typeof value !== 'object' || value === null || Array.isArray(value)) this.fail(where);
    return value as Record<string, unknown>;
  }

  integer(value: unknown, where: string, min: number, max: number): number {
    if (typeof value !== 'number' || !Number.isInteger(value) || value < min || value > max) this.fail(where);
    return value;
  }

  finite(value: unknown, where: string): number {
    if (typeof value !== 'number' || !Number.isFinite(value)) this.fail(where);
    return value;
  }

  boolean(value: unknown, where: string): boolean {
    if (typeof value !== 'boolean') this.fail(where);
    return value;
  }

  list(value: unknown, where: string, lengthMin: number, lengthMax = lengthMin): unknown[] {
    if (!Array.isArray(value) || value.length < lengthMin || value.length > lengthMax) this.fail(where);
    return value;
  }

  integers(value: unknown, where: string, length: number, min: number, max: number): number[] {
    return this.list(value, where, length).map((item) => this.integer(item, where, min, max));
  }
}
