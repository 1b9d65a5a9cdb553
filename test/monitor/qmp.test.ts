/** One QMP client: negotiation, ids, order, out of band, events, and what happens to one that misbehaves. */

import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { TestMonitor } from './lib.ts';

describe('a QMP client', () => {
  let test: TestMonitor;

  beforeEach(() => {
    test = new TestMonitor();
  });
  afterEach(async () => await test.close());

  it('is greeted, and has to negotiate before anything else', async () => {
    const client = await test.client(false);
    expect(await client.next()).toEqual({
      QMP: {
        version: { qemu: { major: 11, minor: 1, micro: 2 }, package: 'netemu 0.0.0' },
        capabilities: ['oob'],
      },
    });
    expect(await client.ask({ execute: 'query-version' })).toEqual({
      error: { class: 'CommandNotFound', desc: "Expecting capabilities negotiation with 'qmp_capabilities'" },
    });
    expect(await client.ask({ execute: 'qmp_capabilities', id: 1 })).toEqual({ return: {}, id: 1 });
    expect(await client.ask({ execute: 'qmp_capabilities', id: 'again' })).toEqual({
      id: 'again',
      error: {
        class: 'CommandNotFound',
        desc: 'Capabilities negotiation is already complete, command ignored',
      },
    });
  });

  it('gets replies in the order of its requests, each with its id', async () => {
    const client = await test.client();
    client.send(
      [
        { execute: 'netdev_add', arguments: { type: 'user', id: 'n0' }, id: 1 },
        { execute: 'query-name', id: { a: [1, null] } },
        { execute: 'netdev_del', arguments: { id: 'n0' }, id: 'x' },
        { execute: 'nope' },
      ]
        .map((one) => JSON.stringify(one))
        .join(''),
    );
    expect(await client.messages()).toEqual([
      { return: {}, id: 1 },
      { return: { name: 'test' }, id: { a: [1, null] } },
      { return: {}, id: 'x' },
      { error: { class: 'CommandNotFound', desc: 'The command nope has not been found' } },
    ]);
  });

  it('gets 64-bit ids back whole', async () => {
    const client = await test.client();
    client.send('{"execute": "query-name", "id": 18446744073709551615}');
    await test.settle();
    expect(client.text()).toContain('"id": 18446744073709551615');
  });

  it('may overtake its own requests out of band, once it asked to', async () => {
    const client = await test.client(false);
    await client.next();
    await client.ask({ execute: 'qmp_capabilities', arguments: { enable: ['oob'] } });
    client.send('{"execute":"query-name","id":1}{"exec-oob":"yank","arguments":{"instances":[]},"id":2}');
    expect((await client.messages()).map(({ id }) => id)).toEqual([2, 1]);
    expect(await client.ask({ 'exec-oob': 'query-name', id: 7 })).toEqual({
      id: 7,
      error: { class: 'GenericError', desc: 'The command query-name does not support OOB' },
    });
  });

  it('may not without asking', async () => {
    const client = await test.client();
    expect(await client.ask({ 'exec-oob': 'yank', arguments: { instances: [] } })).toEqual({
      error: { class: 'GenericError', desc: "QMP input member 'exec-oob' is unexpected" },
    });
  });

  it('is told of events with the time, in order, once, and not before it negotiated', async () => {
    const early = await test.client(false);
    await early.messages();
    const client = await test.client();
    test.clock.setNs(1_500_000_000);
    await client.run('stop');
    await client.run('stop');
    client.send('{"execute":"cont"}{"execute":"system_reset"}');
    const events = (await client.messages()).filter((message) => 'event' in message);
    expect(events).toEqual([
      { timestamp: { seconds: 1_700_000_001, microseconds: 500_000 }, event: 'RESUME' },
      {
        timestamp: { seconds: 1_700_000_001, microseconds: 500_000 },
        event: 'RESET',
        data: { guest: false, reason: 'host-qmp-system-reset' },
      },
    ]);
    expect(await early.messages()).toEqual([]);
  });

  it('hears from other clients what they changed', async () => {
    const [one, two] = [await test.client(), await test.client()];
    await one.run('stop');
    expect((await two.next()).event).toBe('STOP');
  });

  it('can have its replies spread over lines', async () => {
    const client = await test.client(false, true);
    await test.settle();
    expect(client.text()).toContain('{\n    "QMP": {\n        "version"');
  });

  it('that closes its writing half gets the replies it waits for', async () => {
    const client = await test.client();
    client.send('{"execute":"query-name"}{"execute":"query-status"}');
    client.channel.user!.ended?.();
    expect(await client.messages()).toHaveLength(2);
    expect(client.channel.closed).toBe(true);
  });

  it('hardening 54: never reads: is not read from beyond 8 requests, loses events that are counted, and recovers', async () => {
    const client = await test.client();
    client.channel.room = 0;
    for (let i = 0; i < 20; i++) client.send(`{"execute":"query-name","id":${i}}`);
    await test.settle();
    expect(client.channel.unread).toBeGreaterThan(0);
    const other = await test.client();
    for (let i = 0; i < 3000; i++) {
      test.network.context.emit('NIC_RX_FILTER_CHANGED', { name: 'e0', path: '/machine/peripheral/e0' });
    }
    expect(test.monitor.stats.dropEvents).toBeGreaterThan(1000);
    await other.messages();
    await client.allow(Number.POSITIVE_INFINITY);
    const messages = await client.messages();
    expect(messages.filter((message) => 'return' in message).map(({ id }) => id)).toEqual(
      Array.from({ length: 20 }, (_, i) => i),
    );
    expect(client.channel.unread).toBe(0);
    expect(await client.run('query-name')).toEqual({ name: 'test' });
  });

  it('hardening 54: vanishes in mid-reply: its command still runs, nothing is thrown', async () => {
    const client = await test.client();
    client.channel.room = 5;
    client.send(
      '{"execute":"netdev_add","arguments":{"type":"user","id":"n0"}}{"execute":"query-qmp-schema"}',
    );
    client.channel.closed = true;
    client.channel.user!.closed?.();
    await test.settle();
    const other = await test.client();
    expect(await other.run('query-name')).toEqual({ name: 'test' });
  });

  it('is not starved by another that sends a lot', async () => {
    const [busy, client] = [await test.client(), await test.client()];
    busy.send('{"execute":"query-commands"}'.repeat(500));
    client.send('{"execute":"query-name"}');
    for (let turn = 0; turn < 4; turn++) test.network.loop.run();
    expect(client.text()).toContain('"name": "test"');
  });
});
