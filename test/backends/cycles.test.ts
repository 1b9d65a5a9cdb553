/** Each backend that needs no privilege, made and taken away 1,000 times: no descriptor, no memory and no socket file is left. */

import { afterEach, beforeEach, describe, it } from 'vitest';
import type { Backend } from '../../src/backends/backend.ts';
import { thousandCycles } from './cycles.ts';
import { BackendLab, freePorts } from './lab.ts';

const LOCAL = '127.0.0.1';
const inet = (port: number, host = LOCAL) => ({ type: 'inet', host, port: String(port) });

const KINDS: Readonly<Record<string, (lab: BackendLab, ports: number[]) => Promise<Backend>[]>> = {
  'dgram, inet': (lab, [a, b]) => [lab.open('dgram', { local: inet(a!), remote: inet(b!) })],
  'dgram, unix': (lab) => [
    lab.open('dgram', {
      local: { type: 'unix', path: lab.path('u') },
      remote: { type: 'unix', path: lab.path('v') },
    }),
  ],
  'dgram, multicast': (lab, [a]) => [lab.open('dgram', { local: inet(0), remote: inet(a!, '230.0.0.9') })],
  'socket, udp': (lab, [a, b]) => [lab.open('socket', { udp: `${LOCAL}:${b}`, localaddr: `${LOCAL}:${a}` })],
  'socket, mcast': (lab, [a]) => [lab.open('socket', { mcast: `230.0.0.9:${a}`, localaddr: LOCAL })],
  'socket, listen and connect': (lab, [a]) => [
    lab.open('socket', { listen: `${LOCAL}:${a}` }),
    lab.open('socket', { connect: `${LOCAL}:${a}` }),
  ],
  'stream, unix, both ends': (lab) => {
    const addr = { type: 'unix', path: lab.path('s') };
    return [lab.open('stream', { server: true, addr }), lab.open('stream', { addr, 'reconnect-ms': 20 })];
  },
  'l2tpv3, udp': (lab, [a]) => [
    lab.open('l2tpv3', { src: LOCAL, dst: LOCAL, udp: true, srcport: String(a), dstport: '9', txsession: 1 }),
  ],
  websocket: (lab, [a]) => [lab.open('websocket', { listen: `${LOCAL}:${a}` })],
};

describe('1,000 times made and taken away', () => {
  let lab: BackendLab;

  beforeEach(() => {
    lab = new BackendLab();
  });

  afterEach(() => lab.end());

  it.each(Object.keys(KINDS))('%s', async (name) => {
    const ports = freePorts(lab, 2);
    await thousandCycles(lab, async () => {
      const backends: Backend[] = [];
      for (const opening of KINDS[name]!(lab, ports)) backends.push(await opening);
      return backends;
    });
  });
});
