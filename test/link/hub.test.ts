import { describe, expect, it } from 'vitest';
import { ACCEPT_CSUM, ACCEPT_TSO4, Port } from '../../src/core/port.ts';
import { Hub, type HubPolicy } from '../../src/link/hub.ts';
import { portClientSuite } from '../conformance/port-client.ts';
import { expectNothingHeld, packet, RecordingClient, tags, testContext } from '../lib/context.ts';

function hubOf(count: number, policy: HubPolicy = 'any') {
  const context = testContext();
  const hub = new Hub(0, context, policy);
  const clients = Array.from({ length: count }, (_, i) => {
    const client = new RecordingClient(context, `c${i}`);
    Port.connect(client.port, hub.addPort(`hub0port${i}`).port);
    return client;
  });
  return {
    context,
    hub,
    clients,
    end() {
      for (const client of clients) client.close();
      hub.close();
      expectNothingHeld(context);
    },
  };
}

describe('Hub', () => {
  it('repeats to every other port and not to the sender', () => {
    const { hub, clients, end } = hubOf(10);
    clients[3]!.send(packet(1), packet(2));
    for (const [i, client] of clients.entries()) expect(tags(client.received)).toEqual(i === 3 ? [] : [1, 2]);
    expect(hub.ports[3]!.stats.rxFrames).toBe(2);
    end();
  });

  it('shares one frame among all: nothing is copied', () => {
    const { context, clients, end } = hubOf(10);
    const seen = new Set<number>();
    for (const client of clients) client.onReceive = (frames) => seen.add(frames[0]!);
    const free = context.pool.free;
    clients[0]!.send(packet(1));
    expect(seen.size).toBe(1);
    expect(context.pool.free).toBe(free);
    end();
  });

  it('policy any: queues a little for a slow port, then drops there only, and counts', () => {
    const { hub, clients, end } = hubOf(3);
    clients[2]!.room = 0;
    for (let i = 0; i < 300; i++) expect(clients[0]!.send(packet(i & 0xff))).toBe(1);
    expect(clients[1]!.received.length).toBe(300);
    expect(hub.ports[2]!.waiting).toBe(256);
    expect(hub.ports[2]!.stats.txDropQueueFull).toBe(44);
    clients[2]!.allow(1000);
    expect(tags(clients[2]!.received)).toEqual(Array.from({ length: 256 }, (_, i) => i));
    end();
  });

  it('policy all: the slowest port paces the sender, and nothing is lost', () => {
    const { hub, clients, end } = hubOf(3, 'all');
    clients[2]!.room = 0;
    for (let i = 0; i < 300; i++) clients[0]!.send(packet(i & 0xff));
    expect(clients[0]!.waiting.length).toBe(44);
    expect(clients[1]!.received.length).toBe(256);
    clients[2]!.allow(1000);
    expect(clients[0]!.waiting.length).toBe(0);
    expect(clients[1]!.received.length).toBe(300);
    expect(clients[2]!.received.length).toBe(300);
    expect(hub.ports[2]!.stats.txDropQueueFull).toBe(0);
    end();
  });

  it('a port that goes away frees what waited in it and lets the others go on', () => {
    const { hub, clients, end } = hubOf(3, 'all');
    clients[2]!.room = 0;
    for (let i = 0; i < 260; i++) clients[0]!.send(packet(i & 0xff));
    hub.removePort(hub.ports[2]!);
    expect(clients[1]!.received.length).toBe(260);
    expect(clients[2]!.links.at(-1)).toBe(false);
    end();
  });

  it('accepts at a port what any other port passes on', () => {
    const { hub, clients, end } = hubOf(3);
    expect(hub.ports[0]!.port.accepts).toBe(0);
    clients[1]!.port.accepts = ACCEPT_CSUM | ACCEPT_TSO4;
    expect(hub.ports.map((port) => port.port.accepts)).toEqual([
      ACCEPT_CSUM | ACCEPT_TSO4,
      0,
      ACCEPT_CSUM | ACCEPT_TSO4,
    ]);
    clients[1]!.port.disconnect();
    hub.updateAccepts();
    expect(hub.ports[0]!.port.accepts).toBe(0);
    end();
  });

  it('with one port takes and frees everything', () => {
    const { clients, end } = hubOf(1);
    expect(clients[0]!.send(packet(1))).toBe(1);
    end();
  });
});

for (const policy of ['any', 'all'] as const) {
  portClientSuite(`hub port (${policy})`, (context) => {
    const hub = new Hub(0, context, policy);
    const other = new RecordingClient(context, 'other');
    Port.connect(other.port, hub.addPort('far').port);
    const port = hub.addPort('near').port;
    const blocking =
      policy === 'all'
        ? {
            block() {
              other.room = 0;
              for (let i = 0; i < 256; i++) {
                const frame = context.pool.from(packet(i & 0xff));
                port.peer!.send(Int32Array.of(frame), 0, 1);
              }
            },
            unblock: () => other.allow(Number.POSITIVE_INFINITY),
          }
        : {};
    return {
      port,
      goodFrame: (tag) => packet(tag),
      ...blocking,
      emit: (count) => void other.send(...Array.from({ length: count }, (_, i) => packet(i))),
      settle() {},
      close() {
        other.close();
        hub.close();
      },
    };
  });
}
