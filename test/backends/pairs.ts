/** Two netdevs joined by each kind of backend: what the suites of this folder run over. */

import type { Backend } from '../../src/backends/backend.ts';
import { type BackendLab, freePorts } from './lab.ts';

export interface Pair {
  readonly name: string;
  /** The second stands for the far end. */
  open(lab: BackendLab): Promise<[Backend, Backend]>;
  /** The longest frame that passes. */
  readonly frameMaxBytes: number;
  /** It works by the event loop, not by host I/O: nothing arrives within one turn. */
  readonly needsTurns?: boolean;
}

const UDP_MAX = 65_507;
const STREAM_MAX = 69_632;

const v4 = (port: number) => ({ type: 'inet', host: '127.0.0.1', port: String(port) });

export const PAIRS: readonly Pair[] = [
  {
    name: 'dgram, inet',
    frameMaxBytes: UDP_MAX,
    async open(lab) {
      const [a, b] = freePorts(lab, 2) as [number, number];
      return [
        await lab.open('dgram', { local: v4(a), remote: v4(b) }),
        await lab.open('dgram', { local: v4(b), remote: v4(a) }),
      ];
    },
  },
  {
    name: 'dgram, inet (IPv6)',
    frameMaxBytes: UDP_MAX,
    async open(lab) {
      const [a, b] = freePorts(lab, 2) as [number, number];
      const v6 = (port: number) => ({ type: 'inet', host: '::1', port: String(port) });
      return [
        await lab.open('dgram', { local: v6(a), remote: v6(b) }),
        await lab.open('dgram', { local: v6(b), remote: v6(a) }),
      ];
    },
  },
  {
    name: 'dgram, unix',
    frameMaxBytes: STREAM_MAX,
    async open(lab) {
      const a = { type: 'unix', path: lab.path('a') };
      const b = { type: 'unix', path: lab.path('b') };
      return [
        await lab.open('dgram', { local: a, remote: b }),
        await lab.open('dgram', { local: b, remote: a }),
      ];
    },
  },
  {
    name: 'dgram, mcast',
    frameMaxBytes: UDP_MAX,
    async open(lab) {
      const [port] = freePorts(lab, 1) as [number];
      const options = { remote: { type: 'inet', host: '230.0.0.1', port: String(port) }, local: v4(0) };
      return [await lab.open('dgram', options), await lab.open('dgram', options)];
    },
  },
  {
    name: 'socket, udp',
    frameMaxBytes: UDP_MAX,
    async open(lab) {
      const [a, b] = freePorts(lab, 2) as [number, number];
      return [
        await lab.open('socket', { udp: `127.0.0.1:${b}`, localaddr: `127.0.0.1:${a}` }),
        await lab.open('socket', { udp: `127.0.0.1:${a}`, localaddr: `127.0.0.1:${b}` }),
      ];
    },
  },
  {
    name: 'socket, mcast',
    frameMaxBytes: UDP_MAX,
    async open(lab) {
      const [port] = freePorts(lab, 1) as [number];
      const options = { mcast: `230.0.0.2:${port}`, localaddr: '127.0.0.1' };
      return [await lab.open('socket', options), await lab.open('socket', options)];
    },
  },
  {
    name: 'socket, listen and connect',
    frameMaxBytes: STREAM_MAX,
    async open(lab) {
      const [port] = freePorts(lab, 1) as [number];
      const server = await lab.open('socket', { listen: `127.0.0.1:${port}` });
      const client = await lab.open('socket', { connect: `127.0.0.1:${port}` });
      return [client, server];
    },
  },
  {
    name: 'stream, inet',
    frameMaxBytes: STREAM_MAX,
    async open(lab) {
      const [port] = freePorts(lab, 1) as [number];
      const server = await lab.open('stream', { server: true, addr: { ...v4(port), 'keep-alive': true } });
      const client = await lab.open('stream', { addr: v4(port) });
      return [server, client];
    },
  },
  {
    name: 'stream, unix',
    frameMaxBytes: STREAM_MAX,
    async open(lab) {
      const addr = { type: 'unix', path: lab.path('s') };
      const server = await lab.open('stream', { server: true, addr });
      const client = await lab.open('stream', { addr });
      return [client, server];
    },
  },
  {
    name: 'websocket, listen and url',
    frameMaxBytes: STREAM_MAX,
    needsTurns: true,
    async open(lab) {
      const [port] = freePorts(lab, 1) as [number];
      const server = await lab.open('websocket', { listen: `127.0.0.1:${port}` });
      const client = await lab.open('websocket', { url: `ws://127.0.0.1:${port}/` });
      return [server, client];
    },
  },
  tunnel('l2tpv3, udp', {}),
  tunnel('l2tpv3, udp (IPv6), 64-bit cookies, counter, offset', {
    ipv6: true,
    cookie64: true,
    txcookie: 0x0123456789abcdefn,
    rxcookie: 0xfedcba9876543210n,
    counter: true,
    offset: 255,
  }),
  tunnel('l2tpv3, udp, 32-bit cookies, pinned counter', {
    txcookie: 0x89abcdef,
    rxcookie: 0xfedcba98,
    pincounter: true,
    rxsession: 7,
  }),
];

interface Tunnel {
  ipv6?: boolean;
  cookie64?: boolean;
  txcookie?: number | bigint;
  rxcookie?: number | bigint;
  rxsession?: number;
  counter?: boolean;
  pincounter?: boolean;
  offset?: number;
}

/** `options` are the first end's; the second has sessions and cookies the other way round. */
function tunnel(name: string, options: Tunnel): Pair {
  return {
    name,
    frameMaxBytes: 65_000,
    async open(lab) {
      const [a, b] = freePorts(lab, 2) as [number, number];
      const address = options.ipv6 === true ? '::1' : '127.0.0.1';
      const { txcookie, rxcookie, rxsession } = options;
      const mirrored = {
        ...(txcookie === undefined ? {} : { txcookie: rxcookie, rxcookie: txcookie }),
        ...(rxsession === undefined ? {} : { txsession: rxsession, rxsession: 0xffffffff }),
      };
      const common = { src: address, dst: address, udp: true, txsession: 0xffffffff, ...options };
      return [
        await lab.open('l2tpv3', { ...common, srcport: String(a), dstport: String(b) }),
        await lab.open('l2tpv3', { ...common, ...mirrored, srcport: String(b), dstport: String(a) }),
      ];
    },
  };
}
