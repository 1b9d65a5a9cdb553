/** THE TABLE of events, for query-qmp-schema and the reference page. Who emits them names them by these keys. */

import type { OptionTable } from '../config/schema.ts';
import { socketAddressBranches } from '../config/socket-address.ts';

interface EventDefinition {
  readonly doc: string;
  readonly data: OptionTable;
}

const id = (doc: string) => ({ kind: 'string', required: true, doc }) as const;
const reason = {
  kind: 'enum',
  values: ['host-qmp-quit', 'host-qmp-system-reset', 'host-signal', 'host-ui'],
  required: true,
  doc: 'Who wanted it.',
} as const;
const guest = { kind: 'bool', required: true, doc: 'Whether the guest did it itself.' } as const;

export const events = {
  NIC_RX_FILTER_CHANGED: {
    doc: 'A guest changed which frames its NIC lets in. Told once, then not until query-rx-filter asked for this NIC.',
    data: { name: { kind: 'string', doc: 'The id of the NIC.' }, path: id('Its path in the object tree.') },
  },
  DEVICE_DELETED: {
    doc: 'A NIC is gone.',
    data: {
      device: { kind: 'string', doc: 'Its id, if it had one.' },
      path: id('Its path in the object tree.'),
    },
  },
  NETDEV_STREAM_CONNECTED: {
    doc: 'A stream netdev is connected.',
    data: {
      'netdev-id': id('The netdev.'),
      addr: {
        kind: 'union',
        tag: 'type',
        branches: socketAddressBranches,
        required: true,
        doc: 'The other end.',
      },
    },
  },
  NETDEV_STREAM_DISCONNECTED: {
    doc: 'A stream netdev lost its connection.',
    data: { 'netdev-id': id('The netdev.') },
  },
  NETDEV_VHOST_USER_CONNECTED: {
    doc: 'A vhost-user netdev is connected.',
    data: { 'netdev-id': id('The netdev.'), 'chardev-id': id('Its character device.') },
  },
  NETDEV_VHOST_USER_DISCONNECTED: {
    doc: 'A vhost-user netdev lost its connection.',
    data: { 'netdev-id': id('The netdev.') },
  },
  FAILOVER_NEGOTIATED: {
    doc: 'A guest can switch from this NIC to a passed-through one.',
    data: { 'device-id': id('The NIC.') },
  },
  STOP: { doc: 'The guests stand still.', data: {} },
  RESUME: { doc: 'The guests run again.', data: {} },
  RESET: { doc: 'All NICs were reset.', data: { guest, reason } },
  SHUTDOWN: { doc: 'The program is about to end.', data: { guest, reason } },
} as const satisfies Readonly<Record<string, EventDefinition>>;
