/** fixtures/qmp: conversations with a fresh monitor each, request by request. test/peers/qmp.test.ts holds QEMU to the same files. */

import { readdirSync, readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { commands } from '../../src/monitor/commands/index.ts';
import { hmpCommands } from '../../src/monitor/hmp/commands.ts';
import { infoTopics } from '../../src/monitor/hmp/info.ts';
import { type Difference, qmpReferencePage, type SchemaDifference } from '../../src/monitor/reference.ts';
import { shapeFault } from '../lib/shape.ts';
import { TestMonitor } from './lib.ts';

interface Fixture {
  readonly about: string;
  readonly steps: readonly { readonly send: unknown; readonly reply: object }[];
}

interface Step {
  readonly send: unknown;
  readonly reply: object;
  readonly qemu?: unknown;
}

const FOLDER = new URL('../../fixtures/qmp/', import.meta.url);
/** The second is put to a netemu in a process of its own, by test/peers/qmp.test.ts. */
const FOLDERS = [FOLDER, new URL('../../fixtures/qmp-process/', import.meta.url)];

function stepsIn(folder: URL): Step[] {
  return readdirSync(folder)
    .sort()
    .flatMap((file) => (JSON.parse(readFileSync(new URL(file, folder), 'utf8')) as { steps: Step[] }).steps);
}

it('docs/qmp.md is what `npm run docs` writes', () => {
  const differences = FOLDERS.flatMap(stepsIn).filter(
    (step): step is Step & Difference => step.qemu !== undefined,
  );
  expect(differences.length).toBeGreaterThan(0);
  const schema = JSON.parse(
    readFileSync(new URL('../../fixtures/qmp-schema/differences.json', import.meta.url), 'utf8'),
  ) as { differences: SchemaDifference[] };
  for (const { why } of schema.differences) expect(why).toMatch(/\w/);
  expect(readFileSync(new URL('../../docs/qmp.md', import.meta.url), 'utf8')).toBe(
    qmpReferencePage(differences, schema.differences),
  );
});

describe('QMP conversations', () => {
  for (const file of readdirSync(FOLDER).sort()) {
    const { about, steps } = JSON.parse(readFileSync(new URL(file, FOLDER), 'utf8')) as Fixture;
    it(`${file}: ${about}`, async () => {
      const test = new TestMonitor();
      const client = await test.client(false);
      await client.next();
      await client.ask({ execute: 'qmp_capabilities', arguments: { enable: ['oob'] } });
      for (const { send, reply } of steps) {
        client.send(`${JSON.stringify(send)}\n`);
        const replies = (await client.messages()).filter((message) => !('event' in message));
        expect(replies, JSON.stringify(send)).toEqual([reply]);
        const { execute } = send as { execute?: string };
        if (!('return' in reply) || execute === undefined) continue;
        // What is answered is what query-qmp-schema says.
        const { returns } = test.monitor.command(execute)!;
        expect(shapeFault(returns, reply.return), JSON.stringify(send)).toBeUndefined();
      }
      await test.close();
    });
  }
});

describe('the requests that are put to QEMU as well', () => {
  const steps = FOLDERS.flatMap(stepsIn);
  const { onlyNetemu } = JSON.parse(
    readFileSync(new URL('../../fixtures/qmp-schema/differences.json', import.meta.url), 'utf8'),
  ) as { onlyNetemu: string[] };

  it('use every command that QEMU has', () => {
    const asked = new Set(steps.map(({ send }) => (send as { execute?: string }).execute));
    const others = commands.map(({ name }) => name).filter((name) => !asked.has(name));
    // query-qmp-schema is compared type by type, and quit ends every one of these tests.
    expect(others.sort()).toEqual([...onlyNetemu, 'quit'].sort());
  });

  it('use every prompt command and topic', () => {
    const lines = steps
      .map(({ send }) => (send as { arguments?: { 'command-line'?: string } }).arguments?.['command-line'])
      .filter((line) => line !== undefined);
    const used = (name: string): boolean =>
      lines.some((line) => line === name || line.startsWith(`${name} `));
    expect(hmpCommands.filter(({ names }) => !names.some(used)).map(({ names }) => names[0])).toEqual([
      'quit',
    ]);
    const topics = Object.keys(infoTopics).filter((topic) => !used(`info ${topic}`));
    // The machine's tree and version are QEMU's own.
    expect(topics.sort()).toEqual(['qtree', 'version']);
  });

  it.each([
    ["Device 'zz' not found", 'DeviceNotFound'],
    ['The command bogus has not been found', 'CommandNotFound'],
    ['invalid net client name: zz', 'GenericError'],
    ["net client(u1) isn't a NIC", 'GenericError'],
    ["QMP input member 'execute' must be a string", 'GenericError'],
    ["QMP input member 'frob' is unexpected", 'GenericError'],
    ["'bogus' is not a valid device model name", 'GenericError'],
    ["Duplicate device ID 'e0'", 'GenericError'],
    ["Property 'e1000.bogus' not found", 'GenericError'],
    ["Property 'e1000.mac' doesn't take value 'zz'", 'GenericError'],
    ["Property 'e1000.netdev' can't find value 'zz'", 'GenericError'],
    ["Property 'e1000.netdev' can't take value 'u1', it's in use", 'GenericError'],
    ['Invalid rx_queue_size (= 100), must be a power of 2 between 256 and 1024.', 'GenericError'],
    ["filter 'zz' not found", 'GenericError'],
    ["Parameter 'position' expects 'head', 'tail' or 'id=<id>'", 'GenericError'],
    ["filter redirector needs 'indev' or 'outdev' at least one property set", 'GenericError'],
    ["object 'zz' not found", 'GenericError'],
  ])('draw the error: %s', (desc, errorClass) => {
    const replies = steps.map(({ reply }) => (reply as { error?: { class: string; desc: string } }).error);
    expect(replies).toContainEqual({ class: errorClass, desc });
  });
});
