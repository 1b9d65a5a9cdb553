/**
 * Reads options by a table, from key=value entries or from a JSON object.
 *
 * Both go through one tree: a key with dots is a path, a leaf holds every occurrence in order. From the command line
 * the last occurrence of a non-list option wins. JSON objects cannot repeat a member (json.ts refuses it).
 *
 * Errors come in a fixed order: values and missing options in table order, then names the table does not know.
 */
import { OptionError } from '../core/errors.ts';
import { isJsonObject } from './json.ts';
import type { KeyvalEntry } from './keyval.ts';
import { doesNotAccept, expects, fromJson, fromText, type ReadContext, wrongType } from './kinds.ts';
import { nearest } from './nearest.ts';
import type { OptionSpec, OptionsOf, OptionTable, UnionSpec } from './schema.ts';

export type { ReadContext } from './kinds.ts';

/** Occurrences of one key, or the members under a dotted prefix. */
type Node = { readonly values: (string | undefined)[]; readonly members: Map<string, Node> };

export function readKeyval<T extends OptionTable>(
  table: T,
  entries: readonly KeyvalEntry[],
  context: ReadContext,
): OptionsOf<T> {
  const root: Node = { values: [], members: new Map() };
  for (const { key, value } of entries) nodeAt(root, expandShortForm(table, key, value), value, key);
  return readNode(table, root, '', context) as OptionsOf<T>;
}

/** `value` is plain data from anywhere; nothing about its shape is taken for granted. */
export function readJson<T extends OptionTable>(
  table: T,
  value: unknown,
  context: ReadContext,
): OptionsOf<T> {
  if (!isJsonObject(value)) throw new OptionError('Invalid parameter type, expected: object');
  return readMembers(table, value, '', context) as OptionsOf<T>;
}

interface ShortForm {
  readonly key: string;
  readonly negated: boolean;
}

/** `noX` by itself means `X=off` where the table has a boolean X and nothing called noX. */
function expandShortForm(table: OptionTable, key: string, value: string | undefined): ShortForm {
  if (value !== undefined || Object.hasOwn(table, key) || !key.startsWith('no'))
    return { key, negated: false };
  const rest = key.slice(2);
  const negated = Object.hasOwn(table, rest) && table[rest]!.kind === 'bool';
  return negated ? { key: rest, negated } : { key, negated: false };
}

function nodeAt(root: Node, form: ShortForm, value: string | undefined, written: string): void {
  let node = root;
  const path = form.key.split('.');
  if (path.length > 8) throw new OptionError(`Invalid parameter '${written}'`, { option: written });
  for (const part of path) {
    let next = node.members.get(part);
    if (!next) {
      next = { values: [], members: new Map() };
      node.members.set(part, next);
    }
    node = next;
  }
  node.values.push(form.negated ? 'off' : value);
}

function readNode(
  table: OptionTable,
  node: Node,
  prefix: string,
  context: ReadContext,
): Record<string, unknown> {
  const result: Record<string, unknown> = {};
  for (const [name, spec] of Object.entries(table)) {
    const path = prefix + name;
    const child = node.members.get(name);
    if (!child) {
      absent(result, name, path, spec);
    } else if (spec.kind === 'union') {
      if (child.values.length > 0) throw wrongType(path, 'object');
      const branch = branchOf(spec, path, lastText(child.members.get(spec.tag), `${path}.${spec.tag}`));
      const members = { [spec.tag]: TAG, ...spec.branches[branch]! };
      result[name] = { ...readNode(members, child, `${path}.`, context), [spec.tag]: branch };
    } else if (child.members.size > 0) {
      throw unknownName(`${path}.${child.members.keys().next().value}`, table, context);
    } else if (spec.kind === 'list') {
      result[name] = child.values.map((text) => withoutNul(path, withValue(text, path)));
    } else {
      const text = child.values.at(-1);
      const shown = text === undefined && spec.kind === 'bool' ? 'on' : withValue(text, path);
      result[name] = fromText(path, spec, shown, context);
    }
  }
  for (const name of node.members.keys()) {
    if (!Object.hasOwn(table, name)) throw unknownName(prefix + name, table, context);
  }
  return result;
}

/** Stands in a union's member table for the tag, which branchOf has read already. */
const TAG: OptionSpec = { kind: 'string', doc: 'Which shape the object has.' };

function readMembers(
  table: OptionTable,
  object: { readonly [key: string]: unknown },
  prefix: string,
  context: ReadContext,
): Record<string, unknown> {
  const result: Record<string, unknown> = {};
  for (const [name, spec] of Object.entries(table)) {
    const path = prefix + name;
    // undefined is what a JavaScript caller leaves in an option it does not set.
    const value = Object.hasOwn(object, name) ? object[name] : undefined;
    if (value === undefined) {
      absent(result, name, path, spec);
    } else if (spec.kind === 'union') {
      if (!isJsonObject(value)) throw wrongType(path, 'object');
      const tag = value[spec.tag];
      if (tag !== undefined && typeof tag !== 'string') throw wrongType(`${path}.${spec.tag}`, 'string');
      const branch = branchOf(spec, path, tag);
      const members = { [spec.tag]: TAG, ...spec.branches[branch]! };
      result[name] = readMembers(members, value, `${path}.`, context);
    } else if (spec.kind === 'list') {
      result[name] = stringList(path, value);
    } else {
      result[name] = fromJson(path, spec, value, context);
    }
  }
  for (const [name, value] of Object.entries(object)) {
    if (value !== undefined && !Object.hasOwn(table, name)) throw unknownName(prefix + name, table, context);
  }
  return result;
}

function absent(result: Record<string, unknown>, name: string, path: string, spec: OptionSpec): void {
  if (spec.required) throw missing(path);
  if ('default' in spec && spec.default !== undefined) result[name] = spec.default;
}

export function missing(name: string): OptionError {
  return new OptionError(`Parameter '${name}' is missing`, { option: name });
}

function unknownName(name: string, table: OptionTable, context: ReadContext): OptionError {
  const sentence =
    context.unknown?.(name) ??
    (context.source === 'json' ? `Parameter '${name}' is unexpected` : `Invalid parameter '${name}'`);
  const last = name.slice(name.lastIndexOf('.') + 1);
  return new OptionError(sentence, { option: name, nearest: nearest(last, Object.keys(table)) });
}

function branchOf(spec: UnionSpec, path: string, tag: string | undefined): string {
  if (tag === undefined) throw missing(`${path}.${spec.tag}`);
  if (!Object.hasOwn(spec.branches, tag)) {
    throw doesNotAccept(`${path}.${spec.tag}`, tag, Object.keys(spec.branches));
  }
  return tag;
}

function lastText(node: Node | undefined, path: string): string | undefined {
  return node === undefined ? undefined : withValue(node.values.at(-1), path);
}

/** Only a boolean may be given by its name alone. */
function withValue(text: string | undefined, name: string): string {
  if (text === undefined) throw new OptionError(`Expected '=' after parameter '${name}'`, { option: name });
  return text;
}

function withoutNul(name: string, text: string): string {
  if (text.includes('\0')) throw expects(name, 'text without NUL characters');
  return text;
}

function stringList(name: string, value: unknown): string[] {
  if (typeof value === 'string') return [withoutNul(name, value)];
  if (!Array.isArray(value)) throw wrongType(name, 'array');
  return value.map((element: unknown, index) => {
    const path = `${name}[${index}]`;
    if (typeof element === 'string') return withoutNul(path, element);
    if (!isJsonObject(element)) throw wrongType(path, 'object');
    const extra = Object.keys(element).find((key) => key !== 'str');
    if (extra !== undefined) {
      throw new OptionError(`Parameter '${path}.${extra}' is unexpected`, { option: name });
    }
    if (element.str === undefined) throw missing(`${path}.str`);
    if (typeof element.str !== 'string') throw wrongType(`${path}.str`, 'string');
    return withoutNul(path, element.str);
  });
}
