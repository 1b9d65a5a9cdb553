/** Whatever is fed to the parsers, they answer or throw OptionError, in bounded time. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { parseChardevReference, readChardev } from '../../src/config/chardevs.ts';
import { formatCliError, parseCommandLine } from '../../src/config/commandline.ts';
import { completeWords } from '../../src/config/completion.ts';
import { parseConfigFile } from '../../src/config/config-file.ts';
import { nicDrivers, readDevice } from '../../src/config/devices/index.ts';
import { flags } from '../../src/config/flags.ts';
import { readGuest } from '../../src/config/guest.ts';
import { parseJson } from '../../src/config/json.ts';
import { netdevTypes, readNetdev } from '../../src/config/netdevs/index.ts';
import { objectTypes, readObject } from '../../src/config/objects/index.ts';
import { checkReferences } from '../../src/config/references.ts';
import { OptionError } from '../../src/core/errors.ts';

/** Words that get past the first checks, so that the later ones are reached as well. */
const tableWords = [
  ...Object.keys(netdevTypes),
  ...Object.values(netdevTypes).flatMap(({ options }) => Object.keys(options)),
  ...Object.keys(nicDrivers),
  ...Object.keys(objectTypes),
  'id=n0',
  'addr.type=inet',
  'addr.type=unix',
  'local.type=fd',
  '__proto__',
  'hostfwd=tcp::0-:1',
  'help',
];
const values = [
  '',
  'on',
  'x',
  '0',
  '-1',
  '1e9',
  '0x10',
  '10.0.2.2',
  '::1',
  '/p',
  'a:b',
  ':5',
  '[::1]:5',
  '\0',
  'é',
  '9'.repeat(30),
];
const piece = fc.oneof(
  fc.constantFrom(...tableWords),
  fc
    .tuple(fc.constantFrom(...tableWords), fc.constantFrom(...values))
    .map(([key, value]) => `${key}=${value}`),
  fc.string({ unit: 'binary', maxLength: 12 }),
);
const argument = fc.array(piece, { maxLength: 8 }).map((pieces) => pieces.join(','));
const flag = fc.constantFrom(...flags.map(({ name }) => `--${name}`));

/** Runs `parse`; anything but a result or an OptionError fails the property. */
function survives(parse: () => unknown): void {
  try {
    parse();
  } catch (error) {
    if (!(error instanceof OptionError)) throw error;
    const line = formatCliError(error);
    // biome-ignore lint/suspicious/noControlCharactersInRegex: that is what must not be there
    expect(line).not.toMatch(/[\x00-\x1f]|^netemu: $/);
  }
}

describe('garbage in, OptionError out', () => {
  it('command lines', () => {
    const line = fc.array(fc.oneof(flag, argument, fc.tuple(flag, argument)), { maxLength: 6 });
    fc.assert(
      fc.property(line, (words) => {
        survives(() => {
          const parsed = parseCommandLine(words.flat());
          if (parsed.action === 'run') checkReferences(parsed.declarations);
        });
      }),
      { numRuns: 3000 },
    );
  });

  it('JSON text, and the file of --config', () => {
    const text = fc.oneof(
      fc.json(),
      fc.string(),
      fc.json().map((json) => json.slice(0, -1)),
    );
    fc.assert(
      fc.property(text, (json) => {
        survives(() => parseJson(json));
        survives(() => parseConfigFile('f', json));
        survives(() => parseConfigFile('f', `{"netdev":[${json}],"mon":${json},"guest":${json}}`));
      }),
      { numRuns: 1000 },
    );
  });

  it('objects from a monitor or a caller', () => {
    const key = fc.oneof(
      fc.constantFrom(...tableWords, 'type', 'driver', 'id', 'qom-type', 'backend', 'addr'),
      fc.string(),
    );
    const name = fc.oneof(fc.constantFrom(...tableWords), fc.anything());
    const object = fc.dictionary(key, fc.oneof(name, fc.constantFrom(...values), fc.anything()));
    fc.assert(
      fc.property(object, name, fc.anything(), (members, kind, anything) => {
        for (const read of [readNetdev, readDevice, readObject, readChardev, readGuest]) {
          survives(() => read(anything));
          survives(() =>
            read({ id: 'a', ...members, type: kind, driver: kind, 'qom-type': kind, backend: kind }),
          );
          survives(() => read({ id: 'a', type: kind, ...members }));
        }
      }),
      { numRuns: 1000 },
    );
  });

  it('addresses in place, and completion, which never fails', () => {
    fc.assert(
      fc.property(fc.array(fc.oneof(flag, argument), { maxLength: 5 }), argument, (words, last) => {
        survives(() => parseChardevReference(last));
        expect(Array.isArray(completeWords([...words, last]))).toBe(true);
      }),
      { numRuns: 1000 },
    );
  });

  it('long input, quickly', () => {
    const many = 100_000;
    const inputs = [
      'user,id=n0,'.concat('hostfwd=tcp::0-:1,'.repeat(many / 20)),
      'user,'.concat(','.repeat(many)),
      'user,id='.concat('a'.repeat(many)),
      'user,id=n0,net='.concat('1.'.repeat(many)),
      'stream,id=s,'.concat('addr.'.repeat(many)),
      'stream,id=s,addr.type=inet,addr.port=1,addr.host='.concat('a-'.repeat(many)),
      'user,id=n0,ipv6-host='.concat(':'.repeat(many)),
      'x'.repeat(2_000_000),
      '['.repeat(many),
      `{"a":"${'\\u0041'.repeat(many)}"}`,
      `{"a":"${'x'.repeat(1_000_000)}"}`,
    ];
    const start = performance.now();
    for (const input of inputs) {
      survives(() => parseCommandLine(['--netdev', input]));
      survives(() => parseCommandLine([input]));
      survives(() => parseJson(input));
    }
    expect(performance.now() - start).toBeLessThan(3000);
  });
});
