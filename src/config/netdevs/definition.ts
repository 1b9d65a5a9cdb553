/** What each file of this folder exports: a netdev type's options and what they mean together. */
import { OptionError } from '../../core/errors.ts';
import type { OptionsOf, OptionTable } from '../schema.ts';

export interface NetdevDefinition<K extends string, T extends OptionTable, C extends object> {
  readonly type: K;
  /** One line for `--netdev help`. */
  readonly summary: string;
  /** QEMU has no such type. */
  readonly beyond?: true;
  /** Everything but `type` and `id`, which all types have. */
  readonly options: T;
  /**
   * Checks what can be known from the options alone and returns them with every default filled in and every
   * address parsed. Throws OptionError; touches nothing.
   */
  readonly resolve: (options: OptionsOf<T>) => C;
}

export function defineNetdev<const K extends string, const T extends OptionTable, C extends object>(
  definition: NetdevDefinition<K, T, C>,
): NetdevDefinition<K, T, C> {
  return definition;
}

/** Throws unless `name` could be a Linux interface: 1 to 15 bytes, no slash, no blank, no colon. */
export function checkInterfaceName(option: string, name: string): void {
  if (!/^[\x21-\x2e\x30-\x39\x3b-\x7e]{1,15}$/.test(name) || name === '.' || name === '..') {
    throw new OptionError(
      `Parameter '${option}' expects an interface name (1 to 15 characters, none of them '/' or ':')`,
      { option },
    );
  }
}
