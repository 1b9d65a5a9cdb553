/** `stream`: frames over one stream socket (TCP, unix or a passed descriptor), a 4-byte length before each. */
import { OptionError } from '../../core/errors.ts';
import { defineOptions } from '../schema.ts';
import { resolveSocketAddress, type SocketAddress, socketAddressBranches } from '../socket-address.ts';
import { defineNetdev } from './definition.ts';

export interface StreamConfig {
  readonly address: SocketAddress;
  readonly server: boolean;
  /** 0: never. */
  readonly reconnectMs: number;
}

export const stream = defineNetdev({
  type: 'stream',
  summary: 'another emulator, passt or gvproxy over a stream socket',
  options: defineOptions({
    addr: {
      kind: 'union',
      tag: 'type',
      branches: socketAddressBranches,
      required: true,
      doc: 'Where to connect, or with server=on where to listen.',
    },
    server: { kind: 'bool', default: false, doc: 'Listen for one peer instead of connecting.' },
    'reconnect-ms': {
      kind: 'uint',
      bits: 32,
      default: 0,
      doc: 'Connect again this many milliseconds after the connection is lost; 0 is never.',
    },
    reconnect: {
      kind: 'uint',
      bits: 32,
      legacy: 'use reconnect-ms=',
      doc: 'Connect again this many seconds after the connection is lost.',
    },
  }),
  resolve: (o): StreamConfig => {
    if (o.reconnect !== undefined && o['reconnect-ms'] !== 0) {
      throw new OptionError("'reconnect' and 'reconnect-ms' are mutually exclusive", { option: 'reconnect' });
    }
    const reconnectMs = o.reconnect === undefined ? o['reconnect-ms'] : o.reconnect * 1000;
    if (o.server && reconnectMs > 0) {
      throw new OptionError("'reconnect-ms' option is incompatible with socket in server mode", {
        option: 'reconnect-ms',
      });
    }
    const address = resolveSocketAddress(o.addr);
    if (!o.server && address.type === 'inet' && address.port === 0) {
      throw new OptionError("port number '0' is invalid", { option: 'addr.port' });
    }
    return { address, server: o.server, reconnectMs };
  },
});
