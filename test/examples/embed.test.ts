/** The example that docs/embedding.md shows does what it says, and stays short. */
import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { askGateway } from '../../examples/embed.ts';

it('the example emulator finds its gateway by ARP', async () => {
  // The user network's gateway: 52:55 and its IPv4 address.
  expect(await askGateway()).toBe('52550a000202');
});

it('is under 100 lines, and docs/embedding.md speaks of what it imports', () => {
  const source = readFileSync(new URL('../../examples/embed.ts', import.meta.url), 'utf8');
  expect(source.trimEnd().split('\n').length).toBeLessThan(100);
  const page = readFileSync(new URL('../../docs/embedding.md', import.meta.url), 'utf8');
  for (const name of /import \{([^}]*)\}/.exec(source)![1]!.match(/\w+/g)!)
    if (name !== 'type') expect(page).toContain(name);
});
