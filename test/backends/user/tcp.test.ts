/** TCP through the user network against a host in memory: how each end of a connection shows at the other. */
import { afterEach, describe, expect, it } from 'vitest';
import { OptionError } from '../../../src/core/errors.ts';
import { ERRNO } from '../../../src/host-io/host-io.ts';
import { toHex } from '../../../src/wire/bytes.ts';
import { pattern } from '../../tcp/lib/pair.ts';
import { bytes, text, World } from './lib/world.ts';

let w: World;
const world = (...args: ConstructorParameters<typeof World>): World => (w = new World(...args));
afterEach(() => w.end());

describe('opening', () => {
  it('answers the SYN only when the host is connected; the gateway is the loopback', () => {
    const { user, socket } = world().connect('10.0.2.2', 80);
    expect(socket.remote).toEqual({ address: '127.0.0.1', port: 80 });
    w.run(5e9);
    expect(user.log).toEqual([]);
    w.host.finishConnect(socket);
    w.run(10e9);
    expect(user.log).toEqual(['established']);
    expect(w.backend.info().flows).toMatchObject([
      { protocol: 'tcp', state: 'ESTABLISHED', remote: '10.0.2.2', remotePort: 80 },
    ]);
  });
  it('a host that is connected at once is asked once, and the SYN answered in the same turn', () => {
    const { host } = world();
    host.connectsAtOnce = true;
    const { user, socket } = w.connect('10.0.2.2', 80);
    expect(user.log).toEqual(['established']);
    user.send(bytes('question'));
    w.host.push(socket, bytes('answer'));
    w.run();
    expect(text(socket.sentBytes)).toBe('question');
    expect(text(user.received)).toBe('answer');
    w.host.fail(socket, ERRNO.ECONNRESET);
    w.run();
    expect(user.log).toEqual(['established', 'reset']);
  });
  it('refused: RST', () => {
    const { user, socket } = world().connect('93.184.216.34', 81);
    expect(socket.remote.address).toBe('93.184.216.34');
    w.host.finishConnect(socket, ERRNO.ECONNREFUSED);
    w.run();
    expect(user.log).toEqual(['refused']);
  });
  it('unreachable and forbidden: ICMP from the gateway with the guest’s own addresses', () => {
    for (const [errno, code] of [
      [ERRNO.EHOSTUNREACH, 1],
      [ERRNO.ENETUNREACH, 0],
      [ERRNO.EACCES, 13],
    ] as const) {
      const { user, socket } = world().connect('198.51.100.1', 81);
      w.host.finishConnect(socket, errno);
      w.run();
      const [icmp] = w.guest.take();
      expect([...icmp!.subarray(26, 36)]).toEqual([10, 0, 2, 2, 10, 0, 2, 15, 3, code]);
      expect([...icmp!.subarray(42 + 12, 42 + 20)]).toEqual([10, 0, 2, 15, 198, 51, 100, 1]);
      expect((icmp![64]! << 8) | icmp![65]!).toBe(81);
      expect(user.log).toEqual([]);
      w.end();
    }
  });
  it('no answer: silence, and the flow ends by itself', () => {
    const { socket } = world().connect('198.51.100.1', 81);
    w.host.finishConnect(socket, ERRNO.ETIMEDOUT);
    w.run();
    expect(w.guest.take()).toEqual([]);
    const again = w.connect('198.51.100.1', 82);
    w.run(200e9);
    expect(again.user.log).toEqual(['timeout']);
    expect(w.backend.tcp.flows).toBe(0);
  });
  it('a guest that gives up while the host connects: the host’s socket is closed', () => {
    const { user, socket } = world().connect('198.51.100.1', 81);
    user.connection = null;
    for (const c of w.guest.tcp) c.abort();
    w.run(100e9);
    expect(socket.closed).toBe(true);
  });
  it('a server that accepts and resets at once shows as a reset, not as refused', () => {
    const { user, socket } = world().connect('10.0.2.2', 80);
    w.host.finishConnect(socket, ERRNO.ECONNRESET);
    w.run();
    expect(user.log).toEqual(['established', 'reset']);
  });
  it('out of descriptors: RST for the new, the old go on, and it recovers', () => {
    const first = world().connect('10.0.2.2', 80);
    w.host.finishConnect(first.socket);
    w.run();
    w.host.refuse = { syscall: 'socket', code: 'EMFILE' };
    const second = w.connect('10.0.2.2', 80);
    expect(second.user.log).toEqual(['refused']);
    expect(w.backend.stats.tcpDropNoDescriptor).toBe(1);
    w.host.push(first.socket, bytes('still here'));
    w.run();
    expect(text(first.user.received)).toBe('still here');
    w.host.refuse = null;
    const third = w.connect('10.0.2.2', 80);
    w.host.finishConnect(third.socket);
    w.run();
    expect(third.user.log).toEqual(['established']);
  });
});

describe('data and ends', () => {
  const open = (): { user: ReturnType<World['user']>; socket: World['host']['latest'] } => {
    const made = world().connect('10.0.2.2', 80);
    w.host.finishConnect(made.socket);
    w.run();
    return made;
  };
  it('request and response, then the server closes, then the guest', () => {
    const { user, socket } = open();
    user.send(bytes('GET /'));
    w.run();
    expect(text(socket.sentBytes)).toBe('GET /');
    w.host.push(socket, pattern(50_000, 1));
    w.host.end(socket);
    w.run(1e9);
    expect(user.received).toEqual(pattern(50_000, 1));
    expect(user.log).toEqual(['established', 'end']);
    expect(socket.writeShut).toBe(false);
    // Half closed: the guest still sends.
    user.send(bytes(' more'), true);
    w.run();
    expect(text(socket.sentBytes)).toBe('GET / more');
    expect(socket.writeShut).toBe(true);
    expect(socket.closed).toBe(true);
    expect(socket.wasReset).toBe(false);
    expect(user.log).toEqual(['established', 'end', 'closed']);
  });
  it('the guest closes first: shutdown, and the server still sends', () => {
    const { user, socket } = open();
    user.send(bytes('all'), true);
    w.run();
    expect(socket.writeShut).toBe(true);
    expect(socket.closed).toBe(false);
    w.host.push(socket, bytes('answer'));
    w.run();
    expect(text(user.received)).toBe('answer');
    w.host.end(socket);
    w.run();
    expect(user.log).toEqual(['established', 'end', 'closed']);
  });
  it('a reset goes over to the other side, both ways', () => {
    const { user, socket } = open();
    w.host.fail(socket, ERRNO.ECONNRESET);
    w.run();
    expect(user.log).toEqual(['established', 'reset']);
    w.end();
    const other = open();
    other.user.connection!.abort();
    w.run();
    expect(other.socket.wasReset).toBe(true);
  });
  it('a host that stops taking closes the guest’s window: nothing grows, nothing is lost', () => {
    const { user, socket } = open();
    const data = pattern(3 << 20, 7);
    w.host.allow(socket, 100_000);
    user.send(data, true);
    w.run(30e9);
    expect(socket.sent.length).toBe(100_000);
    expect(w.context.pool.capacity - w.context.pool.free).toBeLessThan(200);
    const held = w.backend.tcp.stack.heldSlots;
    w.run(60e9);
    expect(w.backend.tcp.stack.heldSlots).toBe(held);
    for (let i = 0; i < 40; i++) {
      w.host.allow(socket, 100_000);
      w.run(1e9);
    }
    expect(Buffer.compare(socket.sentBytes, data)).toBe(0);
    expect(socket.writeShut).toBe(true);
  });
  it('a guest that does not read leaves the data in the host’s socket', () => {
    const { user, socket } = open();
    user.appetite = 1000;
    const data = pattern(3 << 20, 8);
    w.host.push(socket, data);
    w.run(5e9);
    expect(user.receivedBytes).toBe(1000);
    expect(socket.incoming.length).toBeGreaterThan((1 << 20) - 200_000);
    user.feed(Number.POSITIVE_INFINITY);
    w.run(5e9);
    expect(Buffer.compare(user.received, data)).toBe(0);
  });
  it('one receive call and one send call for 64 KiB and less, no epoll_ctl in a stream', () => {
    const { user, socket } = open();
    w.host.push(socket, pattern(2 << 20, 1));
    w.run(1e9);
    expect(user.receivedBytes).toBe(2 << 20);
    expect(socket.receiveCalls).toBeLessThan(40);
    expect(w.host.interestCalls).toBeLessThan(12);
    user.send(pattern(2 << 20, 2));
    w.run(1e9);
    expect(socket.sent.length).toBe(2 << 20);
    expect(socket.sendCalls).toBeLessThan(40);
  });
  it('a port that takes nothing for a while', () => {
    const { user, socket } = open();
    w.guest.open = false;
    w.host.push(socket, pattern(500_000, 1));
    w.run(20e6);
    const held = w.context.pool.capacity - w.context.pool.free;
    w.run(100e6);
    expect(w.context.pool.capacity - w.context.pool.free).toBe(held);
    w.guest.open = true;
    w.guest.port.ready();
    w.run(5e9);
    expect(user.receivedBytes).toBe(500_000);
  });
  it('more answers in one turn than the outbox holds: none is forgotten', () => {
    world();
    const flows = Array.from({ length: 1300 }, () => w.connect('10.0.2.2', 80));
    for (const { socket } of flows) w.host.finishConnect(socket);
    w.run(1e9);
    for (const { socket } of flows) w.host.push(socket, bytes('answer'));
    w.run(150e6); // less than a retransmission timeout
    expect(flows.filter(({ user }) => text(user.received) !== 'answer').length).toBe(0);
  });
  it('a slot shortage is survived', () => {
    const { user, socket } = open();
    const hog: number[] = [];
    for (let f = w.context.pool.alloc(1); f !== 0; f = w.context.pool.alloc(1)) hog.push(f);
    for (let f = w.context.pool.allocLarge(); f !== 0; f = w.context.pool.allocLarge()) hog.push(f);
    w.host.push(socket, pattern(10_000, 1));
    w.run(100e6);
    expect(user.receivedBytes).toBe(0);
    for (const f of hog) w.context.pool.release(f);
    w.run(2e9);
    expect(user.receivedBytes).toBe(10_000);
  });
  it('a guest that vanishes is cleaned up by timers', () => {
    const { socket } = open();
    w.guest.port.disconnect();
    w.host.push(socket, pattern(10_000, 1));
    w.run(400e9);
    expect(socket.closed).toBe(true);
    expect(w.backend.tcp.stack.connections).toBe(0);
  });
});

describe('where it may go', () => {
  const outcome = (address: string, options = ''): string[] => {
    world(options);
    const before = w.host.all.length;
    const { user } = w.connect(address, 80);
    const icmp = w.guest.take().filter((f) => f[23] === 1);
    const result = [
      ...user.log,
      ...icmp.map((f) => `icmp ${f[35]}`),
      ...(w.host.all.length > before ? [w.host.latest.remote.address] : []),
    ];
    w.end();
    return result;
  };
  it('hardening T5: the loopback has its switch, restrict closes everything, deny lists nets', () => {
    expect(outcome('10.0.2.2')).toEqual(['127.0.0.1']);
    expect(outcome('10.0.2.2', ',loopback=off')).toEqual(['icmp 13']);
    expect(outcome('10.0.2.2', ',restrict=on')).toEqual(['icmp 13']);
    expect(outcome('93.184.216.34', ',restrict=on')).toEqual(['icmp 13']);
    expect(outcome('10.0.2.3', ',restrict=on')).toEqual(['refused']);
    expect(outcome('169.254.169.254')).toEqual(['169.254.169.254']);
    expect(outcome('169.254.169.254', ',deny=169.254.0.0/16')).toEqual(['icmp 13']);
    expect(outcome('93.184.216.34', ',deny=0.0.0.0/0')).toEqual(['icmp 13']);
  });
  it('nobody lives on the rest of the net, and no other name of the host gets through', () => {
    expect(outcome('10.0.2.77')).toEqual(['icmp 1']);
    for (const address of ['127.0.0.1', '0.0.0.0', '224.0.0.1', '255.255.255.255', '0.0.0.1']) {
      expect(outcome(address, ',loopback=off')).toEqual([]);
    }
    world();
  });
  it('DNS over TCP goes to the resolver', () => {
    world();
    const user = w.user();
    w.guest.connect(user, '10.0.2.3', 53);
    user.send(Uint8Array.of(0, 2, 9, 9));
    w.run();
    const socket = w.host.latest;
    expect(socket.remote).toEqual({ address: '192.0.2.53', port: 53 });
    w.host.finishConnect(socket);
    w.run();
    expect(socket.sent).toEqual([0, 2, 9, 9]);
    w.host.push(socket, Uint8Array.of(0, 3, 9));
    w.run();
    expect([...user.received]).toEqual([]);
    w.host.push(socket, Uint8Array.of(9, 8));
    w.run();
    expect([...user.received]).toEqual([0, 3, 9, 9, 8]);
    expect(w.connect('10.0.2.3', 80).user.log).toEqual(['refused']);
  });
});

describe('forwards', () => {
  it('hostfwd TCP: asks for the MAC, connects from the gateway, carries both ways', () => {
    world(',hostfwd=tcp:127.0.0.1:2222-:22');
    const server = w.user();
    server.outgoing = bytes('SSH-2.0');
    w.guest.accept = () => server;
    const listener = w.host.all[0]!;
    const client = w.host.knock(listener);
    w.run(1e9);
    expect(server.log).toEqual(['established']);
    expect(text(client.sentBytes)).toBe('SSH-2.0');
    expect(w.backend.forwards.list()).toMatchObject([
      {
        protocol: 'tcp',
        listen: '127.0.0.1',
        port: 2222,
        guest: '10.0.2.15',
        guestPort: 22,
        active: 1,
        total: 1,
      },
    ]);
    w.host.push(client, bytes('hello'));
    w.host.end(client);
    w.run(1e9);
    expect(text(server.received)).toBe('hello');
    expect(server.log).toEqual(['established', 'end']);
    w.backend.forwards.remove((rule) => rule.hostPort === 2222);
    w.run();
    expect(server.log).toEqual(['established', 'end', 'reset']);
    expect(client.wasReset).toBe(true);
    expect(listener.closed).toBe(true);
  });
  it('hardening T6: the guest sees the gateway’s address, and a guest that refuses resets the caller', () => {
    world(',hostfwd=tcp:127.0.0.1:0-:22');
    const client = w.host.knock(w.host.all[0]!);
    w.run(1e9);
    expect(client.wasReset).toBe(true);
    let from = '';
    w.guest.accept = (c) => {
      from = [...c.link.subarray(30, 34)].join('.');
      return w.user();
    };
    w.host.knock(w.host.all[0]!);
    w.run(1e9);
    expect(from).toBe('10.0.2.2');
  });
  it('hardening T6: QEMU’s default of every address is kept, with a warning that names it; one setting binds the loopback', () => {
    const warnings: string[] = [];
    const make = (options: string): string[] => {
      world(options, {}, {}, { warn: (_details, message) => warnings.push(message) });
      const at = w.backend.forwards.list().map(({ listen }) => listen);
      w.end();
      return [...at, ...warnings.splice(0)];
    };
    expect(make(',hostfwd=tcp::2222-:22')).toEqual([
      '0.0.0.0',
      "hostfwd 'tcp::2222-:22' of n0 listens on every address (0.0.0.0)",
    ]);
    expect(make(',hostfwd=udp:[::]:2222-:22')).toEqual([
      '::',
      "hostfwd 'udp:[::]:2222-:22' of n0 listens on every address (::)",
    ]);
    expect(make(',hostfwd-address=127.0.0.1,hostfwd=tcp::2222-:22')).toEqual(['127.0.0.1']);
    world();
  });
  it('hostfwd with /proxy1 and /proxy2: the first bytes name the real client, the data follows', () => {
    const first = (rule: string, from?: { address: string; port: number }): [Uint8Array, string] => {
      world(`,hostfwd=${rule}`);
      const server = w.user();
      let peer = '';
      w.guest.accept = (c) => {
        peer = [...c.link.subarray(30, 34)].join('.');
        return server;
      };
      const client = w.host.knock(w.host.all[0]!, from);
      w.host.push(client, bytes('hello'));
      w.run(1e9);
      const got = Uint8Array.from(server.received);
      w.end();
      return [got, peer];
    };
    const [v1, peer] = first('tcp:127.0.0.1:8080-:80/proxy1');
    expect(text(v1)).toBe('PROXY TCP4 198.51.100.7 127.0.0.1 50001 8080\r\nhello');
    expect(peer).toBe('10.0.2.2');
    expect(text(first('tcp:[::1]:8080-:80/proxy1', { address: '2001:db8::9', port: 9 })[0])).toBe(
      'PROXY TCP6 2001:db8::9 ::1 9 8080\r\nhello',
    );
    expect(text(first('unix:/run/web-80-:80/proxy1')[0])).toBe('PROXY UNKNOWN\r\nhello');
    const signature = '0d0a0d0a000d0a515549540a';
    expect(toHex(first('tcp:127.0.0.1:8080-:80/proxy2')[0])).toBe(
      `${signature}2111000cc63364077f000001c3511f90${toHex(bytes('hello'))}`,
    );
    expect(
      toHex(first('tcp:[::1]:8080-:80/proxy2', { address: '2001:db8::9', port: 9 })[0]).slice(24, -10),
    ).toBe(`2121002420010db8000000000000000000000009${'0'.repeat(31)}100091f90`);
    const unix = first('unix:/run/web-80-:80/proxy2')[0];
    expect([toHex(unix.subarray(12, 16)), unix.length]).toEqual(['213100d8', 16 + 216 + 5]);
    expect(text(unix.subarray(16 + 108, 16 + 108 + 11))).toBe('/run/web-80');
    expect(() => new World(',hostfwd=udp::53-:53/proxy2')).toThrow('The PROXY protocol needs tcp or unix');
    expect(() => new World(',hostfwd=tcp::80-:80/proxy3')).toThrow('Bad suffix');
    world();
  });
  it('a PROXY header waits for room in the guest’s window and for a slot', () => {
    world(',hostfwd=tcp:127.0.0.1:8080-:80/proxy2', { settings: { receiveWindowBytes: 20 } });
    const server = w.user();
    w.guest.accept = () => server;
    const client = w.host.knock(w.host.all[0]!);
    w.host.push(client, bytes('data'));
    w.host.end(client);
    w.run(60e9);
    expect(Uint8Array.from(server.received).subarray(28)).toEqual(bytes('data'));
    expect(server.log).toEqual(['established', 'end']);
  });
  it('a guest that never answers ARP', () => {
    world(',hostfwd=tcp:127.0.0.1:0-:22');
    w.guest.answerArp = false;
    const client = w.host.knock(w.host.all[0]!);
    w.run(10e9);
    expect(client.wasReset).toBe(true);
    expect(w.backend.stats.forwardDropNoGuest).toBe(1);
  });
  it('a rule that cannot listen says so and leaves nothing behind', () => {
    world();
    w.host.refuse = { syscall: 'bind', code: 'EADDRINUSE' };
    const rule = {
      proto: 'tcp',
      proxyVersion: 0,
      hostAddress: { family: 4, value: 0, text: '127.0.0.1' },
      hostPort: 1,
      unixPath: undefined,
      guestAddress: { family: 4, value: 0x0a00020f, text: '10.0.2.15' },
      guestPort: 2,
      text: 'tcp:127.0.0.1:1-:2',
    } as const;
    expect(() => w.backend.forwards.add(rule)).toThrow(
      "Could not set up host forwarding rule 'tcp:127.0.0.1:1-:2'",
    );
    w.host.refuse = null;
    expect(w.backend.forwards.add(rule).port).toBe(1);
  });
  it('guestfwd: a stream for each connection', () => {
    const made: number[] = [];
    world(
      ',guestfwd=tcp:10.0.2.100:1234-cmd:cat',
      {},
      {
        openGuestForward: (hostIo, target) => {
          expect(target).toEqual({ kind: 'command', command: 'cat' });
          const handle = hostIo.tcpConnect({ address: 'x', port: 1 });
          w.host.latest.connecting = false;
          w.host.latest.connected = true;
          made.push(handle);
          return handle;
        },
      },
    );
    const { user, socket } = w.connect('10.0.2.100', 1234);
    user.send(bytes('meow'));
    w.run();
    expect(text(socket.sentBytes)).toBe('meow');
    w.host.push(socket, bytes('meow'));
    w.run();
    expect(text(user.received)).toBe('meow');
    expect(made.length).toBe(1);
    expect(w.connect('10.0.2.100', 1235).user.log).toEqual([]);
  });
  it('guestfwd to a character device, also where nothing else may leave; one that is in use refuses', () => {
    let busy = false;
    world(
      ',restrict=on,guestfwd=tcp:10.0.2.100:1234-chardev:c0,guestfwd=tcp::80-c1',
      {},
      {},
      {},
      {
        openChardev: (reference) => {
          expect(reference).toMatchObject({ kind: 'chardev' });
          if (busy) throw new OptionError('already in use');
          busy = true;
          const handle = w.host.tcpConnect({ address: 'chardev', port: 1 });
          w.host.latest.connecting = false;
          w.host.latest.connected = true;
          return handle;
        },
      },
    );
    const { user, socket } = w.connect('10.0.2.100', 1234);
    user.send(bytes('to the device'));
    w.host.push(socket, bytes('from it'));
    w.run();
    expect([text(socket.sentBytes), text(user.received)]).toEqual(['to the device', 'from it']);
    expect(w.connect('10.0.2.4', 80).user.log).toEqual(['refused']);
    busy = false;
    expect(w.connect('10.0.2.4', 80).user.log).toEqual(['established']);
  });
  it('what this platform cannot serve is refused by name', () => {
    world();
    expect(() => new World(',guestfwd=tcp:10.0.2.100:1234-cmd:cat')).toThrow('guestfwd');
    expect(() => new World(',tftp=/srv')).toThrow('tftp=');
    expect(() => new World(',smb=/srv')).toThrow('smb=');
  });
});
