/**
 * The forwarding rules of the `user` netdev.
 *
 *   hostfwd   [tcp|udp]:[hostaddr]:hostport-[guestaddr]:guestport      host ─▶ guest
 *             unix:/path-[guestaddr]:guestport
 *             either with /proxy1 or /proxy2 behind the last port: the guest is told who connected, by the PROXY protocol
 *   guestfwd  [tcp]:server:port-chardev | -cmd:command                guest ─▶ chardev or process
 *
 * The same rule parser serves the command line, netdev_add and `hostfwd_add` at run time. Ports are strict
 * decimals and the rule must end where its last port ends.
 */
import { OptionError } from '../../core/errors.ts';
import { type IpAddress, type Ipv4, ipv4, parseIp, parseIpv4, parseIpv6, parsePort } from '../address.ts';
import { type ChardevReference, parseChardevReference } from '../chardevs.ts';

export interface HostForward {
  readonly proto: 'tcp' | 'udp' | 'unix';
  /** Where to listen; undefined for unix. */
  readonly hostAddress: IpAddress | undefined;
  /** 0: the system chooses. 0 for unix as well. */
  readonly hostPort: number;
  readonly unixPath: string | undefined;
  readonly guestAddress: IpAddress;
  readonly guestPort: number;
  /** The version of the PROXY protocol in which the guest is told who connected; 0: it is not. */
  readonly proxyVersion: 0 | 1 | 2;
  /** The rule as the user wrote it, which names it in messages and when it is removed. */
  readonly text: string;
}

export interface GuestForward {
  readonly server: Ipv4;
  readonly port: number;
  readonly target: { readonly kind: 'command'; readonly command: string } | ChardevReference;
  readonly text: string;
}

/** What a rule's empty places stand for. */
export interface ForwardDefaults {
  readonly defaultHost: IpAddress;
  /** The first leased address; undefined when the network has no IPv4. */
  readonly guest4: Ipv4 | undefined;
  /** Whether the network has IPv6. A guest chooses its own address there, so a rule has to name it. */
  readonly guest6: boolean;
}

/** Longest path that fits `sockaddr_un` with its terminating zero. */
const UNIX_PATH_MAX_BYTES = 107;

export function parseHostForwards(rules: readonly string[], defaults: ForwardDefaults): HostForward[] {
  const forwards: HostForward[] = [];
  for (const rule of rules) {
    const forward = parseHostForward(rule, defaults);
    if (forwards.some((other) => sameListener(forward, other))) throw hostForwardFailed(rule);
    forwards.push(forward);
  }
  return forwards;
}

/** Parses one rule. Throws `Invalid host forwarding rule 'R' (REASON)`. */
export function parseHostForward(rule: string, defaults: ForwardDefaults): HostForward {
  const invalid = (reason: string): OptionError =>
    new OptionError(`Invalid host forwarding rule '${rule}' (${reason})`, { option: 'hostfwd' });

  const protoEnd = rule.indexOf(':');
  if (protoEnd < 0) throw invalid('No : separators');
  const proto = rule.slice(0, protoEnd) || 'tcp';
  const rest = rule.slice(protoEnd + 1);
  if (proto === 'unix') {
    const path = unixPath(rest, invalid);
    const guest = guestEnd(rest.slice(path.length + 1), defaults, invalid);
    return { proto, hostAddress: undefined, hostPort: 0, unixPath: path, ...guest, text: rule };
  }
  if (proto !== 'tcp' && proto !== 'udp') throw invalid('Bad protocol name');

  const host = addressAndRest(rest, () => invalid('Missing : separator'));
  const hostAddress = host.address === '' ? defaults.defaultHost : address(host.address, host.bracketed);
  if (!hostAddress) throw invalid('Bad host address');
  const dash = host.rest.indexOf('-');
  if (dash < 0) throw invalid('Missing - separator');
  const hostPort = parsePort(host.rest.slice(0, dash));
  if (hostPort === undefined) throw invalid('Bad host port');
  const guest = guestEnd(host.rest.slice(dash + 1), defaults, invalid);
  if (proto === 'udp' && guest.proxyVersion !== 0) throw invalid('The PROXY protocol needs tcp or unix');
  return { proto, hostAddress, hostPort, unixPath: undefined, ...guest, text: rule };
}

/**
 * Parses what `hostfwd_remove` takes: `[tcp|udp]:[hostaddr]:hostport` or `unix:/path`, and returns the forwards it
 * names, or throws the same sentences as adding does.
 */
export function findHostForward<F extends HostForward>(
  rule: string,
  forwards: readonly F[],
  defaultHost: IpAddress,
): F | undefined {
  const wanted = parseHostForward(`${rule}-0.0.0.0:1`, {
    defaultHost,
    guest4: ipv4(0),
    guest6: false,
  });
  return forwards.find((forward) =>
    wanted.proto === 'unix'
      ? forward.unixPath === wanted.unixPath
      : forward.proto === wanted.proto &&
        forward.hostPort === wanted.hostPort &&
        forward.hostAddress?.text === wanted.hostAddress?.text,
  );
}

/** What is said when the host cannot listen where a rule asks it to. */
export function hostForwardFailed(rule: string): OptionError {
  return new OptionError(`Could not set up host forwarding rule '${rule}'`, { option: 'hostfwd' });
}

function sameListener(a: HostForward, b: HostForward): boolean {
  if (a.proto !== b.proto) return false;
  if (a.proto === 'unix') return a.unixPath === b.unixPath;
  return a.hostPort !== 0 && a.hostPort === b.hostPort && a.hostAddress!.text === b.hostAddress!.text;
}

function unixPath(rest: string, invalid: (reason: string) => OptionError): string {
  // The guest's end begins at the last dash: a path may hold dashes, an address and a port cannot.
  const dash = rest.lastIndexOf('-');
  if (dash < 0) throw invalid('Missing - separator');
  const path = rest.slice(0, dash);
  if (path === '') throw invalid('Missing unix socket path');
  if (!path.startsWith('/')) throw invalid('unix socket path must be absolute');
  if (path.length > UNIX_PATH_MAX_BYTES) throw invalid('Unix socket path is too long');
  return path;
}

function guestEnd(
  text: string,
  defaults: ForwardDefaults,
  invalid: (reason: string) => OptionError,
): Pick<HostForward, 'guestAddress' | 'guestPort' | 'proxyVersion'> {
  const guest = addressAndRest(text, () => invalid('Missing guest address'));
  const guestAddress = guest.address === '' ? defaults.guest4 : address(guest.address, guest.bracketed);
  if (!guestAddress && guest.address === '') throw invalid('Missing guest address');
  if (!guestAddress) throw invalid('Bad guest address');
  const familyIsOn = guestAddress.family === 4 ? defaults.guest4 !== undefined : defaults.guest6;
  if (!familyIsOn) throw invalid('Bad guest address');
  const [portText, suffix, ...more] = guest.rest.split('/');
  const guestPort = parsePort(portText!);
  if (!guestPort || more.length > 0) throw invalid('Bad guest port');
  if (suffix !== undefined && suffix !== 'proxy1' && suffix !== 'proxy2')
    throw invalid('Bad suffix, expected /proxy1 or /proxy2');
  const proxyVersion = suffix === undefined ? 0 : suffix === 'proxy1' ? 1 : 2;
  return { guestAddress, guestPort, proxyVersion };
}

/** Splits `address:rest`, where an IPv6 address stands in brackets. */
function addressAndRest(
  text: string,
  noSeparator: () => OptionError,
): { address: string; bracketed: boolean; rest: string } {
  const bracketed = /^\[([^\]]*)\]:/.exec(text);
  if (bracketed) return { address: bracketed[1]!, bracketed: true, rest: text.slice(bracketed[0].length) };
  const colon = text.indexOf(':');
  if (colon < 0) throw noSeparator();
  return { address: text.slice(0, colon), bracketed: false, rest: text.slice(colon + 1) };
}

function address(text: string, bracketed: boolean): IpAddress | undefined {
  return bracketed ? parseIpv6(text) : parseIpv4(text);
}

/** Parses guestfwd rules. `net` is the IPv4 network, which the servers must lie in. */
export function parseGuestForwards(
  rules: readonly string[],
  net: { net: Ipv4; mask: Ipv4; host: Ipv4; dns: Ipv4 } | undefined,
): GuestForward[] {
  const taken = new Set<string>();
  return rules.map((rule) => {
    const forward = parseGuestForward(rule, net?.net);
    const { server, port } = forward;
    const key = `${server.text}:${port}`;
    const foreign = !net || (server.value & net.mask.value) >>> 0 !== net.net.value;
    if (foreign || server.value === net.host.value || server.value === net.dns.value || taken.has(key)) {
      throw new OptionError(`Conflicting/invalid host:port in guest forwarding rule '${rule}'`, {
        option: 'guestfwd',
      });
    }
    taken.add(key);
    return forward;
  });
}

function parseGuestForward(rule: string, net: Ipv4 | undefined): GuestForward {
  const invalid = (): OptionError =>
    new OptionError(`Invalid guest forwarding rule '${rule}'`, { option: 'guestfwd' });
  const match = /^(tcp)?:([^:]*):([^-]*)-(.+)$/s.exec(rule);
  if (!match) throw invalid();
  // An empty server means the network's .4, as libslirp has it.
  const server = match[2] === '' && net ? ipv4((net.value | 4) >>> 0) : parseIp(match[2]!);
  const port = parsePort(match[3]!);
  if (server?.family !== 4 || !port) throw invalid();
  const target = match[4]!;
  if (target.startsWith('cmd:')) {
    const command = target.slice(4);
    if (command.trim() === '') throw invalid();
    return { server, port, target: { kind: 'command', command }, text: rule };
  }
  return { server, port, target: parseChardevReference(target), text: rule };
}
