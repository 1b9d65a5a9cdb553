/**
 * The option table: one declaration per option, from which everything else follows.
 *
 *   table ─┬─▶ OptionsOf<table>, InputOf<table>   TypeScript types          (here)
 *          ├─▶ readKeyval / readJson              the two parsers           (read.ts, kinds.ts)
 *          ├─▶ helpText                           `--netdev user,help`      (help.ts)
 *          ├─▶ introspection                      query-qmp-schema          (introspect.ts)
 *          ├─▶ completeWords                      shell completion          (completion.ts)
 *          └─▶ referencePage                      docs/options.md           (reference.ts)
 *
 * A table says what one option by itself may be. What options mean together (exactly one of these, this inside
 * that network) is the `resolve` function that stands beside the table.
 *
 * `default` is filled in by the parsers, so the option is always present afterwards. `defaultText` documents a
 * default that depends on other options or on "was it given at all"; such an option stays absent when not given.
 */

interface CommonSpec {
  /** One or more plain sentences for help and the reference page. A test fails when it is missing. */
  readonly doc: string;
  /** The option must be given. */
  readonly required?: true;
  /** What absence means, where no constant says it. */
  readonly defaultText?: string;
  /** QEMU has no such option. */
  readonly beyond?: true;
  /** Kept for old lines; the text names what to use instead. */
  readonly legacy?: string;
}

export interface BoolSpec extends CommonSpec {
  readonly kind: 'bool';
  readonly default?: boolean;
}
export interface StringSpec extends CommonSpec {
  readonly kind: 'string';
  readonly default?: string;
  /** What stands for the value in help, such as `addr[/len]`. */
  readonly metavar?: string;
}
/** Letters, digits, `-._`, starting with a letter. */
export interface IdSpec extends CommonSpec {
  readonly kind: 'id';
}
export interface UintSpec extends CommonSpec {
  readonly kind: 'uint';
  readonly bits: 8 | 16 | 32 | 53;
  readonly default?: number;
  /** Read as octal digits on the command line (file modes). */
  readonly octal?: true;
  readonly metavar?: string;
}
/** A full 64-bit number, as a bigint. */
export interface Uint64Spec extends CommonSpec {
  readonly kind: 'uint64';
  readonly default?: bigint;
}
/** A signed 32-bit number. */
export interface IntSpec extends CommonSpec {
  readonly kind: 'int';
  readonly default?: number;
}
/** Bytes, with k, M, G, T (1024-fold) on the command line. */
export interface SizeSpec extends CommonSpec {
  readonly kind: 'size';
  readonly default?: number;
}
/** A rate, with k, M, G (1000-fold) on the command line. */
export interface RateSpec extends CommonSpec {
  readonly kind: 'rate';
  readonly default?: number;
  readonly unit: 'bit/s' | 'frames/s';
}
/** A time in nanoseconds; `10ms`, `2s`, `50us` on the command line, a bare number in `bareUnit`. */
export interface DurationSpec extends CommonSpec {
  readonly kind: 'duration';
  readonly default?: number;
  readonly bareUnit: 's' | 'ms' | 'us';
}
/** 0 to 100. */
export interface PercentSpec extends CommonSpec {
  readonly kind: 'percent';
  readonly default?: number;
}
export interface EnumSpec extends CommonSpec {
  readonly kind: 'enum';
  readonly values: readonly string[];
  readonly default?: string;
}
/** An option that repeats, in order. QAPI's `[{"str": …}]`, a list of strings and one string are all taken. */
export interface ListSpec extends CommonSpec {
  readonly kind: 'list';
  readonly metavar?: string;
}
/** A MAC address, kept as lower-case text with colons. */
export interface MacSpec extends CommonSpec {
  readonly kind: 'mac';
}
/** A nested object that is one of several shapes, told apart by its `tag` member (`addr.type=inet`). */
export interface UnionSpec extends CommonSpec {
  readonly kind: 'union';
  readonly tag: string;
  readonly branches: { readonly [name: string]: OptionTable };
}

export type OptionSpec =
  | BoolSpec
  | StringSpec
  | IdSpec
  | UintSpec
  | Uint64Spec
  | IntSpec
  | SizeSpec
  | RateSpec
  | DurationSpec
  | PercentSpec
  | EnumSpec
  | ListSpec
  | MacSpec
  | UnionSpec;

export interface OptionTable {
  readonly [name: string]: OptionSpec;
}

/** Declares a table; keeps every literal, so that the types below can be inferred from it. */
export function defineOptions<const T extends OptionTable>(table: T): T {
  return table;
}

type Flat<T> = { [K in keyof T]: T[K] } & {};

type BranchOf<S extends UnionSpec> = {
  [B in keyof S['branches'] & string]: Flat<{ [K in S['tag']]: B } & OptionsOf<S['branches'][B]>>;
}[keyof S['branches'] & string];

type BranchInputOf<S extends UnionSpec> = {
  [B in keyof S['branches'] & string]: Flat<{ [K in S['tag']]: B } & InputOf<S['branches'][B]>>;
}[keyof S['branches'] & string];

/** The type of one option's value once parsed. */
export type ValueOf<S extends OptionSpec> = S extends { kind: 'bool' }
  ? boolean
  : S extends { kind: 'string' | 'id' | 'mac' }
    ? string
    : S extends { kind: 'uint' | 'int' | 'size' | 'rate' | 'duration' | 'percent' }
      ? number
      : S extends { kind: 'uint64' }
        ? bigint
        : S extends { kind: 'enum'; values: readonly (infer V)[] }
          ? V
          : S extends { kind: 'list' }
            ? readonly string[]
            : S extends UnionSpec
              ? BranchOf<S>
              : never;

type InputValueOf<S extends OptionSpec> = S extends { kind: 'list' }
  ? string | readonly string[] | readonly { readonly str: string }[]
  : S extends { kind: 'uint64' }
    ? number | bigint
    : S extends UnionSpec
      ? BranchInputOf<S>
      : ValueOf<S>;

type AlwaysPresent<T extends OptionTable> = {
  [K in keyof T]: T[K] extends { required: true } | { default: unknown } ? K : never;
}[keyof T];

type MustGive<T extends OptionTable> = {
  [K in keyof T]: T[K] extends { required: true } ? K : never;
}[keyof T];

/** What the parsers return for a table: required and defaulted options are present, the others may be absent. */
export type OptionsOf<T extends OptionTable> = Flat<
  { readonly [K in AlwaysPresent<T>]: ValueOf<T[K]> } & {
    readonly [K in Exclude<keyof T, AlwaysPresent<T>>]?: ValueOf<T[K]>;
  }
>;

/** What a caller of the embedding API may write for a table: only required options must be there. */
export type InputOf<T extends OptionTable> = Flat<
  { readonly [K in MustGive<T>]: InputValueOf<T[K]> } & {
    readonly [K in Exclude<keyof T, MustGive<T>>]?: InputValueOf<T[K]>;
  }
>;
