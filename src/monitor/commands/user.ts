/** What can be seen and changed of user networks while they run: flows and forwards. QEMU has these at the prompt only. */

import { UserBackend } from '../../backends/user/index.ts';
import type { IpAddress } from '../../config/address.ts';
import { findHostForward, parseHostForward } from '../../config/netdevs/user-forward.ts';
import { OptionError } from '../../core/errors.ts';
import type { Netdev, Network } from '../../network/network.ts';
import { type Command, command } from '../command.ts';
import { int, list, nothing, oneOf, str, struct } from '../shape.ts';

const netdev = {
  kind: 'string',
  defaultText: 'the only user network',
  doc: 'The id of the user netdev.',
} as const;
const rule = (doc: string) => ({ kind: 'string', required: true, doc }) as const;

const forwardInfo = struct('ForwardInfo', {
  rule: str,
  protocol: oneOf('ForwardProtocol', ['tcp', 'udp', 'unix']),
  listen: str,
  port: int,
  guest: str,
  guestPort: int,
  active: int,
  total: int,
});
const userNetworkInfo = struct('UserNetworkInfo', {
  netdev: str,
  flows: list(
    struct('FlowInfo', {
      protocol: oneOf('FlowProtocol', ['tcp', 'udp', 'icmp']),
      state: str,
      guest: str,
      guestPort: int,
      remote: str,
      remotePort: int,
      fromGuestBytes: int,
      toGuestBytes: int,
      kind: str,
    }),
  ),
  forwards: list(forwardInfo),
  neighbours: list(struct('NeighbourInfo', { address: str, mac: str })),
  egress: list(struct('EgressInfo', { rule: str, hits: int })),
  egressNames: int,
  egressUnlogged: int,
});

export const userCommands: readonly Command[] = [
  command({
    name: 'hostfwd-add',
    doc: 'Forwards a port or unix socket of the host to a guest; answers with what it listens on. QEMU has hostfwd_add at the prompt.',
    returns: forwardInfo,
    args: { netdev, rule: rule('As hostfwd= of --netdev user.') },
    run: (args, { monitor }) => {
      const { backend, config } = userNetwork(monitor.network, args.netdev);
      return backend.forwards.add(
        parseHostForward(args.rule, {
          defaultHost: config.hostfwdAddress,
          guest4: config.ipv4?.dhcpStart,
          guest6: config.ipv6 !== undefined,
        }),
      );
    },
  }),
  command({
    name: 'hostfwd-remove',
    doc: 'Ends a forward, and the connections that came this way.',
    returns: nothing,
    args: { netdev, rule: rule('The host end of the rule, such as tcp:127.0.0.1:2222.') },
    run: (args, { monitor }) => {
      const { backend, config } = userNetwork(monitor.network, args.netdev);
      checkHostEnd(args.rule, config.hostfwdAddress);
      const found = backend.forwards.remove(
        (forward) => findHostForward(args.rule, [forward], config.hostfwdAddress) !== undefined,
      );
      if (!found)
        throw new OptionError(`host forwarding rule for ${args.rule} not found`, { option: 'rule' });
    },
  }),
  command({
    name: 'query-usernet',
    doc: 'The flows, forwards and known guests of user networks.',
    returns: list(userNetworkInfo),
    args: { netdev: { ...netdev, defaultText: 'all user networks' } },
    run: (args, { monitor }) => {
      const wanted =
        args.netdev === undefined
          ? userNetworks(monitor.network)
          : [userNetwork(monitor.network, args.netdev).netdev];
      return wanted.map(({ id, backend }) => ({ netdev: id, ...(backend as UserBackend).info() }));
    },
  }),
];

/** Throws when a text is no host end of a rule at all. */
function checkHostEnd(rule: string, defaultHost: IpAddress): void {
  try {
    findHostForward(rule, [], defaultHost);
  } catch {
    throw new OptionError('invalid format', { option: 'rule' });
  }
}

/** Netdevs of type user. */
export function userNetworks(network: Network): Netdev[] {
  return [...network.netdevs.values()].filter(({ backend }) => backend instanceof UserBackend);
}

function userNetwork(
  network: Network,
  id: string | undefined,
): { netdev: Netdev; backend: UserBackend; config: Extract<Netdev['config'], { readonly type: 'user' }> } {
  const all = userNetworks(network);
  if (id !== undefined && !network.netdevs.has(id)) throw new OptionError(`unrecognized netdev id '${id}'`);
  const found = id === undefined ? all[0] : all.find((one) => one.id === id);
  if (found === undefined) throw new OptionError('not a user network');
  const { backend, config } = found;
  if (config.type !== 'user') throw new OptionError('not a user network');
  return { netdev: found, backend: backend as UserBackend, config };
}
