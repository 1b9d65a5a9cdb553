/** `vhost-user`: hands the NIC's queues to an external back-end over a unix socket. Its peer must be virtio-net. */
import { OptionError } from '../../core/errors.ts';
import type { ChardevConfig } from '../chardevs.ts';
import { defineOptions } from '../schema.ts';
import { defineNetdev } from './definition.ts';

export interface VhostUserConfig {
  readonly chardev: string;
  readonly force: boolean;
  readonly queues: number;
}

export const vhostUser = defineNetdev({
  type: 'vhost-user',
  summary: 'a vhost-user back-end in another process (virtio-net only)',
  options: defineOptions({
    chardev: {
      kind: 'string',
      metavar: 'id',
      required: true,
      doc: 'The unix socket to the back-end, client (with reconnect-ms: again and again) or server.',
    },
    vhostforce: {
      kind: 'bool',
      default: false,
      doc: 'As in QEMU, where it says that there is no other way for the frames; there never is, so off does the same.',
    },
    queues: {
      kind: 'int',
      default: 1,
      doc: 'The number of queue pairs, 1 to 1024; the back-end must have as many.',
    },
  }),
  resolve: (o): VhostUserConfig => {
    if (o.queues < 1 || o.queues > 1024) {
      throw new OptionError('vhost-user number of queues must be in range [1, 1024]', { option: 'queues' });
    }
    return { chardev: o.chardev, force: o.vhostforce, queues: o.queues };
  },
});

/** Whatever is not virtio-net gives no queues away. */
export function vhostUserNeedsVirtio(): OptionError {
  return new OptionError('vhost-user requires frontend driver virtio-net-*', { option: 'netdev' });
}

/** Throws unless the chardev is a socket that can pass file descriptors. */
export function checkVhostUserChardev(chardev: ChardevConfig): void {
  if (chardev.type !== 'socket') {
    throw new OptionError(`chardev "${chardev.id}" is not reconnectable`, { option: 'chardev' });
  }
  if (chardev.address.type === 'inet') {
    throw new OptionError(`chardev "${chardev.id}" does not support FD passing`, { option: 'chardev' });
  }
}
