/** Two answers of query-qmp-schema side by side: names of types differ (QEMU hides its own), so types are compared by what they hold. */

interface Member {
  readonly name: string;
  readonly type: string;
  readonly default?: null;
}

export interface SchemaEntry {
  readonly name: string;
  readonly 'meta-type': string;
  readonly 'json-type'?: string;
  readonly 'element-type'?: string;
  readonly 'arg-type'?: string;
  readonly 'ret-type'?: string;
  readonly 'allow-oob'?: boolean;
  readonly members?: readonly Member[];
  readonly tag?: string;
  readonly variants?: readonly { readonly case: string; readonly type: string }[];
}

export class Schema {
  readonly entries: ReadonlyMap<string, SchemaEntry>;

  constructor(answer: readonly SchemaEntry[]) {
    this.entries = new Map(answer.map((entry) => [entry.name, entry]));
  }

  get(name: string): SchemaEntry {
    const found = this.entries.get(name);
    if (found === undefined) throw new Error(`the schema refers to ${name}, which is not in it`);
    return found;
  }

  /** Names of all commands and events. */
  get top(): string[] {
    return [...this.entries.values()]
      .filter((entry) => entry['meta-type'] === 'command' || entry['meta-type'] === 'event')
      .map(({ name }) => name);
  }
}

/** What differs for a command or event that both have, each as `path: what`. Members that only QEMU has are told, and those that only we have. */
export function schemaDifferences(ours: Schema, theirs: Schema, name: string): string[] {
  const [a, b] = [ours.get(name), theirs.get(name)];
  const found: string[] = [];
  if ((a['allow-oob'] ?? false) !== (b['allow-oob'] ?? false)) found.push(`${name}: allow-oob`);
  const compare = (x: string, y: string, path: string, seen: readonly string[]): void => {
    const [p, q] = [ours.get(x), theirs.get(y)];
    const [kind, other] = [p['meta-type'], q['meta-type']];
    if (kind !== other) {
      found.push(
        `${path}: ${kind === 'builtin' ? p['json-type'] : kind} where QEMU has ${other === 'builtin' ? q['json-type'] : other}`,
      );
      return;
    }
    if (kind === 'builtin') {
      if (p['json-type'] !== q['json-type'])
        found.push(`${path}: ${p['json-type']} where QEMU has ${q['json-type']}`);
      return;
    }
    if (kind === 'array') {
      compare(p['element-type']!, q['element-type']!, `${path}[]`, seen);
      return;
    }
    const names = (entry: SchemaEntry): string[] => (entry.members ?? []).map((member) => member.name);
    const only = (what: string, mine: readonly string[], yours: readonly string[]): void => {
      const rest = mine.filter((one) => !yours.includes(one));
      if (rest.length > 0) found.push(`${path}: only ${what} has ${rest.join(' ')}`);
    };
    only('netemu', names(p), names(q));
    only('QEMU', names(q), names(p));
    if (kind !== 'object' || seen.includes(x)) return;
    for (const member of p.members ?? []) {
      const same = q.members?.find((one) => one.name === member.name);
      if (same === undefined) continue;
      const at = `${path}.${member.name}`;
      if ('default' in member !== 'default' in same)
        found.push(`${at}: ${'default' in member ? 'optional' : 'required'} here only`);
      compare(member.type, same.type, at, [...seen, x]);
    }
    if (p.tag !== q.tag)
      found.push(`${path}: told apart by ${p.tag ?? 'nothing'}, QEMU by ${q.tag ?? 'nothing'}`);
    for (const variant of p.variants ?? []) {
      const same = q.variants?.find((one) => one.case === variant.case);
      if (same !== undefined) compare(variant.type, same.type, `${path}(${variant.case})`, [...seen, x]);
    }
  };
  compare(a['arg-type']!, b['arg-type']!, `${name} <`, []);
  if (a['ret-type'] !== undefined && b['ret-type'] !== undefined)
    compare(a['ret-type'], b['ret-type'], `${name} >`, []);
  return found;
}
