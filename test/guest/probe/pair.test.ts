import { createHash } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import type { Stage } from '../../../src/core/port.ts';
import { Port } from '../../../src/core/port.ts';
import { fillPattern, patternByte } from '../../../src/guest/probe/pattern.ts';
import type { ProbeOptions } from '../../../src/guest/probe/probe.ts';
import { bytesSource } from '../../../src/guest/probe/source.ts';
import { Hub } from '../../../src/link/hub.ts';
import type { Connection, TcpUser } from '../../../src/tcp/connection.ts';
import { type Station, World } from './pair.ts';

function patternHash(length: number): string {
  const bytes = new Uint8Array(length);
  fillPattern(0, bytes, 0, length);
  return createHash('sha256').update(bytes).digest('hex');
}

interface Net {
  world: World;
  hub: Hub;
  server: Station;
  /** Adds a station to the hub and starts it. */
  join(line: string, options?: Partial<ProbeOptions>): Station;
}

/** A hub with one station that serves echo on 7 and HTTP on 80, and has its address. */
function net(): Net {
  const world = new World();
  const hub = new Hub(0, world.link, 'any');
  const join: Net['join'] = (line, options) => {
    const station = world.station(line, options);
    Port.connect(station.port, hub.addPort(`hub-${station.name}`).port);
    station.probe.start();
    return station;
  };
  const server = join('probe,echo=7,http=80');
  world.run(15);
  return { world, hub, server, join };
}

/** Serves `port` of a station with users that do as they are told. */
function serve(station: Station, port: number, user: Partial<TcpUser>): void {
  station.probe.host.tcp.listen(port, () => ({
    established() {},
    deliver: (connection, frames, from, to, skip) => {
      let bytes = -skip;
      for (let i = from; i < to; i++) bytes += connection.stack.pool.table[frames[i] + 2];
      return bytes;
    },
    sendReady() {},
    peerClosed: (connection) => connection.close(),
    closed() {},
    ...user,
  }));
}

function say(connection: Connection, text: string): void {
  const bytes = new TextEncoder().encode(text);
  connection.write(bytes, 0, bytes.length);
}

/** Serves `port` with these bytes to everybody, then closes. */
function serveText(station: Station, port: number, text: string): void {
  serve(station, port, {
    established: (connection) => {
      say(connection, text);
      connection.close();
    },
  });
}

describe('two probes on a hub', () => {
  test('a download has the length and the hash of what was served', () => {
    const { world, server, join } = net();
    const client = join(
      `probe,once,get=http://${server.address}/bytes/3000001,expect-sha256=${patternHash(3_000_001)}`,
    );
    world.run(30);
    expect(client.result).toEqual({ ok: true, failures: [] });
    expect(client.told('get')).toEqual([
      expect.stringMatching(
        `^GET http://${server.address}/bytes/3000001: 200 OK, 3000001 bytes, sha256 ${patternHash(3_000_001)}$`,
      ),
    ]);
    // The e1000 cut the segments: far fewer frames were sent than received.
    expect(server.nic.stats.txSegmentations).toBeGreaterThan(20);
    expect(server.probe.services.http!.stats.sentBodyBytes).toBe(3_000_001);
    world.close();
  });

  test('an upload arrives with the same hash; a file is read through the injected reader', () => {
    const { world, server, join } = net();
    const file = Uint8Array.from({ length: 500_000 }, (_, i) => (i * 7) ^ (i >> 8));
    const hash = createHash('sha256').update(file).digest('hex');
    const opened: string[] = [];
    const client = join(`probe,once,put=http://${server.address}/up,file=/tmp/x,parallel=3`, {
      openFile: (path) => {
        opened.push(path);
        return bytesSource(file);
      },
    });
    world.run(30);
    expect(opened).toEqual(['/tmp/x']);
    expect(client.result?.ok).toBe(true);
    expect(client.told('put')[0]).toContain(`3 times 200 OK, 500000 bytes, sha256 ${hash}`);
    expect(server.probe.services.http!.stats.receivedBodyBytes).toBe(1_500_000);
    world.close();
  });

  test('200 connections at once', () => {
    const { world, server, join } = net();
    const client = join(`probe,once,get=http://${server.address}/bytes/30000,parallel=200`);
    world.run(60);
    expect(client.told('get')).toEqual([
      expect.stringContaining(`200 times 200 OK, 30000 bytes, sha256 ${patternHash(30_000)}`),
    ]);
    expect(client.result?.ok).toBe(true);
    world.close();
  });

  test('losses on the way cost time, not bytes', () => {
    const { world, server, join } = net();
    let seen = 0;
    const stage: Stage = {
      next: { receive: () => 0 },
      previous: { peerReady() {} },
      receive(frames, from, to) {
        for (let i = from; i < to; i++) {
          if (++seen % 53 === 0) world.pool.release(frames[i]);
          else if (stage.next.receive(frames, i, i + 1) === 0) world.pool.release(frames[i]);
        }
        return to - from;
      },
      peerReady: () => stage.previous.peerReady(),
    };
    server.port.setStages([stage]);
    const client = join(
      `probe,once,get=http://${server.address}/bytes/1000000,expect-sha256=${patternHash(1_000_000)}`,
    );
    world.run(120);
    expect(client.result).toEqual({ ok: true, failures: [] });
    expect(server.probe.host.tcp.stack.stats.txRetransmittedSegments).toBeGreaterThan(3);
    world.close();
  });

  test('what fails is told as what it is, and makes the result fail', () => {
    const { world, server, join } = net();
    const { address } = server;
    serve(server, 1001, { established: (connection) => connection.abort() });
    let kept: Connection | null = null;
    serve(server, 1002, {
      established: (connection) => {
        kept = connection;
      },
    });
    serve(server, 1003, {
      established: (connection) => {
        say(connection, 'HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf');
        world.loop.timer(() => connection.abort()).armIn(1e9);
      },
    });
    serveText(server, 1004, 'HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf');
    serveText(server, 1005, 'SSH-2.0-OpenSSH\r\n\r\n');
    serveText(server, 1006, 'HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno');
    serveText(server, 1007, '');
    const away = '169.254.200.200';
    const urls = ['9', '1001', '1002', '1003', '1004', '1005', '1006', '1007'].map(
      (port) => `get=http://${address}:${port}/`,
    );
    const client = join(`probe,once,timeout=20,${urls.join(',')},get=http://${away}/,get=http://192.0.2.1/`);
    world.run(60);
    expect(kept).not.toBe(null);
    const lines = client.told('get');
    const hash = createHash('sha256').update('no').digest('hex');
    expect(lines.sort()).toEqual(
      [
        `GET http://${address}:9/: connection refused by ${address}:9`,
        `GET http://${address}:1001/: connection reset by ${address}:1001 after 0 bytes`,
        `GET http://${address}:1002/: timeout: no progress with ${address}:1002 for 20.0 s, after 0 bytes`,
        `GET http://${address}:1003/: connection reset by ${address}:1003 after 4 bytes`,
        `GET http://${address}:1004/: ${address}:1004 closed the connection after 4 of 1000 bytes`,
        `GET http://${address}:1005/: ${address}:1005 sent a bad answer: not HTTP/1: "SSH-2.0-OpenSSH"`,
        `GET http://${address}:1006/: 404 Not Found, 2 bytes, sha256 ${hash}`,
        `GET http://${address}:1007/: ${address}:1007 closed the connection before its answer`,
        `GET http://${away}/: host unreachable: ${away}:80`,
        'GET http://192.0.2.1/: no route to 192.0.2.1:80',
      ].sort(),
    );
    expect(client.result?.failures).toHaveLength(10);
    world.close();
  });

  test('a wrong hash, and a file that cannot be read, are failures', () => {
    const { world, server, join } = net();
    const client = join(
      `probe,once,get=http://${server.address}/bytes/10,expect-sha256=${'0'.repeat(64)},put=http://${server.address}/,file=/none`,
      {
        openFile: () => {
          throw new Error('no such file');
        },
      },
    );
    world.run(30);
    expect(client.told('get')[0]).toContain(`sha256 ${patternHash(10)}, but ${'0'.repeat(64)} was expected`);
    expect(client.told('put')).toEqual([`PUT http://${server.address}/: /none cannot be read: no such file`]);
    expect(client.result?.ok).toBe(false);
    world.close();
  });

  test('TCP echo returns every byte, also to a reader that is slow', () => {
    const { world, server, join } = net();
    const client = join('probe');
    world.run(15);
    const length = 700_000;
    const received = new Uint8Array(length);
    let sent = 0;
    let got = 0;
    const open: Connection[] = [];
    let allowed = 0;
    const chunk = new Uint8Array(length);
    fillPattern(0, chunk, 0, length);
    const feed = (connection: Connection): void => {
      sent += connection.write(chunk, sent, length);
      if (sent === length) connection.close();
    };
    const user: TcpUser & { failed(): void } = {
      failed() {},
      established: (connection) => {
        open.push(connection);
      },
      sendReady: feed,
      deliver: (connection, frames, from, to, skip) => {
        const { pool } = connection.stack;
        let taken = 0;
        for (let i = from; i < to && allowed > 0; i++) {
          const part = Math.min(allowed, pool.table[frames[i] + 2] - skip);
          pool.read(frames[i], skip, received, got, part);
          got += part;
          taken += part;
          allowed -= part;
          if (part < pool.table[frames[i] + 2] - skip) break;
          skip = 0;
        }
        return taken;
      },
      peerClosed() {},
      closed() {},
    };
    const remote = new Uint8Array(4);
    new DataView(remote.buffer).setUint32(0, server.probe.host.ipv4.address);
    client.probe.host.tcp.open(remote, 7, user);
    for (let i = 0; i < 300 && got < length; i++) {
      allowed = 5000;
      open[0]?.sinkReady();
      world.run(0.1);
    }
    expect(got).toBe(length);
    expect(createHash('sha256').update(received).digest('hex')).toBe(patternHash(length));
    expect(server.probe.services.echo!.stats.tcpBytes).toBe(length);
    world.close();
  });

  test('tx sends as many frames as it was told, and is counted', () => {
    const { world, server, join } = net();
    const before = server.nic.stats.rxFrames;
    const client = join('probe,once,tx=1000');
    world.run(30);
    expect(client.result?.ok).toBe(true);
    expect(client.told('tx')[0]).toMatch(/^100[01] frames of 60 bytes in 1\.00 s$/);
    expect(server.nic.stats.rxFrames - before).toBeGreaterThanOrEqual(1000);
    world.close();
  });

  test('ping of an address and of one that nobody has', () => {
    const { world, server, join } = net();
    const client = join(`probe,once,ping=${server.address},ping=169.254.3.3`);
    world.run(30);
    const lines = client.told('ping');
    expect(lines[0]).toContain(`ping ${server.address}: `);
    expect(lines[1]).toBe('ping 169.254.3.3: host unreachable');
    expect(client.result?.failures).toEqual([lines[1]]);
    world.close();
  });

  test('IPv6: HTTP to a link-local address, cut by the NIC, and a ping', () => {
    const { world, server, join } = net();
    const before = server.nic.stats.txSegmentations;
    const to = 'fe80::5054:ff:fe12:3456';
    const client = join(
      `probe,once,get=http://[${to}]/bytes/1000000,expect-sha256=${patternHash(1_000_000)},put=http://[${to}]/,size=300k,ping=${to}`,
    );
    world.run(30);
    expect(client.result).toEqual({ ok: true, failures: [] });
    expect(client.told('ping')[0]).toContain(`ping ${to}: `);
    expect(server.nic.stats.txSegmentations).toBeGreaterThan(before + 10);
    expect(server.probe.host.ipv6.neighbours.size).toBe(1);
    world.close();
  });

  test('a link that is taken down and put back: told, configured anew, and it works again', () => {
    const { world, server, join } = net();
    const client = join('probe');
    world.run(15);
    client.port.setLink(false);
    world.run(2);
    expect(client.told('link')).toEqual(['link up 1000 Mb/s full duplex', 'link down']);
    expect(client.probe.host.ipv4.ready).toBe(false);
    client.port.setLink(true);
    world.run(20);
    expect(client.told('link').at(-1)).toBe('link up 1000 Mb/s full duplex');
    const rtts: number[] = [];
    const remote = new Uint8Array(4);
    new DataView(remote.buffer).setUint32(0, server.probe.host.ipv4.address);
    client.probe.host.ping.ping(remote, 3, ({ rttNs }) => rtts.push(rttNs));
    world.run(5);
    expect(rtts).toHaveLength(1);
    expect(rtts[0]).toBeGreaterThanOrEqual(0);
    world.close();
  });

  test('a cable that is pulled in the middle of a download ends it by timeout, not by silence', () => {
    const { world, server, join } = net();
    const client = join(`probe,once,timeout=20,get=http://${server.address}/bytes/500000000`);
    const gone = (): boolean => client.probe.host.stats.rxFrames > 5000;
    world.loop.runWhile(() => !gone());
    client.port.peer!.disconnect();
    world.run(60);
    expect(client.told('get')[0]).toMatch(/: timeout: no progress with .* for 20\.0 s, after \d+ bytes$/);
    expect(client.result?.ok).toBe(false);
    world.close();
  });

  test('closing in the middle of everything gives every buffer back', () => {
    const { world, server, join } = net();
    const client = join(
      `probe,get=http://${server.address}/bytes/50000000,put=http://${server.address}/,size=50M,parallel=8,tx=0`,
    );
    world.loop.runWhile(() => client.probe.host.stats.rxFrames < 2000);
    world.close();
  });

  test('two networks in one process do not meet', () => {
    const one = net();
    const two = net();
    const a = one.join(`probe,once,get=http://${one.server.address}/bytes/100000`);
    const b = two.join(`probe,once,get=http://${two.server.address}/bytes/100000`);
    one.world.run(30);
    expect(b.result).toBe(null);
    two.world.run(30);
    expect([a.result?.ok, b.result?.ok]).toEqual([true, true]);
    expect(a.told('get')).toEqual(b.told('get'));
    one.world.close();
    two.world.close();
  });
});

test('the pattern can be made from any offset', () => {
  const whole = new Uint8Array(1000);
  fillPattern(0, whole, 0, 1000);
  for (const [at, length] of [
    [0, 1],
    [1, 999],
    [3, 6],
    [500, 17],
  ]) {
    const part = new Uint8Array(length);
    fillPattern(at, part, 0, length);
    expect(part).toEqual(whole.slice(at, at + length));
    expect(patternByte(at)).toBe(whole[at]);
  }
});
