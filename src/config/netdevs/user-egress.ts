/**
 * Rules on what a guest of the `user` netdev may reach, the first that matches deciding, and names the network itself knows.
 *
 *   egress   allow|deny:any|tcp|udp|icmp:all|addr[/len]|name|*.name[:port[-port]]      IPv6 addresses in brackets
 *   hosts    name:addr
 */
import { OptionError } from '../../core/errors.ts';
import { type IpAddress, parseHost, parseIp, parsePort } from '../address.ts';

export type EgressProtocol = 'any' | 'tcp' | 'udp' | 'icmp';

export interface EgressRule {
  readonly allow: boolean;
  readonly protocol: EgressProtocol;
  /** undefined: every address of both families, or those of `name`. */
  readonly address: IpAddress | undefined;
  /** A name in lower case without a trailing dot, or `*.` and one, which stands for every name below it. */
  readonly name: string | undefined;
  readonly prefixLength: number;
  /** Inclusive; 0 to 65535 when the rule names none. */
  readonly firstPort: number;
  readonly lastPort: number;
  readonly text: string;
}

export interface OwnName {
  /** In lower case, without a trailing dot. */
  readonly name: string;
  readonly address: IpAddress;
}

/** Throws `Invalid egress rule 'R' (REASON)`. */
export function parseEgressRule(text: string): EgressRule {
  const invalid = (reason: string): OptionError =>
    new OptionError(`Invalid egress rule '${text}' (${reason})`, { option: 'egress' });
  const match =
    /^(allow|deny):(any|tcp|udp|icmp):(all|\[[^\]]*\]|[^:/[\]]+)(?:\/(\d{1,3}))?(?::([^:]+))?$/.exec(text);
  if (match === null) throw invalid('expected allow|deny:any|tcp|udp|icmp:all|addr[/len]|name[:port[-port]]');
  const [, verdict, protocol, where, lengthText, ports] = match;
  const bracketed = where!.startsWith('[');
  const address = where === 'all' ? undefined : parseIp(bracketed ? where!.slice(1, -1) : where!);
  const name = where === 'all' || address !== undefined || bracketed ? undefined : ruleName(where!);
  if (
    where !== 'all' &&
    name === undefined &&
    (address === undefined || (address.family === 6) !== bracketed)
  )
    throw invalid('Bad address');
  if (address === undefined && lengthText !== undefined)
    throw invalid(`${where === 'all' ? 'all' : 'a name'} has no prefix length`);
  const longest = address?.family === 6 ? 128 : 32;
  const prefixLength = lengthText === undefined ? longest : Number(lengthText);
  if (prefixLength > longest) throw invalid('Bad prefix length');
  let firstPort = 0;
  let lastPort = 65535;
  if (ports !== undefined) {
    if (protocol === 'icmp') throw invalid('icmp has no ports');
    const [first, last, ...rest] = ports.split('-');
    const from = parsePort(first!);
    const to = last === undefined ? from : parsePort(last);
    if (from === undefined || to === undefined || rest.length > 0 || from > to) throw invalid('Bad port');
    firstPort = from;
    lastPort = to;
  }
  return {
    allow: verdict === 'allow',
    protocol: protocol as EgressProtocol,
    address,
    name,
    prefixLength: address === undefined ? 0 : prefixLength,
    firstPort,
    lastPort,
    text,
  };
}

/** A name, or `*.` and a name; undefined for what is none. */
function ruleName(text: string): string | undefined {
  const name = text.toLowerCase().replace(/\.$/, '');
  return parseHost(name.startsWith('*.') ? name.slice(2) : name)?.family === 0 ? name : undefined;
}

/** Throws `Invalid hosts entry 'E'`. */
export function parseOwnName(text: string): OwnName {
  const colon = text.indexOf(':');
  const name = text.slice(0, Math.max(0, colon)).toLowerCase().replace(/\.$/, '');
  const rest = text.slice(colon + 1);
  const address = parseIp(rest.startsWith('[') && rest.endsWith(']') ? rest.slice(1, -1) : rest);
  if (colon < 1 || address === undefined || parseHost(name)?.family !== 0) {
    throw new OptionError(`Invalid hosts entry '${text}' (expected name:address)`, { option: 'hosts' });
  }
  return { name, address };
}
