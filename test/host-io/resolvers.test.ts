import { mkdtempSync, rmSync, unlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { hostResolvers, parseResolvers } from '../../src/host-io/resolvers.ts';

it.each([
  ['nameserver 192.0.2.1\nnameserver\t2001:db8::1 \n', ['192.0.2.1', '2001:db8::1']],
  ['# nothing\nsearch example\n', ['127.0.0.1']],
  ['nameserver 010.0.0.1\nnameserver fe80::1%eth0\nnameserver x\n', ['127.0.0.1']],
  ['nameserver 192.0.2.1\n'.repeat(9), ['192.0.2.1', '192.0.2.1', '192.0.2.1']],
])('reads %j', (text, servers) => {
  expect(parseResolvers(text)).toEqual(servers);
});

it('follows changes of the file, and keeps what it knew when it goes away', () => {
  const folder = mkdtempSync(join(tmpdir(), 'netemu-resolv-'));
  const file = join(folder, 'resolv.conf');
  const resolvers = hostResolvers(file);
  expect(resolvers()).toEqual(['127.0.0.1']);
  writeFileSync(file, 'nameserver 192.0.2.1\n');
  expect(resolvers()).toEqual(['192.0.2.1']);
  writeFileSync(file, 'nameserver 192.0.2.22\n');
  expect(resolvers()).toEqual(['192.0.2.22']);
  unlinkSync(file);
  expect(resolvers()).toEqual(['192.0.2.22']);
  rmSync(folder, { recursive: true });
});
