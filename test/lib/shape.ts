/** Whether a value is what a command's shape says. */

import { type Shape, str } from '../../src/monitor/shape.ts';

/** Where `value` has not this shape, for people; undefined: it has. */
export function shapeFault(shape: Shape, value: unknown, at = 'it'): string | undefined {
  switch (shape.kind) {
    case 'any':
      return value === undefined ? `${at} is missing` : undefined;
    case 'str':
      return typeof value === 'string' ? undefined : `${at} is no string`;
    case 'bool':
      return typeof value === 'boolean' ? undefined : `${at} is no boolean`;
    case 'int':
      return Number.isInteger(value) ? undefined : `${at} is no integer`;
    case 'number':
      return typeof value === 'number' ? undefined : `${at} is no number`;
    case 'enum':
      return shape.values.includes(value as string) ? undefined : `${at} is none of ${shape.values}`;
    case 'list':
      if (!Array.isArray(value)) return `${at} is no list`;
      return first(value.map((element, i) => shapeFault(shape.of, element, `${at}[${i}]`)));
    case 'union': {
      const { tag, members, branches, name } = shape;
      const own = branches[String((value as Record<string, unknown> | null)?.[tag])];
      if (own === undefined) return `${at}.${tag} is none of ${Object.keys(branches)}`;
      return shapeFault({ kind: 'struct', name, members: { [tag]: str, ...members, ...own } }, value, at);
    }
    case 'nothing':
    case 'struct': {
      if (typeof value !== 'object' || value === null || Array.isArray(value)) return `${at} is no object`;
      const members = shape.kind === 'struct' ? shape.members : {};
      const unknown = Object.keys(value).find((name) => !Object.hasOwn(members, name));
      if (unknown !== undefined) return `${at} has a member ${unknown}`;
      return first(
        Object.entries(members).map(([name, member]) => {
          const own = (value as Record<string, unknown>)[name];
          if ('optional' in member)
            return own === undefined ? undefined : shapeFault(member.optional, own, `${at}.${name}`);
          return shapeFault(member, own, `${at}.${name}`);
        }),
      );
    }
  }
}

function first(faults: readonly (string | undefined)[]): string | undefined {
  return faults.find((fault) => fault !== undefined);
}
