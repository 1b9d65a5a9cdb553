/**
 * What commands answer with, declared once: the TypeScript type that `run` must return, and the types that query-qmp-schema tells, come from the same
 * value. Names are the QAPI's where it has such a type.
 */

import type { SchemaBuilder, SchemaMember } from '../config/introspect.ts';

export type Shape =
  | { readonly kind: 'str' | 'int' | 'number' | 'bool' }
  /** Whatever JSON can say: counters by name, the value of a property. */
  | { readonly kind: 'any' }
  | { readonly kind: 'enum'; readonly name: string; readonly values: readonly string[] }
  | { readonly kind: 'list'; readonly of: Shape }
  | { readonly kind: 'struct'; readonly name: string; readonly members: Members }
  /** An object whose further members depend on one of them, the tag. */
  | {
      readonly kind: 'union';
      readonly name: string;
      readonly tag: string;
      readonly members: Members;
      readonly branches: { readonly [value: string]: Members };
    }
  /** The empty object that commands without an answer return. */
  | { readonly kind: 'nothing' };

export interface Optional {
  readonly optional: Shape;
}

export interface Members {
  readonly [name: string]: Shape | Optional;
}

export const str = { kind: 'str' } as const;
export const int = { kind: 'int' } as const;
export const number = { kind: 'number' } as const;
export const bool = { kind: 'bool' } as const;
export const any = { kind: 'any' } as const;
export const nothing = { kind: 'nothing' } as const;

export function list<const S extends Shape>(of: S): { readonly kind: 'list'; readonly of: S } {
  return { kind: 'list', of };
}

export function optional<const S extends Shape>(shape: S): { readonly optional: S } {
  return { optional: shape };
}

export function struct<const M extends Members>(
  name: string,
  members: M,
): { readonly kind: 'struct'; readonly name: string; readonly members: M } {
  return { kind: 'struct', name, members };
}

export function oneOf<const V extends readonly string[]>(
  name: string,
  values: V,
): { readonly kind: 'enum'; readonly name: string; readonly values: V } {
  return { kind: 'enum', name, values };
}

export function union<
  const T extends string,
  const M extends Members,
  const B extends { readonly [value: string]: Members },
>(
  name: string,
  tag: T,
  members: M,
  branches: B,
): {
  readonly kind: 'union';
  readonly name: string;
  readonly tag: T;
  readonly members: M;
  readonly branches: B;
} {
  return { kind: 'union', name, tag, members, branches };
}

type OptionalNames<M extends Members> = {
  [K in keyof M]: M[K] extends Optional ? K : never;
}[keyof M];

type StructValue<M extends Members> = {
  readonly [K in Exclude<keyof M, OptionalNames<M>>]: M[K] extends Shape ? ValueOfShape<M[K]> : never;
} & {
  readonly [K in OptionalNames<M>]?: M[K] extends { readonly optional: infer S extends Shape }
    ? ValueOfShape<S> | undefined
    : never;
};

/** What a function returns that returns nothing. */
type Nothing = ReturnType<() => void>;

/** The type of values that have a shape. */
export type ValueOfShape<S extends Shape> = S extends { readonly kind: 'str' }
  ? string
  : S extends { readonly kind: 'int' | 'number' }
    ? number
    : S extends { readonly kind: 'bool' }
      ? boolean
      : S extends { readonly kind: 'enum'; readonly values: readonly (infer V)[] }
        ? V
        : S extends { readonly kind: 'list'; readonly of: infer E extends Shape }
          ? readonly ValueOfShape<E>[]
          : S extends {
                readonly kind: 'union';
                readonly tag: infer T extends string;
                readonly members: infer M extends Members;
                readonly branches: infer B;
              }
            ? {
                [K in keyof B]: { readonly [N in T]: K } & StructValue<M> &
                  (B[K] extends Members ? StructValue<B[K]> : never);
              }[keyof B]
            : S extends { readonly kind: 'struct'; readonly members: infer M extends Members }
              ? StructValue<M>
              : S extends { readonly kind: 'nothing' }
                ? Nothing
                : unknown;

/** Adds a shape, and whatever it consists of, to the schema; returns its type's name. */
export function addShape(builder: SchemaBuilder, shape: Shape): string {
  switch (shape.kind) {
    case 'str':
      return builder.builtin('str', 'string');
    case 'int':
      return builder.builtin('int', 'int');
    case 'number':
      return builder.builtin('number', 'number');
    case 'bool':
      return builder.builtin('bool', 'boolean');
    case 'any':
      return builder.builtin('any', 'value');
    case 'enum':
      return builder.enumeration(shape.name, shape.values);
    case 'list':
      return builder.list(addShape(builder, shape.of));
    case 'nothing':
      return builder.members('q_empty', []);
    case 'struct':
      return builder.members(shape.name, addMembers(builder, shape.members));
    case 'union':
      return builder.tagged(
        shape.name,
        shape.tag,
        addMembers(builder, shape.members),
        Object.entries(shape.branches).map(([value, members]) => ({
          case: value,
          type: builder.members(`${shape.name}-${value}`, addMembers(builder, members)),
        })),
      );
  }
}

function addMembers(builder: SchemaBuilder, members: Members): SchemaMember[] {
  return Object.entries(members).map(([name, member]) =>
    'optional' in member
      ? { name, type: addShape(builder, member.optional), default: null }
      : { name, type: addShape(builder, member) },
  );
}
