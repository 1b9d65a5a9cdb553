/** fixtures/qmp: conversations with a fresh monitor each, request by request. test/peers/qmp.test.ts holds QEMU to the same files. */

import { readdirSync, readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { type Difference, qmpReferencePage, type SchemaDifference } from '../../src/monitor/reference.ts';
import { shapeFault } from '../lib/shape.ts';
import { TestMonitor } from './lib.ts';

interface Fixture {
  readonly about: string;
  readonly steps: readonly { readonly send: unknown; readonly reply: object }[];
}

const FOLDER = new URL('../../fixtures/qmp/', import.meta.url);

it('docs/qmp.md is what `npm run docs` writes', () => {
  const differences = readdirSync(FOLDER)
    .sort()
    .flatMap(
      (file) => (JSON.parse(readFileSync(new URL(file, FOLDER), 'utf8')) as { steps: Difference[] }).steps,
    )
    .filter(({ qemu }) => qemu !== undefined);
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
