/** What a QMP command is: its name, what it takes (the same kind of table as options have), what it does. commands/ has them, one file per concern. */

import type { SchemaBuilder } from '../config/introspect.ts';
import { isJsonObject, type JsonObject } from '../config/json.ts';
import { readJson } from '../config/read.ts';
import type { OptionsOf, OptionTable } from '../config/schema.ts';
import { OptionError } from '../core/errors.ts';
import type { Handle } from '../host-io/host-io.ts';
import type { Monitor } from './monitor.ts';
import type { Shape, ValueOfShape } from './shape.ts';

/** Who sent a command, as far as commands care. */
export interface Caller {
  readonly monitor: Monitor;
  /** The oldest descriptor that this client passed and no command took yet; the command owns it. */
  takeFd(): Handle | undefined;
}

export interface Command {
  readonly name: string;
  /** One sentence for the reference page. */
  readonly doc: string;
  /** May be executed out of band (`exec-oob`): it never waits. */
  readonly oob?: true;
  /** Its arguments, where they are a table of their own; netdev_add and the like take the options of what they make. */
  readonly args?: OptionTable;
  /** Adds the argument's type to the schema and returns its name. */
  readonly schema: (builder: SchemaBuilder) => string;
  /** What it answers with, for the schema. */
  readonly returns: Shape;
  /** Throws what `replyFor` (errors.ts) turns into a reply. `args` comes from the client as it is. Undefined is the empty object. */
  readonly run: (args: JsonObject, caller: Caller) => unknown;
}

type Answer<R extends Shape> = ValueOfShape<R> | Promise<ValueOfShape<R>>;

/** A command whose arguments are a table. */
export function command<const T extends OptionTable, const R extends Shape>(definition: {
  readonly name: string;
  readonly doc: string;
  readonly args: T;
  readonly returns: R;
  readonly oob?: true;
  readonly run: (args: OptionsOf<T>, caller: Caller) => Answer<R>;
}): Command {
  const { name, doc, args, returns, oob, run } = definition;
  return {
    name,
    doc,
    args,
    returns,
    ...(oob && { oob }),
    schema: (builder) => builder.table(`${name}-arg`, args),
    run: (given, caller) => run(readArguments(args, given), caller),
  };
}

/** A command that reads its arguments itself. */
export function rawCommand<const R extends Shape>(definition: {
  readonly name: string;
  readonly doc: string;
  readonly oob?: true;
  readonly schema: (builder: SchemaBuilder) => string;
  readonly returns: R;
  readonly run: (args: JsonObject, caller: Caller) => Answer<R>;
}): Command {
  return definition;
}

/** Reads arguments (or an object within them) by a table, with the monitor's sentences. */
export function readArguments<const T extends OptionTable>(table: T, value: unknown): OptionsOf<T> {
  return readJson(table, value, { source: 'json', voice: 'options' });
}

/** The elements of a list argument. Throws OptionError when it is missing or no list. */
export function listArgument(args: JsonObject, name: string): readonly unknown[] {
  const value = args[name];
  if (value === undefined) throw new OptionError(`Parameter '${name}' is missing`, { option: name });
  if (!Array.isArray(value)) {
    throw new OptionError(`Invalid parameter type for '${name}', expected: array`, { option: name });
  }
  return value;
}

/** An object among a list's elements. */
export function objectElement(value: unknown, name: string): JsonObject {
  if (!isJsonObject(value)) {
    throw new OptionError(`Invalid parameter type for '${name}', expected: object`, { option: name });
  }
  return value;
}

/** Throws for a member that is none of `names`. */
export function onlyMembers(args: JsonObject, names: readonly string[]): void {
  for (const name of Object.keys(args)) {
    if (!names.includes(name)) throw new OptionError(`Parameter '${name}' is unexpected`, { option: name });
  }
}
