import { describe, expect, test } from 'vitest';
import { DNS_TYPE_A, DNS_TYPE_AAAA, type DnsOutcome } from '../../../src/guest/probe/net/resolver.ts';
import { putU16be, putU32be } from '../../../src/wire/bytes.ts';
import { type Bench, type Datagram, hostBench, ip } from './harness.ts';

const OURS = ip('10.0.2.15');
const DNS = ip('10.0.2.3');

function bench(): Bench {
  const b = hostBench();
  b.host.ipv4.configure(OURS, ip('255.255.255.0'), ip('10.0.2.2'));
  b.peer.addresses.add(DNS);
  b.peer.addresses.add(ip('10.0.2.4'));
  b.host.resolver.servers = [Uint8Array.of(10, 0, 2, 3)];
  return b;
}

function ask(b: Bench, type = DNS_TYPE_A, name = 'host.example'): DnsOutcome[] {
  const outcomes: DnsOutcome[] = [];
  b.host.resolver.resolve(name, type, (outcome) => outcomes.push(outcome));
  return outcomes;
}

/** The query with the answer bit, an rcode and records for the name of the question. */
function reply(
  query: Uint8Array,
  rcode: number,
  records: [type: number, data: Uint8Array][] = [],
): Uint8Array {
  const size = records.reduce((sum, [, data]) => sum + 12 + data.length, query.length);
  const bytes = new Uint8Array(size);
  bytes.set(query);
  putU16be(bytes, 2, 0x8180 | rcode);
  putU16be(bytes, 6, records.length);
  let at = query.length;
  for (const [type, data] of records) {
    putU16be(bytes, at, 0xc00c);
    putU16be(bytes, at + 2, type);
    putU16be(bytes, at + 4, 1);
    putU32be(bytes, at + 6, 60);
    putU16be(bytes, at + 10, data.length);
    bytes.set(data, at + 12);
    at += 12 + data.length;
  }
  return bytes;
}

function serve(b: Bench, answer: (query: Uint8Array, datagram: Datagram) => Uint8Array | null): void {
  b.peer.onDatagram = (datagram) => {
    const bytes = answer(datagram.payload, datagram);
    if (bytes !== null) b.peer.sendUdp(datagram.dst, datagram.src, datagram.dstPort, datagram.srcPort, bytes);
  };
}

describe('resolver', () => {
  test('gives the addresses of the kind that was asked for, behind a CNAME too', () => {
    const b = bench();
    const v6 = Uint8Array.of(0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1);
    serve(b, (query) =>
      reply(query, 0, [
        [5, Uint8Array.of(3, 119, 119, 119, 0xc0, 12)],
        [1, Uint8Array.of(192, 0, 2, 1)],
        [28, v6],
        [1, Uint8Array.of(192, 0, 2, 2)],
      ]),
    );
    const four = ask(b);
    const six = ask(b, DNS_TYPE_AAAA);
    b.loop.runUntil(1e9);
    const server = Uint8Array.of(10, 0, 2, 3);
    expect(four).toEqual([
      { kind: 'answer', server, addresses: [Uint8Array.of(192, 0, 2, 1), Uint8Array.of(192, 0, 2, 2)] },
    ]);
    expect(six).toEqual([{ kind: 'answer', server, addresses: [v6] }]);
    expect(b.host.udp.openSockets).toBe(0);
    b.close();
  });

  test.each([2, 3, 5])('an answer with rcode %d is an answer', (rcode) => {
    const b = bench();
    serve(b, (query) => reply(query, rcode));
    const outcomes = ask(b);
    b.loop.runUntil(1e9);
    expect(outcomes).toEqual([{ kind: 'error', server: Uint8Array.of(10, 0, 2, 3), rcode }]);
    b.close();
  });

  test('each query has another port and another id', () => {
    const b = bench();
    const seen: string[] = [];
    serve(b, (query, { srcPort }) => {
      seen.push(`${srcPort}/${query[0]}/${query[1]}`);
      return reply(query, 3);
    });
    for (let i = 0; i < 8; i++) ask(b);
    b.loop.runUntil(1e9);
    expect(new Set(seen).size).toBe(8);
    b.close();
  });

  test('tries again, then tells that nobody answers', () => {
    const b = bench();
    let queries = 0;
    serve(b, () => {
      queries++;
      return null;
    });
    const outcomes = ask(b);
    b.loop.runUntil(5.9e9);
    expect(outcomes).toEqual([]);
    b.loop.runUntil(6.1e9);
    expect([queries, outcomes]).toEqual([2, [{ kind: 'timeout' }]]);
    b.close();
  });

  test('the second server is asked when the first is silent; a lost query is repeated', () => {
    const b = bench();
    b.host.resolver.servers.push(Uint8Array.of(10, 0, 2, 4));
    serve(b, (query, { dst }) => (dst === DNS ? null : reply(query, 0, [[1, Uint8Array.of(1, 2, 3, 4)]])));
    const outcomes = ask(b);
    b.loop.runUntil(3e9);
    expect(outcomes.map(({ kind }) => kind)).toEqual(['answer']);
    b.close();
  });

  const forged: [string, (query: Uint8Array) => Uint8Array][] = [
    ['another id', (query) => reply(query, 0).map((byte, i) => (i === 1 ? byte ^ 1 : byte))],
    ['another question', (query) => reply(query, 0).map((byte, i) => (i === 14 ? 0x7a : byte))],
    ['a query', (query) => query],
    ['a cut message', (query) => reply(query, 0).slice(0, 11)],
    ['a record that runs over', (query) => reply(query, 0, [[1, Uint8Array.of(1, 2, 3, 4)]]).slice(0, -1)],
    [
      'a name that points to itself',
      (query) => {
        const bytes = reply(query, 0, [[1, Uint8Array.of(1, 2, 3, 4)]]);
        putU16be(bytes, query.length, 0xc000 | query.length);
        return bytes;
      },
    ],
  ];
  test.each(forged)('%s is counted and ignored', (_name, forge) => {
    const b = bench();
    serve(b, forge);
    const outcomes = ask(b);
    b.loop.runUntil(0.5e9);
    expect(outcomes).toEqual([]);
    expect(b.host.stats.rxDropUnexpected + b.host.stats.rxDropMalformed).toBe(1);
    b.loop.runUntil(7e9);
    expect(outcomes).toEqual([{ kind: 'timeout' }]);
    b.close();
  });

  test('a reply from somebody else is ignored', () => {
    const b = bench();
    b.peer.onDatagram = ({ src, srcPort, payload }) => {
      b.peer.sendUdp(ip('10.0.2.66'), src, 53, srcPort, reply(payload, 3));
      b.peer.sendUdp(DNS, src, 54, srcPort, reply(payload, 3));
    };
    const outcomes = ask(b);
    b.loop.runUntil(1e9);
    expect(outcomes).toEqual([]);
    expect(b.host.stats.rxDropUnexpected).toBe(2);
    b.loop.runUntil(7e9);
    b.close();
  });

  test('no server, a name that is none', () => {
    const b = bench();
    b.host.resolver.servers = [];
    const none = ask(b);
    b.host.resolver.servers = [Uint8Array.of(10, 0, 2, 3)];
    const bad = ask(b, DNS_TYPE_A, `${'x'.repeat(64)}.example`);
    b.loop.runUntil(1e9);
    expect([none, bad]).toEqual([[{ kind: 'no-server' }], [{ kind: 'bad-name' }]]);
    b.close();
  });
});
