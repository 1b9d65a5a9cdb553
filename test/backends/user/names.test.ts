/** The name server of the network and what hangs on it: own names, several resolvers, TCP, egress rules by name; and where sockets leave by. */
import { afterEach, describe, expect, it } from 'vitest';
import { EgressNames } from '../../../src/backends/user/egress-names.ts';
import { ERRNO } from '../../../src/host-io/host-io.ts';
import { parseIpv4, parseIpv6, putU16be, putU32be, u16be } from '../../../src/wire/bytes.ts';
import { DnsMessage, writeDnsQuery, writeDomainName } from '../../../src/wire/dns.ts';
import type { FakeSocket } from '../../lib/fake-host-io.ts';
import type { TestUser } from '../../tcp/lib/pair.ts';
import { echoPacket, ipv4Frame, udpFrame } from './lib/guest.ts';
import { bytes, World } from './lib/world.ts';

let w: World;
const world = (...args: ConstructorParameters<typeof World>): World => (w = new World(...args));
afterEach(() => w.end());

const DNS = '10.0.2.3';

function query(name: string, type = 1, id = 7): Uint8Array {
  const b = new Uint8Array(300);
  return b.slice(0, writeDnsQuery(b, 0, 300, id, name, type));
}

type Answer = { name: string; a?: string; aaaa?: string; cname?: string; ttl?: number };

/** The answer of a name server: the question again, and records. */
function answer(
  asked: string,
  answers: readonly Answer[],
  more: { rcode?: number; id?: number } = {},
): Uint8Array {
  const b = new Uint8Array(4096);
  let at = writeDnsQuery(b, 0, b.length, more.id ?? 7, asked, 1);
  putU16be(b, 2, 0x8180 | (more.rcode ?? 0));
  putU16be(b, 6, answers.length);
  for (const { name, a, aaaa, cname, ttl = 300 } of answers) {
    at += writeDomainName(b, at, b.length, name);
    putU16be(b, at, a !== undefined ? 1 : aaaa !== undefined ? 28 : 5);
    putU16be(b, at + 2, 1);
    putU32be(b, at + 4, ttl);
    const data = at + 10;
    let length: number;
    if (a !== undefined) {
      putU32be(b, data, parseIpv4(a));
      length = 4;
    } else if (aaaa !== undefined) {
      b.set(parseIpv6(aaaa)!, data);
      length = 16;
    } else length = writeDomainName(b, data, b.length, cname!);
    putU16be(b, at + 8, length);
    at = data + length;
  }
  return b.slice(0, at);
}

const prefixed = (message: Uint8Array): Uint8Array => {
  const b = new Uint8Array(2 + message.length);
  putU16be(b, 0, message.length);
  b.set(message, 2);
  return b;
};

/** The guest asks over UDP, the resolver answers. */
function resolve(asked: string, answers: readonly Answer[]): void {
  w.udp(DNS, 53, query(asked), 5300 + w.backend.udp.flows);
  w.host.pushDatagram(w.host.latest, answer(asked, answers));
  w.run();
  w.guest.take();
}

/** Whether a connection of the guest reaches the host's network. */
function reaches(address: string, port = 443): boolean {
  const before = w.host.all.length;
  const { user } = w.connect(address, port);
  const yes = w.host.all.length > before;
  if (yes) w.host.finishConnect(w.host.latest, ERRNO.ECONNREFUSED);
  w.run();
  expect(user.log.length <= 1).toBe(true);
  w.guest.take();
  return yes;
}

const hits = (): Record<string, number> =>
  Object.fromEntries(w.backend.info().egress.map(({ rule, hits: count }) => [rule, count]));

describe('egress by name', () => {
  it('a name stands for what the name server answered, for as long as it said; the rest is denied', () => {
    world(',egress=allow:tcp:www.example.org:443,egress=allow:any:*.pkg.example,egress=deny:any:all');
    expect(reaches('192.0.2.7')).toBe(false);
    resolve('WWW.example.org', [{ name: 'www.EXAMPLE.org', a: '192.0.2.7' }]);
    expect([reaches('192.0.2.7'), reaches('192.0.2.7', 80), reaches('192.0.2.8')]).toEqual([
      true,
      false,
      false,
    ]);
    resolve('a.b.pkg.example', [
      { name: 'a.b.pkg.example', cname: 'cdn.example.net' },
      { name: 'cdn.example.net', cname: 'edge.example.net' },
      { name: 'edge.example.net', a: '198.51.100.1', ttl: 10 },
      { name: 'stranger.example.net', a: '198.51.100.2' },
    ]);
    expect([reaches('198.51.100.1', 80), reaches('198.51.100.2', 80)]).toEqual([true, false]);
    expect(hits()).toEqual({
      'allow:tcp:www.example.org:443': 1,
      'allow:any:*.pkg.example': 1,
      'deny:any:all': 4,
      'otherwise allow': 0,
    });
    // The TTL and a minute.
    w.run(69e9);
    expect(reaches('198.51.100.1', 80)).toBe(true);
    w.run(2e9);
    expect([reaches('198.51.100.1', 80), reaches('192.0.2.7')]).toEqual([false, true]);
  });
  it('a wildcard is for what lies below, not for the name itself or one that ends alike', () => {
    world(',egress=allow:any:*.example.org,egress=deny:any:all');
    resolve('example.org', [{ name: 'example.org', a: '192.0.2.1' }]);
    resolve('badexample.org', [{ name: 'badexample.org', a: '192.0.2.2' }]);
    resolve('x.example.org', [{ name: 'x.example.org', a: '192.0.2.3' }]);
    expect(['192.0.2.1', '192.0.2.2', '192.0.2.3'].map((a) => reaches(a))).toEqual([false, false, true]);
  });
  it('an allowed alias opens nothing, a denied one closes', () => {
    world(
      ',egress=deny:any:ads.example,egress=allow:any:good.example,egress=allow:any:*.shop.example,egress=deny:any:all',
    );
    resolve('evil.example', [
      { name: 'evil.example', cname: 'good.example' },
      { name: 'good.example', a: '192.0.2.1' },
    ]);
    resolve('www.shop.example', [
      { name: 'www.shop.example', cname: 'ads.example' },
      { name: 'ads.example', a: '192.0.2.2' },
    ]);
    expect([reaches('192.0.2.1'), reaches('192.0.2.2')]).toEqual([false, false]);
  });
  it('answers over TCP, IPv6 addresses, UDP and pings; names of hosts= from the start', () => {
    world(
      ',hosts=files.lan:192.0.2.99,egress=allow:any:files.lan,egress=allow:any:v6.example,egress=deny:any:all',
      {
        ip6: 'fec0::15',
      },
    );
    expect(reaches('192.0.2.99')).toBe(true);
    expect(reaches('2001:db8::7')).toBe(false);
    const user = w.user();
    w.guest.connect(user, DNS, 53);
    user.send(prefixed(query('v6.example', 28)));
    w.run();
    const socket = w.host.latest;
    w.host.finishConnect(socket);
    w.run();
    w.host.push(
      socket,
      prefixed(
        answer('v6.example', [
          { name: 'v6.example', aaaa: '2001:db8::7' },
          { name: 'v6.example', a: '192.0.2.5' },
        ]),
      ),
    );
    w.run();
    expect(reaches('2001:db8::7')).toBe(true);
    w.udp('192.0.2.5', 9, bytes('x'));
    expect(w.host.latest.remote).toEqual({ address: '192.0.2.5', port: 9 });
    w.ask(
      ipv4Frame({ src: '10.0.2.15', dst: '192.0.2.5', protocol: 1, payload: echoPacket(1, 1, bytes('p')) }),
    );
    expect(w.host.latest.kind).toBe('ping');
  });
  it('what is no answer teaches nothing: errors, queries, other questions, damage', () => {
    world();
    const rules = [{ allow: true, name: 'a.example' }];
    const names = new EgressNames(rules, []);
    const good = answer('a.example', [{ name: 'a.example', a: '192.0.2.1' }]);
    names.learn(
      answer('a.example', [{ name: 'a.example', a: '192.0.2.1' }], { rcode: 3 }),
      0,
      good.length,
      0,
    );
    const question = good.slice();
    putU16be(question, 2, 0x0100);
    names.learn(question, 0, question.length, 0);
    names.learn(answer('b.example', [{ name: 'a.example', a: '192.0.2.1' }]), 0, good.length, 0);
    for (let end = 0; end < good.length; end++) names.learn(good, 0, end, 0);
    expect(names.size).toBe(0);
    names.learn(good, 0, good.length, 0);
    expect([names.size, names.covers(0, '192.0.2.1', 0), names.covers(0, '192.0.2.1', 361e9)]).toEqual([
      1,
      true,
      false,
    ]);
  });
  it('the table is bounded: the oldest gives way', () => {
    world();
    const names = new EgressNames([{ allow: true, name: '*.example' }], []);
    for (let i = 0; i < 9000; i++) {
      const address = `10.1.${i >> 8}.${i & 255}`;
      const message = answer('x.example', [{ name: 'x.example', a: address }]);
      names.learn(message, 0, message.length, 0);
    }
    expect([names.size, names.evicted]).toEqual([8192, 808]);
    expect([names.covers(0, '10.1.0.0', 0), names.covers(0, '10.1.35.39', 0)]).toEqual([false, true]);
  });
  it('decisions are told, so many at most, and counted', () => {
    const lines: { rule: string; untold?: number }[] = [];
    world(
      ',egress=deny:udp:192.0.2.0/24',
      {},
      {},
      { info: (details) => lines.push(details as (typeof lines)[number]) },
    );
    for (let i = 0; i < 50; i++) w.udp('192.0.2.1', 9, bytes('x'), 6000 + i);
    expect(lines.length).toBe(20);
    expect(lines[0]).toMatchObject({
      netdev: 'n0',
      protocol: 'udp',
      address: '192.0.2.1',
      port: 9,
      rule: 'deny:udp:192.0.2.0/24',
    });
    expect(w.backend.info().egressUnlogged).toBe(30);
    w.run(1e9);
    w.udp('192.0.2.1', 9, bytes('x'), 6000);
    expect(lines.at(-1)!.untold).toBe(30);
    expect(hits()['deny:udp:192.0.2.0/24']).toBe(51);
  });
  it('bad names say what is wrong with them', () => {
    world();
    for (const [rule, reason] of [
      ['allow:tcp:*', 'Bad address'],
      ['allow:tcp:a.*.org', 'Bad address'],
      ['allow:tcp:10.0.0.300', 'Bad address'],
      ['allow:tcp:example.org/24', 'a name has no prefix length'],
      ['allow:tcp:[example.org]', 'Bad address'],
    ])
      expect(() => new World(`,egress=${rule}`)).toThrow(`Invalid egress rule '${rule}' (${reason})`);
  });
});

describe('switches', () => {
  it('hardening T5: metadata=off closes every address where a cloud serves credentials, names included', () => {
    world(',metadata=off', { ip6: 'fec0::15' });
    const closed = ['169.254.169.254', '169.254.170.2', '100.100.100.200', '168.63.129.16', '192.0.0.192'];
    expect([...closed, 'fd00:ec2::254', 'fd20:ce::254'].map((a) => reaches(a, 80))).toEqual(
      Array(7).fill(false),
    );
    expect([reaches('100.100.100.201', 80), reaches('fd00:ec2::253', 80)]).toEqual([true, true]);
    // A name that leads there changes nothing: addresses decide.
    resolve('innocent.example', [{ name: 'innocent.example', a: '169.254.169.254' }]);
    expect(reaches('169.254.169.254', 80)).toBe(false);
    expect(hits()).toEqual({ 'metadata=off': 8, 'otherwise allow': 2 });
    w.end();
    world();
    expect(reaches('169.254.169.254', 80)).toBe(true);
    expect(w.backend.info().egress).toEqual([]);
  });
  it('source= and source-interface= hold for TCP, UDP and pings to the world, not for the loopback or the resolver', () => {
    world(',source=203.0.113.9,source-interface=wan0');
    // The interface was tried at the start.
    expect([w.host.all.length, w.host.all[0]!.bindInterface, w.host.all[0]!.closed]).toEqual([
      1,
      'wan0',
      true,
    ]);
    const from = (): unknown[] => [
      w.host.latest.kind,
      w.host.latest.local.address,
      w.host.latest.bindInterface,
    ];
    w.connect('192.0.2.1', 80);
    expect(from()).toEqual(['tcp', '203.0.113.9', 'wan0']);
    w.udp('192.0.2.1', 9, bytes('x'));
    expect(from()).toEqual(['udp', '203.0.113.9', 'wan0']);
    w.ask(
      ipv4Frame({ src: '10.0.2.15', dst: '192.0.2.1', protocol: 1, payload: echoPacket(1, 1, bytes('p')) }),
    );
    expect(from()).toEqual(['ping', '203.0.113.9', 'wan0']);
    w.udp('10.0.2.2', 9, bytes('x'));
    expect(from()).toEqual(['udp', '', undefined]);
    w.udp(DNS, 53, query('a.example'));
    expect(from()).toEqual(['udp', '', undefined]);
  });
  it('pings over a raw socket: an identifier of our own, and replies to others are dropped', () => {
    world();
    w.host.rawPings = true;
    w.ask(
      ipv4Frame({ src: '10.0.2.15', dst: '192.0.2.1', protocol: 1, payload: echoPacket(5, 1, bytes('p')) }),
    );
    const socket = w.host.latest;
    const id = u16be(socket.datagramsOut[0]!.data, 4);
    expect(id).not.toBe(0);
    const reply = (number: number): Uint8Array => echoPacket(number, 1, bytes('p'), 0);
    w.host.pushDatagram(socket, reply(id ^ 1));
    w.host.pushDatagram(socket, reply(id), { address: '192.0.2.2', port: 0 });
    w.run();
    expect([w.guest.take().length, w.backend.stats.pingDropNotOurs]).toEqual([0, 2]);
    w.host.pushDatagram(socket, reply(id));
    w.run();
    expect(u16be(w.guest.take()[0]!, 38)).toBe(5);
  });
});

describe('several resolvers', () => {
  const two = (options = ''): void => {
    world(options);
    w.resolvers = ['192.0.2.53', '192.0.2.54'];
  };
  const asked = (s: FakeSocket): string[] =>
    s.datagramsOut.map(({ data }) => `${s.remote.address} ${u16be(data, 0)}`);

  it('a query that is not answered in time is put to the next, which is then asked first', () => {
    two();
    w.udp(DNS, 53, query('a.example', 1, 1));
    w.guest.send(udpFrame('10.0.2.15', 5000, DNS, 53, query('a.example', 28, 2)));
    w.run();
    const first = w.host.latest;
    expect(asked(first)).toEqual(['192.0.2.53 1', '192.0.2.53 2']);
    w.run(1.9e9);
    expect(first.closed).toBe(false);
    w.run(0.2e9);
    const second = w.host.latest;
    expect([first.closed, ...asked(second)]).toEqual([true, '192.0.2.54 1', '192.0.2.54 2']);
    w.host.pushDatagram(second, answer('a.example', [], { id: 1 }));
    w.host.pushDatagram(second, answer('a.example', [], { id: 2 }));
    w.run();
    expect(w.guest.take().length).toBe(2);
    w.run(3e9);
    expect([w.host.latest === second, w.backend.stats.dnsFailovers]).toEqual([true, 1]);
    w.udp(DNS, 53, query('b.example'), 5001);
    expect(w.host.latest.remote.address).toBe('192.0.2.54');
    // After a rest the first has its place again.
    w.run(40e9);
    w.udp(DNS, 53, query('c.example'), 5002);
    expect(w.host.latest.remote.address).toBe('192.0.2.53');
  });
  it('one that refuses is left at once; when all do, the guest is told', () => {
    two();
    w.udp(DNS, 53, query('a.example'));
    w.host.fail(w.host.latest, ERRNO.ECONNREFUSED);
    w.run();
    const second = w.host.latest;
    expect(asked(second)).toEqual(['192.0.2.54 7']);
    expect(w.guest.take()).toEqual([]);
    w.host.fail(second, ERRNO.ECONNREFUSED);
    w.run();
    const [error] = w.guest.take();
    expect([error![23], error![34], error![35]]).toEqual([1, 3, 3]);
    // The guest asks again by the same port: the whole list once more, from where it is.
    w.udp(DNS, 53, query('a.example'));
    w.run(2.5e9);
    expect(w.host.latest.remote.address).toBe('192.0.2.53');
  });
  it('dns-upstream= more than once; a resolver with no way there', () => {
    world(',dns-upstream=203.0.113.1,dns-upstream=203.0.113.2');
    w.udp(DNS, 53, query('a.example'));
    expect(w.host.latest.remote.address).toBe('203.0.113.1');
    w.host.refuse = { syscall: 'connect', code: 'ENETUNREACH' };
    w.run(2.5e9);
    w.host.refuse = null;
    w.udp(DNS, 53, query('a.example'));
    expect(w.host.latest.remote.address).toBe('203.0.113.2');
  });
  it('over TCP: the next is connected to when one refuses or does not answer', () => {
    two();
    const user = w.user();
    w.guest.connect(user, DNS, 53);
    user.send(prefixed(query('a.example')));
    w.run();
    expect(w.host.latest.remote.address).toBe('192.0.2.53');
    w.host.finishConnect(w.host.latest, ERRNO.ECONNREFUSED);
    w.run();
    const second = w.host.latest;
    expect(second.remote.address).toBe('192.0.2.54');
    w.host.finishConnect(second);
    w.run();
    expect(second.sentBytes).toEqual(prefixed(query('a.example')));
    w.host.push(second, prefixed(answer('a.example', [])));
    w.run();
    expect(user.received).toEqual(prefixed(answer('a.example', [])));
    const other = w.user();
    w.guest.connect(other, DNS, 53);
    other.send(prefixed(query('b.example')));
    w.run();
    expect(w.host.latest.remote.address).toBe('192.0.2.54');
    w.run(3.1e9);
    expect(w.host.latest.remote.address).toBe('192.0.2.53');
    w.run(3.1e9);
    expect(other.log).toEqual(['established', 'reset']);
  });
});

describe('the name server over TCP', () => {
  const open = (options = ''): TestUser => {
    world(options);
    const user = w.user();
    w.guest.connect(user, DNS, 53);
    w.run();
    return user;
  };
  const replies = (user: TestUser): DnsMessage[] => {
    const all = user.received;
    const out: DnsMessage[] = [];
    for (let at = 0; at < all.length; at += 2 + u16be(all, at)) {
      const m = new DnsMessage();
      expect(m.parse(all, at + 2, at + 2 + u16be(all, at))).toBe(true);
      out.push(m);
    }
    return out;
  };

  it('hosts= is answered there too, other names are relayed, restrict refuses them', () => {
    const user = open(',hosts=files.example:10.0.2.2');
    user.send(prefixed(query('FILES.example')));
    w.run();
    expect(replies(user).map((m) => m.answers.length)).toEqual([1]);
    expect(w.host.all.length).toBe(0);
    user.send(prefixed(query('other.example')));
    w.run();
    w.host.finishConnect(w.host.latest);
    w.run();
    expect(w.host.latest.sentBytes).toEqual(prefixed(query('other.example')));
    w.end();
    const strict = open(',restrict=on,hosts=files.example:10.0.2.2');
    strict.send(Uint8Array.from([...prefixed(query('other.example')), ...prefixed(query('files.example'))]));
    w.run();
    expect(replies(strict).map((m) => [m.rcode, m.answers.length])).toEqual([
      [5, 0],
      [0, 1],
    ]);
    expect(w.host.all.length).toBe(0);
  });
  it('a truncated answer sends the guest to TCP, where the whole of it comes', () => {
    world();
    const short = query('big.example');
    putU16be(short, 2, 0x8380);
    w.udp(DNS, 53, query('big.example'));
    w.host.pushDatagram(w.host.latest, short);
    w.run();
    const [frame] = w.guest.take();
    const message = new DnsMessage();
    expect(message.parse(frame!, 42, frame!.length)).toBe(true);
    expect(message.truncated).toBe(true);
    const user = w.user();
    w.guest.connect(user, DNS, 53);
    user.send(prefixed(query('big.example')), true);
    w.run();
    w.host.finishConnect(w.host.latest);
    w.run();
    const long = prefixed(
      answer(
        'big.example',
        Array.from({ length: 60 }, (_, i) => ({ name: 'big.example', a: `192.0.2.${i}` })),
      ),
    );
    w.host.push(w.host.latest, long);
    w.run(1e9);
    expect(user.received).toEqual(long);
    expect(user.log).toEqual(['established', 'end', 'closed']);
    expect(w.host.openCount).toBe(1);
  });
  it('queries in pieces, many in one, answers in any order; a resolver that closes is called again', () => {
    const user = open();
    const all = Uint8Array.from([1, 2, 3].flatMap((id) => [...prefixed(query('a.example', 1, id))]));
    user.send(all.subarray(0, 20));
    w.run();
    expect(w.host.all.length).toBe(0);
    user.send(all.subarray(20));
    w.run();
    const first = w.host.latest;
    w.host.finishConnect(first);
    w.run();
    expect(first.sentBytes).toEqual(all);
    for (const id of [3, 1, 2]) w.host.push(first, prefixed(answer('a.example', [], { id })));
    w.host.end(first);
    w.run();
    expect(replies(user).map((m) => m.id)).toEqual([3, 1, 2]);
    expect(first.closed).toBe(true);
    user.send(prefixed(query('a.example', 1, 4)));
    w.run();
    expect(w.host.latest).not.toBe(first);
    w.host.finishConnect(w.host.latest);
    w.host.end(w.host.latest);
    w.run();
    // It owes an answer: the guest must not wait.
    expect(user.log).toEqual(['established', 'reset']);
  });
  it('nothing grows: neither side is read when the other does not', () => {
    const user = open();
    const q = prefixed(query('a.example'));
    const many = Uint8Array.from(Array.from({ length: 4000 }, () => [...q]).flat());
    user.send(many);
    w.run(1e9);
    const socket = w.host.latest;
    socket.sendRoom = 0;
    w.host.finishConnect(socket);
    w.run(30e6);
    expect(w.backend.info().flows[0]!.fromGuestBytes).toBeLessThan(many.length / 2);
    w.host.allow(socket, Number.POSITIVE_INFINITY);
    w.run(5e9);
    expect(socket.sent.length).toBe(many.length);
    user.feed(0);
    const a = prefixed(
      answer(
        'a.example',
        Array.from({ length: 60 }, () => ({ name: 'a.example', a: '192.0.2.1' })),
      ),
    );
    for (let i = 0; i < 2000; i++) w.host.push(socket, a);
    w.run(1e9);
    const left = socket.incoming.length;
    expect(left).toBeGreaterThan(500_000);
    w.run(1e9);
    expect(socket.incoming.length).toBe(left);
    user.feed(Number.POSITIVE_INFINITY);
    w.run(5e9);
    expect(user.receivedBytes).toBe(2000 * a.length);
  });
  it('silence ends it', () => {
    const user = open();
    user.send(prefixed(query('a.example')));
    w.run();
    w.host.finishConnect(w.host.latest);
    w.run(40e9);
    expect(user.log).toEqual(['established', 'reset']);
    expect([w.backend.tcp.flows, w.host.openCount]).toEqual([0, 0]);
  });
  it('hardening 49: lengths and bytes of no sense go to the resolver as they are', () => {
    const user = open(',hosts=files.example:10.0.2.2,egress=deny:any:bad.example');
    const odd = [new Uint8Array(0), bytes('x'), new Uint8Array(60_000).fill(0xc0)].map(prefixed);
    user.send(Uint8Array.from(odd.flatMap((m) => [...m])));
    w.run(1e9);
    w.host.finishConnect(w.host.latest);
    w.run(1e9);
    expect(w.host.latest.sent.length).toBe(60_007);
    for (const m of odd) w.host.push(w.host.latest, m);
    w.run(1e9);
    expect(user.receivedBytes).toBe(60_007);
  });
});
