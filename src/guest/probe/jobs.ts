/**
 * What the probe was asked to do, once it has an address: jobs, which end (ping, get, put; tx after a second with `once`), and services,
 * which do not (echo, http). Each reports one line. A name is looked up first, IPv4 before IPv6, whichever there is a route for.
 */

import type { Host } from '../../config/address.ts';
import type { HttpUrl, ProbeConfig } from '../../config/guest.ts';
import { EchoServer } from './echo.ts';
import { type CreateHash, portableSha256 } from './hash.ts';
import { HttpExchange, type HttpOutcome } from './http/client.ts';
import { HttpServer } from './http/server.ts';
import { formatAddress, type IpAddress, ipv4Address } from './net/address.ts';
import type { IpHost } from './net/host.ts';
import { DNS_TYPE_A, DNS_TYPE_AAAA, type DnsOutcome, rcodeName } from './net/resolver.ts';
import { formatNs, type Reporter, type StepName } from './report.ts';
import { type ByteSource, patternSource } from './source.ts';
import { Generator } from './tx.ts';

const PING_TRIES = 3;
const TX_ONCE_NS = 1e9;

/** Something that runs and can be stopped without a word. */
export interface Job {
  close(): void;
}

export interface JobContext {
  readonly host: IpHost;
  readonly config: ProbeConfig;
  readonly createSha256: CreateHash | undefined;
  readonly openFile: ((path: string) => ByteSource) | undefined;
  readonly report: Reporter;
  /** The MAC of the gateway, when it is known. */
  readonly gatewayMac: Uint8Array | null;
  /** A job was begun, and will be `ended`, with what failed or null. */
  begun(): void;
  ended(failure: string | null): void;
}

export interface StartedJobs {
  readonly jobs: Job[];
  readonly http: HttpServer | null;
  readonly echo: EchoServer | null;
  readonly generator: Generator | null;
}

/** Starts all; everything they have to tell comes later. */
export function startJobs(context: JobContext): StartedJobs {
  const { config } = context;
  const jobs: Job[] = [];
  const echo = config.echoPort === undefined ? null : startEcho(context, config.echoPort);
  const http = config.httpPort === undefined ? null : startHttp(context, config.httpPort);
  if (echo !== null) jobs.push(echo);
  if (http !== null) jobs.push(http);
  for (const target of config.ping) pingJob(context, target);
  for (const url of config.get) jobs.push(exchangeJob(context, 'get', url, null));
  if (config.put !== undefined) {
    const source = openSource(context, config.put);
    if (source !== null) jobs.push(exchangeJob(context, 'put', config.put.url, source));
  }
  const rate = config.txFramesPerSecond;
  const generator = rate === undefined ? null : startTx(context, rate);
  if (generator !== null) jobs.push({ close: () => generator.stop() });
  return { jobs, http, echo, generator };
}

/** With `once` it runs for a second and is counted; else for as long as the guest. */
function startTx(context: JobContext, framesPerSecond: number): Generator {
  const { host, config } = context;
  const tx = new Generator(host, framesPerSecond, context.gatewayMac);
  tx.start();
  if (!config.once) return tx;
  const startNs = host.loop.clock.nowNs();
  context.begun();
  const timer = host.loop.timer(() => {
    if (!tx.running) return;
    tx.stop();
    const elapsedNs = host.loop.clock.nowNs() - startNs;
    const detail = `${tx.frames} frames of ${tx.frameBytes} bytes in ${formatNs(elapsedNs)}`;
    finish(context, 'tx', tx.frames > 0, detail, elapsedNs);
  });
  timer.armIn(TX_ONCE_NS);
  return tx;
}

function finish(context: JobContext, step: StepName, ok: boolean, detail: string, elapsedNs: number): void {
  context.report({ step, ok, detail, elapsedNs });
  context.ended(ok ? null : detail);
}

// Names.

type Found = { address: IpAddress } | { problem: string };

/** The address of a host as the user named it. `done` is called once, maybe at once. */
function findHost(host: IpHost, target: Host, done: (found: Found) => void): void {
  if (target.family !== 0) {
    done({ address: target.family === 4 ? ipv4Address(target.value) : target.bytes });
    return;
  }
  const name = target.text;
  // IPv6 first only where there is nothing else to send from.
  const types = host.ipv4.ready ? [DNS_TYPE_A, DNS_TYPE_AAAA] : [DNS_TYPE_AAAA, DNS_TYPE_A];
  host.resolver.resolve(name, types[0], (first) => {
    const found = usable(host, first);
    if (found !== null || first.kind !== 'answer') {
      done(found !== null ? { address: found } : { problem: dnsProblem(name, first) });
      return;
    }
    host.resolver.resolve(name, types[1], (second) => {
      const other = usable(host, second);
      done(other !== null ? { address: other } : { problem: dnsProblem(name, second) });
    });
  });
}

/** The first address there is a way to. */
function usable(host: IpHost, outcome: DnsOutcome): IpAddress | null {
  if (outcome.kind !== 'answer') return null;
  for (const address of outcome.addresses) {
    if (host.layer(address.length === 4 ? 4 : 6).sourceFor(address) !== null) return address;
  }
  return null;
}

function dnsProblem(name: string, outcome: DnsOutcome): string {
  switch (outcome.kind) {
    case 'answer':
      return `${name} has no address that can be reached`;
    case 'error':
      return `${name} cannot be looked up: ${rcodeName(outcome.rcode)} from ${formatAddress(outcome.server)}`;
    case 'refused':
      return `${name} cannot be looked up: no resolver listens`;
    case 'no-server':
      return `${name} cannot be looked up: no DNS server is known`;
    case 'bad-name':
      return `${name} is no domain name`;
    default:
      return `${name} cannot be looked up: the DNS server does not answer`;
  }
}

// Jobs.

function pingJob(context: JobContext, target: Host): void {
  const { host } = context;
  const startNs = host.loop.clock.nowNs();
  context.begun();
  const tell = (ok: boolean, detail: string): void =>
    finish(context, 'ping', ok, detail, host.loop.clock.nowNs() - startNs);
  findHost(host, target, (found) => {
    if ('problem' in found) {
      tell(false, `ping ${target.text}: ${found.problem}`);
      return;
    }
    const address = formatAddress(found.address);
    const name = target.family === 0 ? `${target.text} (${address})` : address;
    host.ping.ping(found.address, PING_TRIES, ({ rttNs, problem }) => {
      if (problem === '') tell(true, `ping ${name}: ${formatNs(rttNs)}`);
      else tell(false, `ping ${name}: ${problem === 'timeout' ? 'no answer' : 'host unreachable'}`);
    });
  });
}

function openSource(context: JobContext, put: NonNullable<ProbeConfig['put']>): ByteSource | null {
  if (!('file' in put.source)) return patternSource(put.source.sizeBytes);
  const { file } = put.source;
  let why = 'there are no files here';
  try {
    const source = context.openFile?.(file);
    if (source !== undefined) return source;
  } catch (error) {
    why = error instanceof Error ? error.message : String(error);
  }
  context.begun();
  finish(context, 'put', false, `PUT ${put.url.text}: ${file} cannot be read: ${why}`, 0);
  return null;
}

/** One URL, `parallel` times at once. The line tells them together; where they differ, each kind with its count. */
function exchangeJob(context: JobContext, step: 'get' | 'put', url: HttpUrl, source: ByteSource | null): Job {
  const { host, config } = context;
  const { loop } = host;
  const startNs = loop.clock.nowNs();
  const exchanges: HttpExchange[] = [];
  const outcomes: HttpOutcome[] = [];
  const method = step === 'get' ? 'GET' : 'PUT';
  const count = config.parallel;
  let closed = false;
  context.begun();

  const conclude = (ok: boolean, detail: string): void => {
    source?.close();
    const times = count === 1 ? '' : ` x${count}`;
    finish(context, step, ok, `${method} ${url.text}${times}: ${detail}`, loop.clock.nowNs() - startNs);
  };
  const ended = (outcome: HttpOutcome): void => {
    outcomes.push(outcome);
    if (outcomes.length === count && !closed)
      conclude(...summary(outcomes, step === 'get' ? config.expectSha256 : undefined));
  };
  findHost(host, url.host, (found) => {
    if (closed) return;
    if ('problem' in found) {
      conclude(false, found.problem);
      return;
    }
    const authority =
      (url.host.family === 6 ? `[${url.host.text}]` : url.host.text) +
      (url.port === 80 ? '' : `:${url.port}`);
    const { address } = found;
    for (let i = 0; i < count; i++) {
      const request = { method, address, port: url.port, authority, path: url.path, source } as const;
      const createHash = context.createSha256 ?? portableSha256;
      exchanges.push(new HttpExchange(host.tcp, loop, request, createHash, config.timeoutNs, ended));
    }
    for (const exchange of exchanges) exchange.start();
  });
  return {
    close() {
      closed = true;
      for (const exchange of exchanges) exchange.close();
    },
  };
}

/** Whether all went well, and the line that says what came of them; the step's time goes with it. */
function summary(outcomes: readonly HttpOutcome[], expected: string | undefined): [boolean, string] {
  const kinds = new Map<string, number>();
  let ok = true;
  for (const outcome of outcomes) {
    const [good, kind] = describe(outcome, expected);
    ok &&= good;
    kinds.set(kind, (kinds.get(kind) ?? 0) + 1);
  }
  if (outcomes.length === 1) return [ok, [...kinds.keys()][0]];
  return [ok, [...kinds].map(([kind, times]) => `${times} times ${kind}`).join('; ')];
}

function describe(outcome: HttpOutcome, expected: string | undefined): [boolean, string] {
  if (outcome.problem !== '') return [false, outcome.problem];
  const status = outcome.reason === '' ? String(outcome.status) : `${outcome.status} ${outcome.reason}`;
  const text = `${status}, ${outcome.bytes} bytes, sha256 ${outcome.sha256}`;
  if (expected !== undefined && outcome.sha256 !== expected)
    return [false, `${text}, but ${expected} was expected`];
  return [outcome.status >= 200 && outcome.status < 300, text];
}

// Services.

function startEcho(context: JobContext, port: number): EchoServer | null {
  const echo = new EchoServer(context.host, port);
  return service(context, 'echo', port, echo.listen()) ? echo : null;
}

function startHttp(context: JobContext, port: number): HttpServer | null {
  const server = new HttpServer(context.host.loop, context.createSha256 ?? portableSha256);
  return service(context, 'http', port, server.listen(context.host.tcp, port)) ? server : null;
}

function service(context: JobContext, step: 'echo' | 'http', port: number, listening: boolean): boolean {
  const detail = listening ? `${step} service on port ${port}` : `${step} service: port ${port} is taken`;
  context.report({ step, ok: listening, detail, elapsedNs: 0 });
  if (!listening) {
    context.begun();
    context.ended(detail);
  }
  return listening;
}
