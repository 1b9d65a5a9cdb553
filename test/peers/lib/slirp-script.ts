/**
 * What the scripted client asks of a user network, by name: every protocol that the network itself speaks, and how the host's states show. A scenario
 * returns the lines it saw.
 */

import { parseIpv6, putU16be, putU32be, u16be, u32be } from '../../../src/wire/bytes.ts';
import { setIcmpChecksum, writeIcmpEcho } from '../../../src/wire/icmp.ts';
import { writeNeighborSolicitation, writeRouterSolicitation } from '../../../src/wire/ndp.ts';
import {
  arp,
  BROADCAST,
  CLIENT,
  CLIENT_MAC,
  CLIENT6,
  icmp6,
  ipFrame,
  type ScriptClient,
  udp,
} from './script-client.ts';
import { HOST } from './slirp-host.ts';

type Scenario = (c: ScriptClient) => Promise<string[]>;

const FIN = 1;
const SYN = 2;
const RST = 4;
const PSH = 8;
const ACK = 16;
const GATEWAY = '10.0.2.2';
const DNS = '10.0.2.3';
const GATEWAY6 = 'fec0::2';
const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);

// DHCP.

interface Dhcp {
  type?: number;
  mac?: readonly number[];
  ciaddr?: string;
  flags?: number;
  options?: readonly (readonly [number, ...number[]])[];
  to?: string;
  from?: string;
  cookie?: boolean;
  op?: number;
}

const address = (text: string): number[] => text.split('.').map(Number);

function dhcp(o: Dhcp): Uint8Array {
  const p = new Uint8Array(300);
  p.set([o.op ?? 1, 1, 6, 0, 0x12, 0x34, 0x56, 0x78]);
  putU16be(p, 10, o.flags ?? 0);
  p.set(address(o.ciaddr ?? '0.0.0.0'), 12);
  p.set(o.mac ?? CLIENT_MAC, 28);
  if (o.cookie !== false) {
    p.set([0x63, 0x82, 0x53, 0x63], 236);
    let at = 240;
    const options: (readonly number[])[] = [...(o.options ?? [])];
    if (o.type !== undefined) options.unshift([53, o.type]);
    for (const [code, ...value] of options) {
      p.set([code!, value.length, ...value], at);
      at += 2 + value.length;
    }
    p[at] = 255;
  }
  return udp(o.from ?? '0.0.0.0', 68, o.to ?? '255.255.255.255', 67, p, { mac: BROADCAST });
}

const [DISCOVER, REQUEST, DECLINE, RELEASE, INFORM] = [1, 3, 4, 7, 8];
const OTHER = [0x52, 0x54, 0, 0xaa, 0xbb, 0xcc];
const requested = (ip: string): readonly [number, ...number[]] => [50, ...address(ip)];
const server = (ip: string): readonly [number, ...number[]] => [54, ...address(ip)];
const ALL_OPTIONS: readonly [number, ...number[]] = [55, 1, 3, 6, 12, 15, 26, 28, 51, 54, 66, 67, 119];

// Echo and others.

function echo(dst: string, id: number, data: string, ttl = 64): Uint8Array {
  if (dst.includes(':')) {
    const message = new Uint8Array(8 + data.length);
    message.set([128, 0, 0, 0, id >> 8, id & 255, 0, 1]);
    message.set(bytes(data), 8);
    return icmp6(CLIENT6, dst, message, ttl);
  }
  const message = new Uint8Array(8 + data.length);
  message.set(bytes(data), 8);
  writeIcmpEcho(message, 0, 8, id, 1, data.length);
  return ipFrame(CLIENT, dst, 1, message, { ttl });
}

function tftp(operation: number, ...words: string[]): Uint8Array {
  return Uint8Array.of(0, operation, ...bytes(words.map((word) => `${word}\0`).join('')));
}

function query(id: number, name: string, type = 1): Uint8Array {
  const labels = name.split('.').flatMap((label) => [label.length, ...bytes(label)]);
  return Uint8Array.of(id >> 8, id & 255, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, ...labels, 0, 0, type, 0, 1);
}

/** The whole of a TFTP read, acknowledging each block; `tries` ends what does not end. */
async function fetch(c: ScriptClient, port: number, ...words: string[]): Promise<string[]> {
  const lines: string[] = [];
  let blockBytes = 512;
  let ask = udp(CLIENT, port, GATEWAY, 69, tftp(1, ...words));
  for (let tries = 0; tries < 12; tries++) {
    const [frame] = await c.raw([ask]);
    if (frame === undefined) break;
    const from = u16be(frame, 34);
    if (from !== 69) c.text.choose(from);
    lines.push(c.text.line(frame));
    const operation = u16be(frame, 42);
    if (operation !== 3 && operation !== 6) break;
    const block = operation === 6 ? 0 : u16be(frame, 44);
    const size = operation === 3 ? u16be(frame, 38) - 12 : -1;
    const last = size >= 0 && size < blockBytes;
    if (operation === 6) blockBytes = agreedBlock(frame);
    ask = udp(CLIENT, port, GATEWAY, from, Uint8Array.of(0, 4, block >> 8, block & 255));
    if (last) {
      c.send(ask);
      break;
    }
  }
  return lines;
}

/** The block size of an option acknowledgement. */
function agreedBlock(frame: Uint8Array): number {
  const words = new TextDecoder('latin1').decode(frame.subarray(44)).split('\0');
  const at = words.indexOf('blksize');
  return at < 0 ? 512 : Number(words[at + 1]);
}

// TCP.

/** Without acknowledgements that later lines repeat: whether one goes alone or rides on data is a matter of moments. */
export function settled(lines: readonly string[]): string[] {
  const acknowledges = (line: string): string | undefined => / ack (\d+)/.exec(line)?.[1];
  return lines.filter((line, i) => {
    if (!/ ACK seq .*}$/.test(line) || /FIN|SYN|RST|PSH/.test(line)) return true;
    return !lines.slice(i + 1).some((later) => acknowledges(later) === acknowledges(line));
  });
}

/** Connects; returns the line, and the number that the server's next byte has. */
async function connect(
  c: ScriptClient,
  port: number,
  dst: string,
  to: number,
  full = false,
): Promise<{ lines: string[]; next: number }> {
  const syn = c.segment(port, dst, to, {
    flags: SYN,
    seq: 1000,
    options: (o) => {
      o.mss = 1460;
      if (full) {
        o.windowScale = 7;
        o.sackPermitted = true;
        o.hasTimestamps = true;
        o.timestampValue = 5;
      }
    },
  });
  const frames = await c.raw([syn], [/SYN|RST|ICMP/]);
  const lines = frames.map((frame) => c.text.line(frame));
  const answer = frames.find((frame) => frame[12] === (dst.includes(':') ? 0x86 : 8));
  const next = answer === undefined ? 0 : (u32be(answer, dst.includes(':') ? 58 : 38) + 1) >>> 0;
  return { lines, next };
}

export const SCENARIOS: Readonly<Record<string, Scenario>> = {
  'ARP: the gateway': (c) => c.ask([arp(1, CLIENT, GATEWAY)]),
  'ARP: the name server': (c) => c.ask([arp(1, CLIENT, DNS)]),
  'ARP: nobody': (c) => c.ask([arp(1, CLIENT, '10.0.2.77')]),
  'ARP: the guest itself': (c) => c.ask([arp(1, CLIENT, CLIENT)]),
  'ARP: outside the net': (c) => c.ask([arp(1, CLIENT, '192.0.2.1')]),
  'ARP: gratuitous reply': (c) => c.ask([arp(2, CLIENT, CLIENT)]),
  'ARP: RARP': (c) => c.ask([arp(3, CLIENT, CLIENT)]),

  'DHCP: discover': (c) => c.ask([dhcp({ type: DISCOVER })]),
  'DHCP: discover, all options asked for': (c) => c.ask([dhcp({ type: DISCOVER, options: [ALL_OPTIONS] })]),
  'DHCP: discover, an address asked for': (c) =>
    c.ask([dhcp({ type: DISCOVER, options: [requested('10.0.2.20')] })]),
  'DHCP: discover, broadcast flag': (c) => c.ask([dhcp({ type: DISCOVER, flags: 0x8000 })]),
  'DHCP: request': (c) =>
    c.ask([dhcp({ type: REQUEST, options: [requested('10.0.2.15'), server(GATEWAY), ALL_OPTIONS] })]),
  'DHCP: request of a wrong address': (c) =>
    c.ask([dhcp({ type: REQUEST, mac: OTHER, options: [requested('192.168.5.5')] })]),
  'DHCP: request to another server': (c) =>
    c.ask([dhcp({ type: REQUEST, mac: OTHER, options: [requested('10.0.2.16'), server('10.0.2.9')] })]),
  'DHCP: renewal': (c) => c.ask([dhcp({ type: REQUEST, ciaddr: CLIENT, from: CLIENT, to: GATEWAY })]),
  'DHCP: request by somebody unknown, without an address': (c) =>
    c.ask([dhcp({ type: REQUEST, mac: [2, 0, 0, 0, 0, 9] })]),
  'DHCP: a second client': (c) => c.ask([dhcp({ type: DISCOVER, mac: OTHER })]),
  'DHCP: inform': (c) =>
    c.ask([dhcp({ type: INFORM, ciaddr: CLIENT, from: CLIENT, options: [ALL_OPTIONS] })]),
  'DHCP: decline': (c) =>
    c.ask([dhcp({ type: DECLINE, mac: OTHER, options: [requested('10.0.2.16'), server(GATEWAY)] })]),
  'DHCP: discover after a decline': (c) => c.ask([dhcp({ type: DISCOVER, mac: OTHER })]),
  'DHCP: release': (c) =>
    c.ask([dhcp({ type: RELEASE, ciaddr: CLIENT, from: CLIENT, to: GATEWAY, options: [server(GATEWAY)] })]),
  'DHCP: rapid commit': (c) => c.ask([dhcp({ type: DISCOVER, mac: [2, 0, 0, 0, 0, 8], options: [[80]] })]),
  "DHCP: a server's message": (c) => c.ask([dhcp({ type: 2, op: 2 })]),
  'DHCP: an unknown type': (c) => c.ask([dhcp({ type: 14 })]),
  'BOOTP: request': (c) => c.ask([dhcp({ cookie: false })]),
  'BOOTP: request with a cookie': (c) => c.ask([dhcp({})]),

  'ICMP: echo of the gateway': (c) => c.ask([echo(GATEWAY, 5, 'hello')]),
  'ICMP: echo of the name server': (c) => c.ask([echo(DNS, 6, 'hello')]),
  'ICMP: echo of nobody in the net': (c) => c.ask([echo('10.0.2.77', 7, 'hello')]),
  'ICMP: echo beyond the gateway, TTL 1': (c) => c.ask([echo('192.0.2.1', 8, 'hello', 1)]),
  'ICMP: timestamp request': (c) => {
    const message = new Uint8Array(20);
    message[0] = 13;
    setIcmpChecksum(message, 0, 20);
    return c.ask([ipFrame(CLIENT, GATEWAY, 1, message)]);
  },
  'ICMP: echo with a wrong checksum': (c) => {
    const frame = echo(GATEWAY, 9, 'hello');
    frame[37]! ^= 1;
    return c.ask([frame]);
  },
  'IP: an unknown protocol': (c) => c.ask([ipFrame(CLIENT, GATEWAY, 200, bytes('hello'))]),
  'IP: headers of answers': async (c) => {
    c.text.headers = true;
    const lines = await c.ask(
      [echo(GATEWAY, 10, 'hello'), udp(CLIENT, 5500, GATEWAY, HOST.udpEcho, bytes('x'))],
      ['UDP'],
    );
    const { lines: more } = await connect(c, 4900, GATEWAY, HOST.closed);
    c.text.headers = false;
    return [...lines, ...more];
  },

  'UDP: echo by the host': (c) =>
    c.ask([udp(CLIENT, 5000, GATEWAY, HOST.udpEcho, bytes('question'))], [/question|ICMP/]),
  'UDP: an empty datagram': (c) => c.ask([udp(CLIENT, 5001, GATEWAY, HOST.udpEcho, bytes(''))], ['UDP']),
  'UDP: 4000 bytes come back in fragments': async (c) => {
    // The client sends no fragments: a short question that asks for much.
    const frames = await c.raw(
      [udp(CLIENT, 5002, GATEWAY, HOST.udpEcho, bytes('much please'))],
      [/fragment 3\d\d,/],
    );
    return frames.map((frame) => c.text.line(frame));
  },
  'UDP: a closed port of the host': (c) =>
    c.ask([udp(CLIENT, 5003, GATEWAY, HOST.closed, bytes('x'))], ['ICMP']),
  'UDP: a closed port of the host, IPv6': (c) =>
    c.ask([udp(CLIENT6, 5003, GATEWAY6, HOST.closed, bytes('x'))], ['ICMPv6']),
  'UDP: nobody in the net': (c) => c.ask([udp(CLIENT, 5004, '10.0.2.77', 9, bytes('x'))]),
  'UDP: the name server, another port': (c) => c.ask([udp(CLIENT, 5005, DNS, 54, bytes('x'))]),
  'UDP: broadcast': (c) => c.ask([udp(CLIENT, 5006, '10.0.2.255', 9, bytes('x'), { mac: BROADCAST })]),
  'UDP: TTL 1 to the gateway': (c) =>
    c.ask([udp(CLIENT, 5007, GATEWAY, HOST.udpEcho, bytes('near'), { ttl: 1 })], [/near|ICMP/]),
  'UDP: TTL 1 beyond the gateway': (c) =>
    c.ask([udp(CLIENT, 5008, '192.0.2.1', 33_434, bytes('x'), { ttl: 1 })]),
  'UDP: a wrong checksum': (c) => {
    const frame = udp(CLIENT, 5009, GATEWAY, HOST.udpEcho, bytes('x'));
    frame[41]! ^= 1;
    return c.ask([frame]);
  },
  'UDP: a length that lies': (c) => {
    const frame = udp(CLIENT, 5010, GATEWAY, HOST.udpEcho, bytes('x'));
    putU16be(frame, 38, 100);
    return c.ask([frame]);
  },

  'DNS: a name': (c) => c.ask([udp(CLIENT, 5100, DNS, 53, query(1, 'name.test'))], ['DNS']),
  'DNS: no such name': (c) => c.ask([udp(CLIENT, 5101, DNS, 53, query(2, 'none.test'))], ['DNS']),
  'DNS: over IPv6': (c) =>
    c.ask([udp(CLIENT6, 5102, 'fec0::3', 53, query(3, 'name.test', 28))], [/DNS|ICMPv6/]),

  'TFTP: a file': (c) => fetch(c, 6900, 'file', 'octet'),
  'TFTP: a file by its path': (c) => fetch(c, 6901, '/folder/small', 'octet'),
  'TFTP: netascii': (c) => fetch(c, 6902, 'small', 'netascii'),
  'TFTP: mode in capitals': (c) => fetch(c, 6903, 'small', 'OCTET'),
  'TFTP: an unknown mode': (c) => fetch(c, 6904, 'small', 'mail'),
  'TFTP: block size': (c) => fetch(c, 6905, 'file', 'octet', 'blksize', '1024'),
  'TFTP: block size beyond the MTU': (c) => fetch(c, 6906, 'file', 'octet', 'blksize', '8192'),
  'TFTP: size': (c) => fetch(c, 6907, 'small', 'octet', 'tsize', '0'),
  'TFTP: timeout': (c) => fetch(c, 6908, 'small', 'octet', 'timeout', '3'),
  'TFTP: window': (c) => fetch(c, 6909, 'small', 'octet', 'windowsize', '4'),
  'TFTP: an unknown option': (c) => fetch(c, 6910, 'small', 'octet', 'colour', 'blue'),
  'TFTP: no such file': (c) => fetch(c, 6911, 'none', 'octet'),
  'TFTP: out of the folder': (c) => fetch(c, 6912, '../../etc/passwd', 'octet'),
  'TFTP: out of the folder by a link': (c) => fetch(c, 6913, 'link', 'octet'),
  'TFTP: a folder': (c) => fetch(c, 6914, 'folder', 'octet'),
  'TFTP: write': (c) => c.ask([udp(CLIENT, 6915, GATEWAY, 69, tftp(2, 'new', 'octet'))]),
  'TFTP: acknowledgement of nothing': (c) =>
    c.ask([udp(CLIENT, 6916, GATEWAY, 69, Uint8Array.of(0, 4, 0, 1))]),
  'TFTP: a request cut short': (c) => c.ask([udp(CLIENT, 6917, GATEWAY, 69, Uint8Array.of(0, 1, 102))]),

  'TCP: handshake with all options': async (c) => {
    const { lines, next } = await connect(c, 4000, GATEWAY, HOST.echo, true);
    await c.ask([c.segment(4000, GATEWAY, HOST.echo, { flags: RST, seq: 1001, ack: next })]);
    return lines;
  },
  'TCP: handshake without options': async (c) => {
    const syn = c.segment(4001, GATEWAY, HOST.echo, { flags: SYN });
    const lines = await c.ask([syn], ['SYN']);
    await c.ask([c.segment(4001, GATEWAY, HOST.echo, { flags: RST, seq: 1001 })]);
    return lines;
  },
  'TCP: a closed port': async (c) => (await connect(c, 4002, GATEWAY, HOST.closed)).lines,
  'TCP: a closed port, IPv6': async (c) => (await connect(c, 4002, GATEWAY6, HOST.closed)).lines,
  'TCP: nobody in the net': (c) => c.ask([c.segment(4003, '10.0.2.77', 80, { flags: SYN })]),
  'TCP: the name server, a port it has not': (c) =>
    c.ask([c.segment(4003, DNS, 80, { flags: SYN })], [/TCP|ICMP/]),
  'TCP: a segment of no connection': (c) =>
    c.ask([c.segment(4004, GATEWAY, HOST.echo, { flags: ACK, seq: 5, ack: 77 })]),
  'TCP: data, there and back, then the end': async (c) => {
    const { next } = await connect(c, 4005, GATEWAY, HOST.echo);
    const lines: string[] = [];
    const say = (flags: number, seq: number, ack: number, want: (string | RegExp)[], data = '') =>
      c.ask([c.segment(4005, GATEWAY, HOST.echo, { flags, seq, ack, data })], want);
    const joined = async (answer: Promise<string[]>): Promise<void> => {
      lines.push(...(await answer));
    };
    await joined(say(ACK, 1001, next, []));
    await joined(say(ACK | PSH, 1001, next, ["'hello'"], 'hello'));
    await joined(say(ACK, 1006, next + 5, []));
    // The host hears of the end, says goodbye and ends too.
    await joined(say(FIN | ACK, 1006, next + 5, ["'goodbye'", 'FIN']));
    await joined(say(ACK, 1007, next + 13, []));
    return lines;
  },
  'TCP: the host ends first': async (c) => {
    const { next } = await connect(c, 4006, GATEWAY, HOST.greeting);
    const lines = await c.ask(
      [c.segment(4006, GATEWAY, HOST.greeting, { flags: ACK, seq: 1001, ack: next })],
      ["'hello'", 'FIN'],
    );
    lines.push(
      ...(await c.ask([c.segment(4006, GATEWAY, HOST.greeting, { flags: ACK, seq: 1001, ack: next + 6 })])),
    );
    lines.push(
      ...(await c.ask(
        [c.segment(4006, GATEWAY, HOST.greeting, { flags: FIN | ACK, seq: 1001, ack: next + 6 })],
        ['ack 1002'],
      )),
    );
    return lines;
  },
  'TCP: the host resets': async (c) => {
    const { next } = await connect(c, 4007, GATEWAY, HOST.resets);
    return c.ask(
      [c.segment(4007, GATEWAY, HOST.resets, { flags: ACK | PSH, seq: 1001, ack: next, data: 'x' })],
      ['RST'],
    );
  },
  'TCP: the client resets': async (c) => {
    const { next } = await connect(c, 4008, GATEWAY, HOST.echo);
    return c.ask(
      [
        c.segment(4008, GATEWAY, HOST.echo, { flags: ACK, seq: 1001, ack: next }),
        c.segment(4008, GATEWAY, HOST.echo, { flags: RST, seq: 1001 }),
        c.segment(4008, GATEWAY, HOST.echo, { flags: ACK, seq: 1001, ack: next }),
      ],
      ['RST'],
    );
  },
  'TCP: a closed window opens': async (c) => {
    const { next } = await connect(c, 4009, GATEWAY, HOST.echo);
    const lines = await c.ask(
      [
        c.segment(4009, GATEWAY, HOST.echo, {
          flags: ACK | PSH,
          seq: 1001,
          ack: next,
          data: 'hello',
          window: 0,
        }),
      ],
      ['ack 1006'],
    );
    lines.push('window opens');
    lines.push(
      ...(await c.ask(
        [c.segment(4009, GATEWAY, HOST.echo, { flags: ACK, seq: 1006, ack: next })],
        ["'hello'"],
      )),
    );
    await c.ask([c.segment(4009, GATEWAY, HOST.echo, { flags: RST, seq: 1006 })]);
    return lines;
  },
  'TCP: a segment out of order is answered by what is missing': async (c) => {
    const { next } = await connect(c, 4010, GATEWAY, HOST.echo, true);
    const stamped = (o: { hasTimestamps: boolean; timestampValue: number }): void => {
      o.hasTimestamps = true;
      o.timestampValue = 6;
    };
    const lines = await c.ask(
      [
        c.segment(4010, GATEWAY, HOST.echo, {
          flags: ACK | PSH,
          seq: 1006,
          ack: next,
          data: 'world',
          options: stamped,
        }),
      ],
      ['TCP'],
    );
    lines.push(
      ...(await c.ask(
        [
          c.segment(4010, GATEWAY, HOST.echo, {
            flags: ACK | PSH,
            seq: 1001,
            ack: next,
            data: 'hello',
            options: stamped,
          }),
        ],
        ['helloworld'],
      )),
    );
    await c.ask([c.segment(4010, GATEWAY, HOST.echo, { flags: RST, seq: 1011, options: stamped })]);
    return lines;
  },
  'TCP: a SYN for a connection that stands': async (c) => {
    const { next } = await connect(c, 4011, GATEWAY, HOST.echo);
    await c.ask([c.segment(4011, GATEWAY, HOST.echo, { flags: ACK, seq: 1001, ack: next })]);
    const lines = await c.ask([c.segment(4011, GATEWAY, HOST.echo, { flags: SYN, seq: 900_000 })]);
    await c.ask([c.segment(4011, GATEWAY, HOST.echo, { flags: RST, seq: 1001 })]);
    return lines;
  },
  'TCP: a wrong checksum': (c) => {
    const syn = c.segment(4012, GATEWAY, HOST.echo, { flags: SYN });
    syn[51]! ^= 1;
    return c.ask([syn]);
  },
  'TCP: over IPv6': async (c) => {
    const { lines, next } = await connect(c, 4013, GATEWAY6, HOST.echo);
    lines.push(
      ...(await c.ask(
        [c.segment(4013, GATEWAY6, HOST.echo, { flags: ACK | PSH, seq: 1001, ack: next, data: 'hello' })],
        ["'hello'"],
      )),
    );
    await c.ask([c.segment(4013, GATEWAY6, HOST.echo, { flags: RST, seq: 1006 })]);
    return lines;
  },

  'guestfwd: a command answers': async (c) => {
    const { lines, next } = await connect(c, 4100, '10.0.2.100', 1234);
    lines.push(
      ...(await c.ask(
        [c.segment(4100, '10.0.2.100', 1234, { flags: ACK | PSH, seq: 1001, ack: next, data: 'through' })],
        ["'through'"],
      )),
    );
    await c.ask([c.segment(4100, '10.0.2.100', 1234, { flags: RST, seq: 1008 })]);
    return lines;
  },
  'guestfwd: another port of its address': (c) =>
    c.ask([c.segment(4101, '10.0.2.100', 1235, { flags: SYN })]),
  'guestfwd: ARP of its address': (c) => c.ask([arp(1, CLIENT, '10.0.2.100')]),

  'IPv6: router solicitation': async (c) => {
    c.keepsAdvertisements = true;
    const message = new Uint8Array(16);
    writeRouterSolicitation(message, 0, CLIENT_MAC, 0);
    const lines = await c.ask(
      [icmp6('fe80::5054:ff:fe12:3456', 'ff02::2', message)],
      ['router advertisement'],
    );
    c.keepsAdvertisements = false;
    return lines.slice(0, 1);
  },
  'IPv6: who has the gateway': (c) => c.ask([solicit(GATEWAY6)]),
  'IPv6: who has the name server': (c) => c.ask([solicit('fec0::3')]),
  'IPv6: who has the link-local gateway': (c) => c.ask([solicit('fe80::2')]),
  'IPv6: who has nobody': (c) => c.ask([solicit('fec0::77')]),
  'IPv6: duplicate address detection': (c) => c.ask([solicit(CLIENT6, '::')]),
  'IPv6: a solicitation from afar': (c) => c.ask([solicit(GATEWAY6, CLIENT6, 64)]),
  'IPv6: echo of the gateway': (c) => c.ask([echo(GATEWAY6, 5, 'hello')], ['echo reply']),
  'IPv6: echo of the link-local gateway': (c) => c.ask([echo('fe80::2', 6, 'hello')]),
  'IPv6: echo of the name server': (c) => c.ask([echo('fec0::3', 6, 'hello')]),
  'IPv6: an unknown next header': (c) => c.ask([ipFrame(CLIENT6, GATEWAY6, 200, bytes('hello'))]),
  'DHCPv6: information request': (c) =>
    c.ask([dhcp6(11, [1, [0, 3, 0, 1, ...CLIENT_MAC]], [6, [0, 23, 0, 24, 0, 59]])]),
  'DHCPv6: information request without a client': (c) => c.ask([dhcp6(11, [6, [0, 23]])]),
  'DHCPv6: solicit': (c) =>
    c.ask([dhcp6(1, [1, [0, 3, 0, 1, ...CLIENT_MAC]], [3, [0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]])]),
};

function solicit(target: string, src = CLIENT6, hops = 255): Uint8Array {
  const message = new Uint8Array(src === '::' ? 24 : 32);
  const at = parseIpv6(target)!;
  writeNeighborSolicitation(message, 0, at, 0, src === '::' ? null : CLIENT_MAC, 0);
  const low = [...at.slice(13)].map((byte) => byte.toString(16).padStart(2, '0'));
  return icmp6(src, `ff02::1:ff${low[0]}:${low[1]}${low[2]}`, message, hops);
}

function dhcp6(type: number, ...options: (readonly [number, readonly number[]])[]): Uint8Array {
  const list = options.flatMap(([code, value]) => [
    code >> 8,
    code & 255,
    value.length >> 8,
    value.length & 255,
    ...value,
  ]);
  const message = new Uint8Array(4 + list.length);
  putU32be(message, 0, (type << 24) | 0x123456);
  message.set(list, 4);
  return udp('fe80::5054:ff:fe12:3456', 546, 'ff02::1:2', 547, message);
}

/** The same questions to a network with restrict=on. */
export const RESTRICTED = [
  'ARP: the gateway',
  'DHCP: discover',
  'ICMP: echo of the gateway',
  'UDP: echo by the host',
  'DNS: a name',
  'TFTP: a file by its path',
  'TCP: a closed port',
  'TCP: handshake with all options',
  'guestfwd: a command answers',
  'IPv6: who has the gateway',
  'IPv6: echo of the gateway',
  'DHCPv6: information request',
] as const;
