/** Filters and other objects, and the object tree. */

import { addObjectSchema } from '../../config/introspect.ts';
import { readObject } from '../../config/objects/index.ts';
import { OptionError } from '../../core/errors.ts';
import { type Command, command, onlyMembers, rawCommand } from '../command.ts';
import { findNode, listTypes } from '../qom.ts';
import { any, bool, list, nothing, optional, str, struct } from '../shape.ts';
import { objectPropertyInfo } from './devices.ts';

const path = {
  kind: 'string',
  required: true,
  doc: 'A path from the root, or the last name of one if it is unique.',
} as const;
const property = { kind: 'string', required: true, doc: 'The name of the property.' } as const;

export const objectCommands: readonly Command[] = [
  rawCommand({
    name: 'object-add',
    doc: 'Makes a filter, or another object.',
    returns: nothing,
    schema: addObjectSchema,
    run: async (args, { monitor }) => {
      await monitor.network.openObject(readObject(args));
    },
  }),
  command({
    name: 'object-del',
    doc: 'Takes an object away; frames that a filter holds go on their way.',
    returns: nothing,
    args: { id: { kind: 'string', required: true, doc: 'Its id.' } },
    run: ({ id }, { monitor }) => monitor.network.removeObject(id),
  }),
  command({
    name: 'qom-list',
    doc: 'What is at a place of the object tree: its children and properties.',
    returns: list(objectPropertyInfo),
    args: { path },
    run: (args, { monitor }) =>
      findNode(monitor, args.path).properties.map(({ name, type }) => ({ name, type })),
  }),
  command({
    name: 'qom-get',
    doc: 'The value of a property.',
    returns: any,
    args: { path, property },
    run: (args, { monitor }) => findNode(monitor, args.path).property(args.property).get(),
  }),
  rawCommand({
    name: 'qom-set',
    doc: 'Changes a property that can be changed while the object is in use.',
    returns: nothing,
    schema: (builder) =>
      builder.members('qom-set-arg', [
        { name: 'path', type: builder.builtin('str', 'string') },
        { name: 'property', type: builder.builtin('str', 'string') },
        { name: 'value', type: builder.builtin('any', 'value') },
      ]),
    run: (args, { monitor }) => {
      for (const name of ['path', 'property']) {
        if (args[name] === undefined) throw missing(name);
        if (typeof args[name] !== 'string') {
          throw new OptionError(`Invalid parameter type for '${name}', expected: string`, { option: name });
        }
      }
      if (args.value === undefined) throw missing('value');
      onlyMembers(args, ['path', 'property', 'value']);
      findNode(monitor, args.path as string)
        .property(args.property as string)
        .set(args.value);
    },
  }),
  command({
    name: 'qom-list-types',
    doc: 'The types that device_add, object-add and chardev-add make.',
    returns: list(struct('ObjectTypeInfo', { name: str, abstract: optional(bool), parent: optional(str) })),
    args: {
      implements: { kind: 'string', doc: 'Only types that are a kind of this one.' },
      abstract: { kind: 'bool', default: false, doc: 'Also types that only group others.' },
    },
    run: (args) => listTypes(args.implements, args.abstract),
  }),
];

function missing(name: string): OptionError {
  return new OptionError(`Parameter '${name}' is missing`, { option: name });
}
