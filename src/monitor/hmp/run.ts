/** Runs one line of the prompt: words, a command, what it prints. Never throws for what was typed. */

import type { Caller } from '../command.ts';
import { explain } from '../errors.ts';
import { type HmpCommand, hmpCommand, hmpCommands, UsageError } from './commands.ts';

/** Returns what the prompt prints, each line ended by a newline. */
export async function runHmp(line: string, caller: Caller): Promise<string> {
  const text = line.trim();
  const name = /^\S*/.exec(text)![0];
  if (name === '') return '';
  const found = hmpCommand(name);
  if (found === undefined) return `unknown command: '${name}'\n`;
  try {
    return (await found.run(caller, argumentsOf(found, text.slice(name.length).trim()))) ?? '';
  } catch (error) {
    if (error instanceof UsageError) return `${error.message}\n${pointer(error.topic ?? found.names[0])}`;
    const told = explain(error);
    if (told !== undefined) return `Error: ${told.desc}\n`;
    caller.monitor.network.context.log.error({ err: error }, 'a monitor command failed by a fault of netemu');
    return 'Error: internal error\n';
  }
}

function pointer(topic: string): string {
  return `Try "help ${topic}" for more information\n`;
}

function argumentsOf({ names, words }: HmpCommand, rest: string): string[] {
  if (words === 'rest' || words === 'options') {
    if (rest === '' && words === 'rest') throw new UsageError(`${names[0]}: string expected`);
    return [rest];
  }
  const given = splitWords(rest);
  const [least, most] = words;
  if (given.length < least) throw new UsageError(`${names[0]}: string expected`);
  if (given.length > most)
    throw new UsageError(`${names.join('|')}: extraneous characters at the end of line`);
  return given;
}

/** Words at blanks; double quotes keep blanks, a backslash within them keeps the next character. */
export function splitWords(text: string): string[] {
  const words: string[] = [];
  for (const [, quoted, plain] of text.matchAll(/"((?:[^"\\]|\\.)*)"?|(\S+)/gs)) {
    words.push(plain ?? quoted!.replaceAll(/\\(.)/gs, '$1'));
  }
  return words;
}

/** Words that the last word of `line` may be meant to become. */
export function completions(line: string, caller: Caller): string[] {
  const words = line.trimStart().split(/\s+/);
  const last = words.pop()!;
  if (words.length === 0) {
    return hmpCommands.map(({ names }) => names[0]).filter((name) => name.startsWith(last));
  }
  const [name, ...given] = words;
  const candidates = hmpCommand(name!)?.complete?.(caller, [...given, last]) ?? [];
  return [...new Set(candidates)].filter((candidate) => candidate.startsWith(last)).sort();
}
