/** The reference page docs/qmp.md, written from the tables of commands, events and prompt commands. A test keeps the file equal to this text. */

import { defaultAsText, metavar } from '../config/kinds.ts';
import type { OptionTable } from '../config/schema.ts';
import type { Command } from './command.ts';
import { commands } from './commands/index.ts';
import { events } from './events.ts';
import { hmpCommands } from './hmp/commands.ts';
import { infoTopics } from './hmp/info.ts';
import { oneOf, type Shape } from './shape.ts';

/** A request that QEMU answers differently, and why. */
export interface Difference {
  readonly send: unknown;
  readonly reply: unknown;
  readonly qemu: unknown;
  readonly why: string;
}

/** Where the schema says something else than QEMU's, and why. */
export interface SchemaDifference {
  readonly difference: string;
  readonly why: string;
}

export function qmpReferencePage(
  differences: readonly Difference[],
  schemaDifferences: readonly SchemaDifference[],
): string {
  return [
    '# QMP and the prompt',
    '',
    'This page is generated from the tables in `src/monitor` and from `fixtures/qmp` by `npm run docs`; do not edit it.',
    'docs/monitor.md says how monitors are started and what they promise.',
    '',
    '## Commands',
    '',
    ...[...commands].sort((a, b) => (a.name < b.name ? -1 : 1)).flatMap(commandSection),
    '## Events',
    '',
    ...Object.entries(events).flatMap(([name, { doc, data }]) => [
      `### ${code(name)}`,
      '',
      doc,
      '',
      ...members(data),
    ]),
    '## The prompt',
    '',
    ...table(
      ['command', 'meaning'],
      hmpCommands.map(({ names, usage, help }) => [code(`${names.join('|')} ${usage}`.trim()), help]),
    ),
    '`info` knows:',
    '',
    ...table(
      ['topic', 'meaning'],
      Object.entries(infoTopics).map(([topic, { help }]) => [code(topic), help]),
    ),
    '## Where QEMU 11.1 answers otherwise',
    '',
    'Of the requests in `fixtures/qmp`, which are put to both, these are answered differently:',
    '',
    ...table(
      ['request', 'netemu', 'QEMU', 'why'],
      differences.map(({ send, reply, qemu, why }) => [
        code(brief(send)),
        code(brief(reply)),
        code(brief(qemu)),
        why,
      ]),
    ),
    '## Where the schema says something else',
    '',
    'The answers of `query-qmp-schema` are compared type by type for every command and event that both have (`<` arguments, `>` answers):',
    '',
    ...table(
      ['where: what', 'why'],
      schemaDifferences.map(({ difference, why }) => [code(difference), why]),
    ),
  ].join('\n');
}

function commandSection({ name, doc, args, oob, returns }: Command): string[] {
  const outOfBand = oob === true ? ' It may be executed out of band.' : '';
  const answer = returns.kind === 'nothing' ? [] : [`Answers with ${code(shapeText(returns))}.`, ''];
  return [
    `### ${code(name)}`,
    '',
    `${doc}${outOfBand}`,
    '',
    ...(args === undefined ? [] : members(args)),
    ...answer,
  ];
}

/** A shape as one line: members that may be absent have a question mark. */
function shapeText(shape: Shape): string {
  switch (shape.kind) {
    case 'list':
      return `[${shapeText(shape.of)}]`;
    case 'enum':
      return shape.values.map((value) => `"${value}"`).join('|');
    case 'struct': {
      const all = Object.entries(shape.members).map(([name, member]) =>
        'optional' in member ? `${name}?: ${shapeText(member.optional)}` : `${name}: ${shapeText(member)}`,
      );
      return `{ ${all.join(', ')} }`;
    }
    case 'union': {
      const { tag, members, branches, name } = shape;
      return Object.entries(branches)
        .map(([value, own]) =>
          shapeText({ kind: 'struct', name, members: { [tag]: oneOf(tag, [value]), ...members, ...own } }),
        )
        .join(' | ');
    }
    case 'nothing':
      return '{}';
    default:
      return shape.kind;
  }
}

function members(own: OptionTable): string[] {
  const rows = Object.entries(own).map(([name, spec]) => [
    code(name),
    code(metavar(spec)),
    spec.required ? 'required' : (spec.defaultText ?? defaultAsText(spec) ?? ''),
    spec.doc,
  ]);
  return rows.length === 0 ? [] : table(['member', 'value', 'default', 'meaning'], rows);
}

/** The part of a message that tells: the sentence of an error, the arguments of a command. */
function brief(message: unknown): string {
  const {
    error,
    execute,
    arguments: args,
    ...rest
  } = message as {
    error?: { desc: string };
    execute?: string;
    arguments?: object;
  };
  if (error !== undefined) return error.desc;
  if (execute !== undefined) return `${execute}${args === undefined ? '' : ` ${JSON.stringify(args)}`}`;
  return JSON.stringify(rest);
}

function table(head: readonly string[], rows: readonly (readonly string[])[]): string[] {
  const line = (cells: readonly string[]): string =>
    `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`;
  return [line(head), line(head.map(() => '---')), ...rows.map(line), ''];
}

const code = (text: string): string => `\`${text}\``;
