/** A name server for tests, over UDP and TCP on one address: A, AAAA and TXT of a few names, and an answer too long for a datagram. */

import { createSocket, type Socket } from 'node:dgram';
import { createServer, type Server } from 'node:net';

const A = 1;
const TXT = 16;
const AAAA = 28;
const ANY_CLASS_IN = 1;
const TRUNCATED = 0x0200;
const ANSWER = 0x8180;
const NAME_ERROR = 3;

export const ANSWER_V4 = '192.0.2.77';
export const ANSWER_V6 = '2001:db8::77';
export const LONG_STRINGS = 12;

export class DnsServer {
  udpQueries = 0;
  tcpQueries = 0;
  address = '';
  readonly #udp: Socket;
  readonly #tcp: Server;

  constructor() {
    this.#udp = createSocket('udp4', (message, { address, port }) => {
      this.udpQueries++;
      this.#udp.send(answer(message, 512), port, address);
    });
    this.#tcp = createServer((socket) => {
      let got = Buffer.alloc(0);
      socket.on('error', () => {});
      socket.on('data', (chunk: Buffer) => {
        got = Buffer.concat([got, chunk]);
        while (got.length >= 2 && got.length >= 2 + got.readUInt16BE(0)) {
          const length = got.readUInt16BE(0);
          const reply = answer(got.subarray(2, 2 + length), 65_535);
          got = got.subarray(2 + length);
          this.tcpQueries++;
          const prefix = Buffer.alloc(2);
          prefix.writeUInt16BE(reply.length);
          socket.write(Buffer.concat([prefix, reply]));
        }
      });
    });
  }

  async listen(address: string, port: number): Promise<void> {
    this.address = address;
    await new Promise<void>((resolve) => this.#udp.bind(port, address, resolve));
    await new Promise<void>((resolve) => this.#tcp.listen(port, address, resolve));
  }

  close(): void {
    this.#udp.close();
    this.#tcp.close();
  }
}

function answer(query: Buffer, maxBytes: number): Buffer {
  let at = 12;
  const labels: string[] = [];
  while (query[at] !== 0) {
    labels.push(query.toString('latin1', at + 1, at + 1 + query[at]!));
    at += query[at]! + 1;
  }
  const type = query.readUInt16BE(at + 1);
  const question = query.subarray(12, at + 5);
  const data = records(labels.join('.').toLowerCase(), type);
  const build = (items: readonly Buffer[], flags: number): Buffer => {
    const head = Buffer.alloc(12);
    query.copy(head, 0, 0, 2);
    head.writeUInt16BE(flags, 2);
    head.writeUInt16BE(1, 4);
    head.writeUInt16BE(items.length, 6);
    return Buffer.concat([head, question, ...items.map((item) => record(type, item))]);
  };
  if (data === null) return build([], ANSWER | NAME_ERROR);
  const whole = build(data, ANSWER);
  return whole.length <= maxBytes ? whole : build([], ANSWER | TRUNCATED);
}

function record(type: number, data: Buffer): Buffer {
  const head = Buffer.alloc(12);
  // The question's name, by pointer.
  head.writeUInt16BE(0xc00c, 0);
  head.writeUInt16BE(type, 2);
  head.writeUInt16BE(ANY_CLASS_IN, 4);
  head.writeUInt32BE(60, 6);
  head.writeUInt16BE(data.length, 10);
  return Buffer.concat([head, data]);
}

/** Null: there is no such name. */
function records(name: string, type: number): Buffer[] | null {
  if (name === 'long.test') {
    if (type !== TXT) return [];
    const text = Buffer.alloc(201, 'x');
    text[0] = 200;
    return Array.from({ length: LONG_STRINGS }, () => text);
  }
  if (name !== 'name.test') return null;
  if (type === A) return [Buffer.from(ANSWER_V4.split('.').map(Number))];
  if (type === AAAA) return [Buffer.from('20010db8000000000000000000000077', 'hex')];
  return [];
}
