/**
 * What a driver does against its chip's manual (`strict=on`), counted by kind of fault and logged once for each kind until the NIC goes. Each model has a
 * checker with a table of such rules; checkers look and never change anything, and a NIC without `strict` has none.
 */

import type { Logger } from '../core/log.ts';

/** [register or structure, section of the manual, what the driver did]. */
export type DriverRule = readonly [register: string, section: string, message: string];

/** The QMP struct DriverComplaint, field for field. */
export interface DriverComplaint {
  rule: string;
  register: string;
  section: string;
  message: string;
  count: number;
  /** What was seen the first time: a register's value, a length or an index, as the message says. */
  'first-value': number;
}

export class DriverReport<K extends string = string> {
  readonly #name: string;
  readonly #rules: Readonly<Record<K, DriverRule>>;
  readonly #log: Logger | undefined;
  readonly #seen = new Map<K, { count: number; first: number }>();

  /** `name`: the NIC's, as operators see it. */
  constructor(name: string, rules: Readonly<Record<K, DriverRule>>, log: Logger | undefined) {
    this.#name = name;
    this.#rules = rules;
    this.#log = log;
  }

  /** The driver broke a rule; `value`: what it did it with. */
  broken(rule: K, value: number): void {
    const seen = this.#seen.get(rule);
    if (seen !== undefined) {
      seen.count++;
      return;
    }
    this.#seen.set(rule, { count: 1, first: value });
    const [register, section, message] = this.#rules[rule];
    this.#log?.warn(
      { nic: this.#name, rule, register, section, value },
      `${this.#name}: ${message} (${register}, ${section})`,
    );
  }

  /** In the order of the first time. */
  complaints(): DriverComplaint[] {
    return [...this.#seen].map(([rule, { count, first }]) => {
      const [register, section, message] = this.#rules[rule];
      return { rule, register, section, message, count, 'first-value': first };
    });
  }
}
