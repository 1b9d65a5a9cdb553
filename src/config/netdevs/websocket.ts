/**
 * `websocket`: one binary message a frame, as browser emulators speak it (v86's network relay). Listening, every
 * client is a port of an L2 switch; connecting, there is one peer.
 */
import { OptionError } from '../../core/errors.ts';
import type { Endpoint } from '../address.ts';
import { expects } from '../kinds.ts';
import { defineOptions } from '../schema.ts';
import { resolveHostPort } from '../socket-address.ts';
import { defineNetdev } from './definition.ts';

export type WebsocketConfig = {
  readonly maxPayloadBytes: number;
  readonly pingMs: number;
} & (
  | {
      readonly mode: 'listen';
      readonly endpoint: Endpoint;
      readonly origins: readonly string[];
      readonly maxClients: number;
    }
  | { readonly mode: 'connect'; readonly url: string; readonly reconnectMs: number }
);

export const websocket = defineNetdev({
  type: 'websocket',
  summary: 'browser emulators, one binary message a frame',
  beyond: true,

  options: defineOptions({
    listen: {
      kind: 'string',
      metavar: '[host]:port',
      doc: 'Serve clients here. Excludes url.',
    },
    url: { kind: 'string', metavar: 'ws://…', doc: 'Connect to this server. Excludes listen.' },
    origin: {
      kind: 'list',
      metavar: 'origin',
      doc: 'The web origins that may connect when listening, such as https://example.org; none given: every origin. Repeats.',
    },
    'max-clients': {
      kind: 'uint',
      bits: 16,
      default: 64,
      doc: 'How many clients may be connected at once when listening.',
    },
    'max-payload': {
      kind: 'size',
      default: 69632,
      doc: 'The largest message taken in bytes; a larger one closes the connection.',
    },
    'ping-ms': {
      kind: 'uint',
      bits: 32,
      default: 30000,
      doc: 'Ping a silent peer this often in milliseconds; 0 is never.',
    },
    'reconnect-ms': {
      kind: 'uint',
      bits: 32,
      default: 0,
      doc: 'With url, connect again this many milliseconds after the connection is lost; 0 is never.',
    },
  }),
  resolve: (o): WebsocketConfig => {
    if ((o.listen === undefined) === (o.url === undefined)) {
      throw new OptionError('exactly one of listen= or url= is required');
    }
    if (o['max-payload'] < 64 || o['max-payload'] > 69632)
      throw expects('max-payload', 'a size from 64 to 69632');
    const common = { maxPayloadBytes: o['max-payload'], pingMs: o['ping-ms'] };
    if (o.url !== undefined) {
      if (o.origin !== undefined)
        throw new OptionError('origin= is only valid with listen=', { option: 'origin' });
      if (!/^wss?:\/\/[^\s/?#]+([/?][^\s#]*)?$/.test(o.url)) throw expects('url', 'a ws:// or wss:// URL');
      return { ...common, mode: 'connect', url: o.url, reconnectMs: o['reconnect-ms'] };
    }
    if (o['reconnect-ms'] > 0) {
      throw new OptionError('reconnect-ms= is only valid with url=', { option: 'reconnect-ms' });
    }
    if (o['max-clients'] < 1) throw expects('max-clients', 'a number greater than zero');
    for (const origin of o.origin ?? []) {
      if (!/^[a-z][a-z0-9+.-]*:\/\/[^\s/?#]+$/.test(origin))
        throw expects('origin', 'an origin such as https://example.org');
    }
    return {
      ...common,
      mode: 'listen',
      endpoint: resolveHostPort(o.listen!, 'any'),
      origins: o.origin ?? [],
      maxClients: o['max-clients'],
    };
  },
});
