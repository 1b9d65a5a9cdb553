/** What is written from the tables: help, completion, introspection, the reference page. */
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { parseCommandLine } from '../../src/config/commandline.ts';
import { completeWords, completionScript } from '../../src/config/completion.ts';
import { driverNamed } from '../../src/config/devices/index.ts';
import {
  addNetdevSchema,
  addObjectSchema,
  commandLineOptions,
  deviceProperties,
  SchemaBuilder,
} from '../../src/config/introspect.ts';
import { netdevTypes } from '../../src/config/netdevs/index.ts';
import { objectTypes } from '../../src/config/objects/index.ts';
import { referencePage } from '../../src/config/reference.ts';

function printed(...argv: string[]): string {
  const parsed = parseCommandLine(argv);
  if (parsed.action !== 'print') throw new Error(`${argv.join(' ')} printed nothing`);
  return parsed.text;
}

describe('help', () => {
  it('lists types, and the options of each', () => {
    for (const type of Object.keys(netdevTypes)) {
      expect(printed('--netdev', 'help')).toContain(`  ${type} `);
      const text = printed('--netdev', `${type},help`);
      for (const [name, spec] of Object.entries(netdevTypes[type as 'user'].options)) {
        expect(text).toContain((spec.kind as string) === 'union' ? `${name}.type=` : `  ${name}=`);
      }
    }
    for (const type of Object.keys(objectTypes)) {
      expect(printed('--object', 'help')).toContain(type);
      expect(printed('--object', `${type},help`)).toContain('id=<id>');
    }
  });

  it('is found in each place that QEMU users look', () => {
    expect(printed('-h')).toContain('usage: netemu');
    expect(printed('-help')).toContain('--netdev TYPE,id=ID');
    expect(printed('-device', '?')).toContain('virtio-net-pci-transitional');
    expect(printed('-device', 'e1000,help')).toContain('mitigation=<on|off>');
    expect(printed('-device', 'e1000,netdev=n0,help')).toContain('mitigation=<on|off>');
    expect(printed('-net', 'nic,model=help')).toContain('rtl8139');
    expect(printed('-nic', 'model=?')).toContain('rtl8139');
    expect(printed('-nic', 'help')).toContain('mac=');
    expect(printed('-net', 'help')).toContain('macaddr=');
    expect(printed('-chardev', 'help')).toContain('--chardev ringbuf');
    expect(printed('-guest', 'help')).toContain('expect-sha256');
    expect(printed('-mon', 'help')).toContain('readline|control');
  });

  it('fits a terminal of 100 columns', () => {
    const texts = [
      printed('--help'),
      ...Object.keys(netdevTypes).map((type) => printed('--netdev', `${type},help`)),
    ];
    for (const line of texts.join('').split('\n')) {
      if (!line.includes('=<')) expect(line.length).toBeLessThanOrEqual(100);
    }
  });

  it('of an unknown type is an error', () => {
    expect(() => parseCommandLine(['--netdev', 'bogus,help'])).toThrow("does not accept value 'bogus'");
    expect(() => parseCommandLine(['--device', 'bogus,help'])).toThrow('not a valid device model name');
  });
});

describe('completion', () => {
  it.each([
    [['--netd'], ['--netdev']],
    [['-netd'], ['--netdev']],
    [['--netdev', 'us'], ['user']],
    [['--netdev', 'user,id=n0,restr'], ['user,id=n0,restrict=']],
    [
      ['--netdev', 'user,id=n0,restrict='],
      ['user,id=n0,restrict=on', 'user,id=n0,restrict=off'],
    ],
    [['--netdev', 'stream,addr.ty'], ['stream,addr.type=']],
    [
      ['--netdev', 'stream,addr.type='],
      ['stream,addr.type=inet', 'stream,addr.type=unix', 'stream,addr.type=fd'],
    ],
    [['--netdev', 'user,id=n0', '--device', 'e1000,netdev='], ['e1000,netdev=n0']],
    [['--chardev', 'null,id=c0', '--mon', 'chardev='], ['chardev=c0']],
    [
      ['--device', 'rtl8139,chip='],
      ['rtl8139,chip=8139c+', 'rtl8139,chip=8139c'],
    ],
    [['--netdev', 'hostfwd'], []],
    [
      ['--netdev', 'user,hostfwd=tcp::1-:2,hostf'],
      ['user,hostfwd=tcp::1-:2,hostfwd=', 'user,hostfwd=tcp::1-:2,hostfwd-address='],
    ],
    [
      ['--sandbox', 'o'],
      ['on', 'off'],
    ],
    [
      ['--completion', ''],
      ['bash', 'zsh', 'fish'],
    ],
    [['--netdev', 'bogus,'], []],
  ])('%j', (words, expected) => {
    expect(completeWords(words)).toEqual(expected);
    expect(printed('--complete', ...words)).toBe(expected.map((word) => `${word}\n`).join(''));
  });

  it('has a script for each shell', () => {
    for (const shell of ['bash', 'zsh', 'fish'] as const) {
      expect(printed('--completion', shell)).toBe(completionScript(shell));
      expect(completionScript(shell)).toContain('netemu --complete');
    }
  });
});

describe('introspection', () => {
  it('every type that is referred to is there, once', () => {
    const builder = new SchemaBuilder();
    expect([addNetdevSchema(builder), addObjectSchema(builder)]).toEqual(['Netdev', 'ObjectOptions']);
    const schema = builder.schema();
    const names = schema.map(({ name }) => name);
    expect(new Set(names).size).toBe(names.length);
    for (const info of schema) {
      if (info['meta-type'] === 'array') expect(names).toContain(info['element-type']);
      if (info['meta-type'] !== 'object') continue;
      for (const { type } of [...info.members, ...(info.variants ?? [])]) expect(names).toContain(type);
    }
    expect(JSON.parse(JSON.stringify(schema))).toEqual(schema);
  });

  it('says what may be left out', () => {
    const builder = new SchemaBuilder();
    addNetdevSchema(builder);
    const hubport = builder.schema().find(({ name }) => name === 'Netdev-hubport');
    expect(hubport).toMatchObject({
      members: [{ name: 'hubid', type: 'int' }, { name: 'netdev', default: null }, {}],
    });
    expect((hubport as unknown as { members: object[] }).members[0]).not.toHaveProperty('default');
  });

  it('device properties and command-line options', () => {
    const properties = deviceProperties(driverNamed('virtio-net-pci'));
    expect(properties).toContainEqual(
      expect.objectContaining({ name: 'mq', type: 'bool', 'default-value': false }),
    );
    const netdev = commandLineOptions().find(({ option }) => option === 'netdev');
    expect(netdev?.parameters).toContainEqual(expect.objectContaining({ name: 'hostfwd', type: 'string' }));
  });
});

it('docs/options.md is what `npm run docs` writes', () => {
  const page = readFileSync(new URL('../../docs/options.md', import.meta.url), 'utf8');
  expect(page, 'run `npm run docs`').toBe(referencePage());
});
