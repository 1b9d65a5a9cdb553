/**
 * The host that both user networks of user-libslirp.test.ts have: servers on a loopback of its own (run in a network namespace with nothing else), at fixed
 * ports. Says 'ready' when they listen; ends with its standard input.
 */

import { createSocket } from 'node:dgram';
import { createServer, type Server, type Socket } from 'node:net';
import { DnsServer } from './dns-server.ts';

export const RESOLVER = '127.0.0.53';

/** Port by port. */
export const HOST = {
  /** Sends back what it gets, says goodbye when the client has ended, and ends. IPv6 too. */
  echo: 7001,
  /** Sends a line and ends at once. */
  greeting: 7002,
  /** Resets what sends to it. */
  resets: 7003,
  udpEcho: 7004,
  /** Nobody listens, TCP and UDP. */
  closed: 7005,
} as const;

async function serve(port: number, address: string, onConnection: (socket: Socket) => void): Promise<Server> {
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    socket.on('error', () => {});
    onConnection(socket);
  });
  await new Promise<void>((resolve) => server.listen(port, address, resolve));
  return server;
}

async function main(): Promise<void> {
  const echo = (socket: Socket): void => {
    socket.on('data', (data) => socket.write(data));
    socket.on('end', () => socket.end('goodbye'));
  };
  await serve(HOST.echo, '127.0.0.1', echo);
  await serve(HOST.echo, '::1', echo);
  await serve(HOST.greeting, '127.0.0.1', (socket) => socket.end('hello'));
  await serve(HOST.resets, '127.0.0.1', (socket) => socket.once('data', () => socket.resetAndDestroy()));
  const datagrams = createSocket('udp4', (data, { address, port }) => {
    const much = data.toString() === 'much please';
    datagrams.send(much ? Buffer.alloc(4000, 'y') : data, port, address);
  });
  await new Promise<void>((resolve) => datagrams.bind(HOST.udpEcho, '127.0.0.1', resolve));
  await new DnsServer().listen(RESOLVER, 53);
  process.stdin.on('end', () => process.exit(0));
  process.stdin.resume();
  console.log('ready');
}

if (process.argv[2] === 'serve') await main();
