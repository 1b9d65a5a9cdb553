/** What this monitor knows about itself: commands, events, their types, and the options of the command line. */

import { commandLineOptions, SchemaBuilder, type SchemaInfo } from '../../config/introspect.ts';
import { OptionError } from '../../core/errors.ts';
import { type Command, command } from '../command.ts';
import { events } from '../events.ts';
import { addShape, any, bool, list, oneOf, optional, str, struct, union } from '../shape.ts';

const schemaInfo = union(
  'SchemaInfo',
  'meta-type',
  { name: str },
  {
    builtin: { 'json-type': str },
    enum: { members: list(struct('SchemaInfoEnumMember', { name: str })), values: list(str) },
    array: { 'element-type': str },
    object: {
      members: list(struct('SchemaInfoObjectMember', { name: str, type: str, default: optional(any) })),
      tag: optional(str),
      variants: optional(list(struct('SchemaInfoObjectVariant', { case: str, type: str }))),
    },
    command: { 'arg-type': str, 'ret-type': str, 'allow-oob': optional(bool) },
    event: { 'arg-type': str },
  },
);
const commandLineOptionInfo = struct('CommandLineOptionInfo', {
  option: str,
  parameters: list(
    struct('CommandLineParameterInfo', {
      name: str,
      type: oneOf('CommandLineParameterType', ['string', 'boolean', 'number', 'size']),
      help: optional(str),
      default: optional(str),
    }),
  ),
});

export const introspectionCommands: readonly Command[] = [
  command({
    name: 'query-commands',
    doc: 'The names of all commands.',
    returns: list(struct('CommandInfo', { name: str })),
    args: {},
    run: (_args, { monitor }) => monitor.commandNames.map((name) => ({ name })),
  }),
  command({
    name: 'query-qmp-schema',
    doc: 'All commands and events with the types of their arguments.',
    returns: list(schemaInfo),
    args: {},
    run: (_args, { monitor }) => monitor.schema(qmpSchema),
  }),
  command({
    name: 'query-command-line-options',
    doc: 'The options of the command line and their parameters.',
    returns: list(commandLineOptionInfo),
    args: { option: { kind: 'string', doc: 'Only this option, without its dashes.' } },
    run: ({ option }) => {
      const all = commandLineOptions();
      if (option === undefined) return all;
      const found = all.filter((one) => one.option === option);
      if (found.length === 0) {
        throw new OptionError(`invalid option name: ${option}`, { option: 'option' });
      }
      return found;
    },
  }),
];

/** The answer of query-qmp-schema. */
export function qmpSchema(commands: readonly Command[]): SchemaInfo[] {
  const builder = new SchemaBuilder();
  for (const { name, schema, returns, oob } of commands)
    builder.command(name, schema(builder), addShape(builder, returns), oob === true);
  for (const [name, { data }] of Object.entries(events))
    builder.event(name, builder.table(`${name}-arg`, data));
  return builder.schema();
}
