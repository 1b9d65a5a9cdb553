/**
 * `--metrics`: a small HTTP server for this machine only.
 *
 *     GET /metrics       Prometheus text
 *     GET /network.json  the graph with all counters, and the flows of user networks
 *     GET /              a page that draws it, four times a second
 *
 * It only ever reads. A page from elsewhere in the same browser gets nothing: the Host header must name this machine (a name that an
 * attacker points at 127.0.0.1 does not), and a request that another origin makes is refused.
 */

import { lstatSync, unlinkSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { connect } from 'node:net';
import type { UserBackend } from '../../backends/user/index.ts';
import type { SocketAddress } from '../../config/socket-address.ts';
import { HostIoError, OptionError } from '../../core/errors.ts';
import { errnoOf, errnoText } from '../../host-io/errno.ts';
import { describeNetwork } from '../../network/describe.ts';
import type { Network } from '../../network/network.ts';
import { userNetworks } from '../commands/user.ts';
import { jsonText } from '../json-text.ts';
import { prometheusText } from '../prometheus.ts';
import { PAGE_HTML, PAGE_ICON, PAGE_SCRIPT, PAGE_STYLE } from './page.ts';

const MAX_CONNECTIONS = 32;
const TIMEOUT_MS = 10_000;
const MAX_FLOWS = 200;

export interface LiveServer {
  /** The TCP port it listens on; 0 for a unix socket. */
  readonly port: number;
  close(): void;
}

interface Answer {
  readonly type: string;
  readonly body: () => string;
}

/** Listens. Rejects with OptionError for an address that others can reach, or HostIoError. */
export async function serveLive(
  network: Network,
  address: SocketAddress,
  version: string,
): Promise<LiveServer> {
  if (address.type === 'fd') throw new OptionError('metrics are served on a TCP port or a unix socket');
  const host = address.type === 'inet' ? loopbackHost(address.host.text) : undefined;
  const answers: Readonly<Record<string, Answer>> = {
    '/': { type: 'text/html; charset=utf-8', body: () => PAGE_HTML },
    '/favicon.ico': { type: 'image/svg+xml', body: () => PAGE_ICON },
    '/page.js': { type: 'text/javascript; charset=utf-8', body: () => PAGE_SCRIPT },
    '/page.css': { type: 'text/css; charset=utf-8', body: () => PAGE_STYLE },
    '/network.json': { type: 'application/json', body: () => jsonText(liveState(network, version)) },
    '/metrics': {
      type: 'text/plain; version=0.0.4; charset=utf-8',
      body: () => prometheusText(network, version, processGauges()),
    },
  };
  const server = createServer(
    { headersTimeout: TIMEOUT_MS, requestTimeout: TIMEOUT_MS },
    (request, response) => answer(request, response, answers, address.type === 'unix'),
  );
  server.maxConnections = MAX_CONNECTIONS;
  if (address.type === 'unix') await listenUnix(server, address.path);
  else await listen(server, { host: host!, port: address.port }, `${host}:${address.port}`);
  const bound = server.address();
  return {
    port: bound !== null && typeof bound === 'object' ? bound.port : 0,
    close() {
      server.close();
      server.closeAllConnections();
    },
  };
}

function loopbackHost(text: string): string {
  if (text === 'localhost') return '127.0.0.1';
  if (text.startsWith('127.') || text === '::1') return text;
  throw new OptionError('metrics are served on a loopback address or a unix socket only', {
    option: 'metrics',
  });
}

function listen(
  server: Server,
  where: { path: string } | { host: string; port: number },
  what: string,
): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => {
      const code = error.code ?? 'EIO';
      reject(new HostIoError('listen', code, `listen on ${what}: ${errnoText(errnoOf(code))}`));
    });
    server.listen(where, resolve);
  });
}

/** A socket file for this user only; one that nobody serves any more is taken over. */
async function listenUnix(server: Server, path: string): Promise<void> {
  if (lstatSync(path, { throwIfNoEntry: false })?.isSocket() && (await isAbandoned(path))) unlinkSync(path);
  const before = process.umask(0o177);
  const listening = listen(server, { path }, path);
  process.umask(before);
  await listening;
}

function isAbandoned(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = connect(path);
    probe.once('connect', () => {
      probe.destroy();
      resolve(false);
    });
    probe.once('error', (error: NodeJS.ErrnoException) => resolve(error.code === 'ECONNREFUSED'));
  });
}

function answer(
  request: IncomingMessage,
  response: ServerResponse,
  answers: Readonly<Record<string, Answer>>,
  isUnix: boolean,
): void {
  const { method = '', url = '' } = request;
  const path = url.split('?')[0]!;
  response.setHeader('X-Content-Type-Options', 'nosniff');
  response.setHeader('Cache-Control', 'no-store');
  response.setHeader('Content-Security-Policy', "default-src 'self'; frame-ancestors 'none'");
  const found = Object.hasOwn(answers, path) ? answers[path] : undefined;
  if (!isOurs(request, isUnix)) refuse(response, 403, 'this server answers its own pages only');
  else if (method !== 'GET' && method !== 'HEAD') refuse(response, 405, 'this server only reads');
  else if (found === undefined) refuse(response, 404, 'there is no such page');
  else {
    response.setHeader('Content-Type', found.type);
    response.end(method === 'HEAD' ? '' : found.body());
  }
}

function refuse(response: ServerResponse, status: number, text: string): void {
  response.statusCode = status;
  response.setHeader('Content-Type', 'text/plain; charset=utf-8');
  response.end(`${text}\n`);
}

/** True when the Host header names this machine, and no other origin makes the request. */
function isOurs({ headers }: IncomingMessage, isUnix: boolean): boolean {
  const { host = '', origin } = headers;
  if (!isUnix && !/^(localhost|127(\.\d{1,3}){3}|\[::1\])(:\d{1,5})?$/.test(host)) return false;
  if (origin !== undefined && origin !== `http://${host}`) return false;
  const site = headers['sec-fetch-site'];
  return site === undefined || site === 'same-origin' || site === 'none';
}

function liveState(network: Network, version: string): object {
  return {
    version,
    timeNs: network.loop.clock.nowNs(),
    ...describeNetwork(network),
    usernets: userNetworks(network).map(({ id, backend }) => {
      const { flows, forwards } = (backend as UserBackend).info();
      return { netdev: id, flowCount: flows.length, flows: flows.slice(0, MAX_FLOWS), forwards };
    }),
  };
}

/** Without descriptors left, reading one's own memory use fails: then there is none to show. */
function processGauges(): Readonly<Record<string, number>> {
  try {
    return { residentMemoryBytes: process.memoryUsage.rss(), uptimeSeconds: process.uptime() };
  } catch {
    return { uptimeSeconds: process.uptime() };
  }
}
