/**
 * `l2tpv3`: a static Ethernet pseudowire (RFC 3931), over UDP or straight over IP protocol 115.
 *
 * Two of QEMU's slips are not repeated: `cookie64=off` means 32-bit cookies, and `pincounter` alone still sends the
 * counter.
 */
import { OptionError } from '../../core/errors.ts';
import { type Host, parseHost, parsePort } from '../address.ts';
import { defineOptions, type OptionsOf } from '../schema.ts';
import { defineNetdev } from './definition.ts';

const options = defineOptions({
  src: { kind: 'string', metavar: 'host', required: true, doc: 'The local address of the tunnel.' },
  dst: { kind: 'string', metavar: 'host', required: true, doc: 'The remote address of the tunnel.' },
  srcport: { kind: 'string', metavar: 'port', doc: 'The local UDP port; needed with udp=on.' },
  dstport: { kind: 'string', metavar: 'port', doc: 'The remote UDP port; needed with udp=on.' },
  ipv6: { kind: 'bool', default: false, doc: 'The tunnel runs over IPv6.' },
  udp: {
    kind: 'bool',
    default: false,
    doc: 'Run over UDP instead of IP protocol 115, which needs CAP_NET_RAW.',
  },
  cookie64: { kind: 'bool', default: false, doc: 'Cookies have 64 bits instead of 32.' },
  counter: { kind: 'bool', default: false, doc: 'Each packet carries a sequence counter.' },
  pincounter: {
    kind: 'bool',
    default: false,
    doc: 'The counter stays zero, for peers that must have one on lossy links. Implies counter.',
  },
  txcookie: { kind: 'uint64', doc: 'The cookie to send. Goes with rxcookie.' },
  rxcookie: { kind: 'uint64', doc: 'The cookie to expect. Goes with txcookie.' },
  txsession: { kind: 'uint', bits: 32, required: true, doc: 'The session to send to.' },
  rxsession: { kind: 'uint', bits: 32, defaultText: 'txsession', doc: 'The session to accept.' },
  offset: {
    kind: 'uint',
    bits: 32,
    default: 0,
    doc: 'Bytes to leave between the header and the frame, less than 256.',
  },
});

export interface L2tpv3Config {
  readonly src: Host;
  readonly dst: Host;
  readonly family: 4 | 6;
  /** undefined: raw IP, protocol 115. */
  readonly udp: { readonly srcPort: number; readonly dstPort: number } | undefined;
  readonly cookie: { readonly tx: bigint; readonly rx: bigint; readonly bits: 32 | 64 } | undefined;
  readonly counter: 'none' | 'counting' | 'pinned';
  readonly txSession: number;
  readonly rxSession: number;
  readonly offsetBytes: number;
}

export const l2tpv3 = defineNetdev({
  type: 'l2tpv3',
  summary: 'an L2TPv3 Ethernet tunnel',
  options,
  resolve: (o): L2tpv3Config => {
    const family = o.ipv6 ? 6 : 4;
    if (o.offset > 255) throw new OptionError('offset must be less than 256 bytes', { option: 'offset' });
    const cookie = cookies(o);
    if (o.udp && (o.srcport === undefined || o.dstport === undefined)) {
      throw new OptionError('need both src and dst port for udp', { option: 'udp' });
    }
    if (!o.udp && (o.srcport ?? o.dstport) !== undefined) {
      throw new OptionError('srcport= and dstport= are only valid with udp=on', { option: 'srcport' });
    }
    return {
      src: tunnelEnd('src', o.src, family),
      dst: tunnelEnd('dst', o.dst, family),
      family,
      udp: o.udp ? { srcPort: port('srcport', o.srcport!), dstPort: port('dstport', o.dstport!) } : undefined,
      cookie,
      counter: o.pincounter ? 'pinned' : o.counter ? 'counting' : 'none',
      txSession: o.txsession,
      rxSession: o.rxsession ?? o.txsession,
      offsetBytes: o.offset,
    };
  },
});

function cookies(o: OptionsOf<typeof options>): L2tpv3Config['cookie'] {
  const { txcookie: tx, rxcookie: rx } = o;
  if (tx === undefined && rx === undefined) {
    if (o.cookie64)
      throw new OptionError("cookie64=on needs 'rxcookie' and 'txcookie'", { option: 'cookie64' });
    return undefined;
  }
  if (tx === undefined || rx === undefined) {
    throw new OptionError("require both 'rxcookie' and 'txcookie' or neither", { option: 'txcookie' });
  }
  if (!o.cookie64 && (tx >> 32n || rx >> 32n)) {
    throw new OptionError('a cookie of more than 32 bits needs cookie64=on', { option: 'cookie64' });
  }
  return { tx, rx, bits: o.cookie64 ? 64 : 32 };
}

function tunnelEnd(option: 'src' | 'dst', text: string, family: 4 | 6): Host {
  const host = parseHost(text);
  if (!host || (host.family !== 0 && host.family !== family)) {
    throw new OptionError(`could not resolve ${option}, '${text}' is not an IPv${family} address`, {
      option,
    });
  }
  return host;
}

function port(option: string, text: string): number {
  const number = parsePort(text);
  if (!number) throw new OptionError(`port number '${text}' is invalid`, { option });
  return number;
}
