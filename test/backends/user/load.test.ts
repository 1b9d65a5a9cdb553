/** The user network under load and faults of the host, by the names of the hardening table. */
import { afterEach, expect, it } from 'vitest';
import { arpFrame } from './lib/guest.ts';
import { bytes, text, World } from './lib/world.ts';

let w: World;
afterEach(() => w.end());

it.each([
  'EADDRNOTAVAIL',
  'EMFILE',
  'ENFILE',
  'ENOBUFS',
  'ENOMEM',
])('load: %s for a new flow resets that one, keeps the others, and passes', (code) => {
  w = new World();
  const first = w.connect('10.0.2.2', 80);
  w.host.finishConnect(first.socket);
  w.run();
  w.host.refuse = { syscall: 'connect', code };
  for (let i = 0; i < 20; i++) expect(w.connect('10.0.2.2', 80).user.log).toEqual(['refused']);
  w.host.push(first.socket, bytes('still here'));
  w.run();
  expect(text(first.user.received)).toBe('still here');
  w.host.refuse = null;
  const after = w.connect('10.0.2.2', 80);
  w.host.finishConnect(after.socket);
  w.run();
  expect(after.user.log).toEqual(['established']);
});

it('load: a clock that jumps by a day ends what has timed out, and nothing else', () => {
  w = new World();
  const flow = w.connect('10.0.2.2', 80);
  w.host.finishConnect(flow.socket);
  w.run();
  w.udp('192.0.2.1', 9, new Uint8Array(10));
  expect(w.backend.info().flows.length).toBeGreaterThan(1);
  w.run(86_400e9);
  expect(
    w.ask(arpFrame(1, '10.0.2.15', '10.0.2.2')).some((frame) => frame[12] === 8 && frame[13] === 6),
  ).toBe(true);
  const again = w.connect('10.0.2.2', 80);
  w.host.finishConnect(again.socket);
  w.run();
  expect(again.user.log).toEqual(['established']);
});
