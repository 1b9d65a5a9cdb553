/** Commands on links: set_link, netdevs, receive filters, announcements, and the graph as one answer. */

import { addNetdevSchema } from '../../config/introspect.ts';
import { netdevCommonOptions, readNetdev } from '../../config/netdevs/index.ts';
import { OptionError } from '../../core/errors.ts';
import { announce } from '../../network/announce.ts';
import { describeNetwork } from '../../network/describe.ts';
import type { Network } from '../../network/network.ts';
import type { DriverComplaint } from '../../nic/driver-report.ts';
import type { RxFilterInfo } from '../../nic/rx-filter.ts';
import { type Command, command, listArgument, onlyMembers, rawCommand, readArguments } from '../command.ts';
import { addShape, any, bool, int, list, nothing, oneOf, optional, str, struct } from '../shape.ts';

const filterMode = oneOf('RxState', ['normal', 'none', 'all']);
const rxFilterInfo = struct('RxFilterInfo', {
  name: str,
  promiscuous: bool,
  multicast: filterMode,
  unicast: filterMode,
  vlan: filterMode,
  'broadcast-allowed': bool,
  'multicast-overflow': bool,
  'unicast-overflow': bool,
  'main-mac': str,
  'vlan-table': list(int),
  'unicast-table': list(str),
  'multicast-table': list(str),
});
const counters = any;
const portInfo = struct('LinkEndInfo', {
  peer: optional(str),
  'link-up': bool,
  'own-link-up': bool,
  blocked: bool,
  counters,
});
const networkInfo = struct('NetworkInfo', {
  running: bool,
  nics: list(
    struct('NetworkNicInfo', {
      id: str,
      model: str,
      mac: str,
      netdev: optional(str),
      queues: list(portInfo),
      counters,
    }),
  ),
  netdevs: list(
    struct('NetworkNetdevInfo', {
      id: str,
      type: str,
      info: str,
      hub: optional(int),
      queues: list(portInfo),
      filters: list(struct('NetworkFilterInfo', { id: str, type: str, active: bool, counters })),
      waiting: optional(int),
      counters,
    }),
  ),
  hubs: list(struct('NetworkHubInfo', { id: int, policy: str, ports: list(str) })),
  objects: list(struct('NetworkObjectInfo', { id: str, type: str, counters })),
  chardevs: list(struct('NetworkChardevInfo', { id: str, type: str, info: str, connected: bool, counters })),
  pool: struct('NetworkPoolInfo', { capacity: int, free: int, exhausted: int }),
});
const driverComplaint = struct('DriverComplaint', {
  rule: str,
  register: str,
  section: str,
  message: str,
  count: int,
  'first-value': int,
});

export const netCommands: readonly Command[] = [
  command({
    name: 'set_link',
    doc: 'Takes the link of a NIC or a netdev down, or up again; both ends see it.',
    returns: nothing,
    args: {
      name: { kind: 'string', required: true, doc: 'The id of the NIC or the netdev.' },
      up: { kind: 'bool', required: true, doc: 'Whether frames pass.' },
    },
    run: ({ name, up }, { monitor }) => monitor.network.setLink(name, up),
  }),
  rawCommand({
    name: 'netdev_add',
    doc: 'Makes a netdev; a NIC that asks for its id is plugged in at once.',
    returns: nothing,
    schema: addNetdevSchema,
    run: async (args, { monitor }) => {
      await monitor.network.openNetdev(readNetdev(args));
    },
  }),
  command({
    name: 'netdev_del',
    doc: 'Takes a netdev away; the NIC on it sees its link go down.',
    returns: nothing,
    args: { id: netdevCommonOptions.id },
    run: ({ id }, { monitor }) => monitor.network.removeNetdev(id),
  }),
  command({
    name: 'query-rx-filter',
    doc: 'Which frames the NICs let in; from then on the next change of the filter is told again (NIC_RX_FILTER_CHANGED).',
    returns: list(rxFilterInfo),
    args: { name: { kind: 'string', defaultText: 'all NICs', doc: 'The id of one NIC.' } },
    run: ({ name }, { monitor }) => rxFilters(monitor.network, name),
  }),
  command({
    name: 'query-driver-complaints',
    doc: "What guests' drivers did against the manuals of their NICs, for NICs with strict=on. QEMU has no such command.",
    returns: list(struct('DriverComplaints', { name: str, complaints: list(driverComplaint) })),
    args: { name: { kind: 'string', defaultText: 'all NICs with strict=on', doc: 'The id of one NIC.' } },
    run: ({ name }, { monitor }) => driverComplaints(monitor.network, name),
  }),
  rawCommand({
    name: 'announce-self',
    doc: 'Makes the NICs send who they are (RARP), so that switches learn where they are now.',
    returns: nothing,
    schema: (builder) =>
      builder.members('AnnounceParameters', [
        ...builder.membersOf('AnnounceParameters', announceNumbers),
        { name: 'interfaces', type: addShape(builder, list(str)), default: null },
      ]),
    run: (args, { monitor }) => {
      const { interfaces, ...numbers } = args;
      if (interfaces !== undefined)
        for (const name of listArgument(args, 'interfaces')) readText('interfaces', name);
      const { initial, max, rounds, step, id } = readArguments(announceNumbers, numbers);
      if (rounds < 1 || rounds > 1000) throw outside('rounds', 1, 1000);
      for (const [option, value] of Object.entries({ initial, max, step })) {
        if (value > 100_000) throw outside(option, 0, 100_000);
      }
      announce(monitor.network, {
        initialMs: initial,
        maxMs: max,
        rounds,
        stepMs: step,
        interfaces: interfaces as readonly string[] | undefined,
        id,
      });
    },
  }),
  rawCommand({
    name: 'query-network',
    doc: 'The whole graph: NICs, netdevs, hubs, filters, who is plugged into whom, and every counter. QEMU has no such command.',
    returns: networkInfo,
    schema: (builder) => builder.table('q_empty', {}),
    run: (args, { monitor }) => {
      onlyMembers(args, []);
      return describeNetwork(monitor.network);
    },
  }),
];

const milliseconds = (doc: string) => ({ kind: 'uint', bits: 32, required: true, doc }) as const;
const announceNumbers = {
  initial: milliseconds('Milliseconds before the second announcement.'),
  max: milliseconds('The longest wait between two announcements, in milliseconds.'),
  rounds: { kind: 'uint', bits: 32, required: true, doc: 'How many announcements, 1 to 1000.' },
  step: milliseconds('By how many milliseconds each wait is longer than the one before.'),
  id: { kind: 'string', doc: 'A name for this series: a new one of that name takes its place.' },
} as const;

function readText(name: string, value: unknown): void {
  if (typeof value === 'string') return;
  throw new OptionError(`Invalid parameter type for '${name}', expected: string`, { option: name });
}

function outside(name: string, lowest: number, highest: number): OptionError {
  return new OptionError(`Parameter '${name}' expects a value between ${lowest} and ${highest}`, {
    option: name,
  });
}

function driverComplaints(
  { devices }: Network,
  name: string | undefined,
): { name: string; complaints: DriverComplaint[] }[] {
  if (name !== undefined) {
    const device = devices.get(name);
    if (device === undefined) throw new OptionError(`invalid net client name: ${name}`);
    if (device.nic.driverReport === null) throw new OptionError(`NIC '${name}' was made without strict=on`);
  }
  const found: { name: string; complaints: DriverComplaint[] }[] = [];
  for (const { id, nic } of devices.values()) {
    if (nic.driverReport === null || (name !== undefined && id !== name)) continue;
    found.push({ name: id, complaints: nic.driverReport.complaints() });
  }
  return found;
}

function rxFilters({ devices, netdevs }: Network, name: string | undefined): RxFilterInfo[] {
  if (name === undefined) return [...devices.values()].map(({ id, nic }) => nic.queryRxFilter(id));
  const device = devices.get(name);
  if (device !== undefined) return [device.nic.queryRxFilter(device.id)];
  if (netdevs.has(name)) throw new OptionError(`net client(${name}) isn't a NIC`);
  throw new OptionError(`invalid net client name: ${name}`);
}
