/** What this monitor knows about itself: commands, events, their types, and the options of the command line. */

import { commandLineOptions, SchemaBuilder, type SchemaInfo } from '../../config/introspect.ts';
import { OptionError } from '../../core/errors.ts';
import { type Command, command } from '../command.ts';
import { events } from '../events.ts';

export const introspectionCommands: readonly Command[] = [
  command({
    name: 'query-commands',
    doc: 'The names of all commands.',
    args: {},
    run: (_args, { monitor }) => monitor.commandNames.map((name) => ({ name })),
  }),
  command({
    name: 'query-qmp-schema',
    doc: 'All commands and events with the types of their arguments.',
    args: {},
    run: (_args, { monitor }) => monitor.schema(qmpSchema),
  }),
  command({
    name: 'query-command-line-options',
    doc: 'The options of the command line and their parameters.',
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
  for (const { name, schema, oob } of commands) builder.command(name, schema(builder), oob === true);
  for (const [name, { data }] of Object.entries(events))
    builder.event(name, builder.table(`${name}-arg`, data));
  return builder.schema();
}
