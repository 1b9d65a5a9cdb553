/** `hubport`: a port of a hub, which repeats each frame to its other ports. */
import { defineOptions } from '../schema.ts';
import { defineNetdev } from './definition.ts';

export interface HubportConfig {
  readonly hubId: number;
  /** The backend this port puts on the hub; undefined leaves the port to a device. */
  readonly netdev: string | undefined;
  /** undefined: as the hub's other ports have it, `any` when none of them says. */
  readonly policy: 'any' | 'all' | undefined;
}

export const hubport = defineNetdev({
  type: 'hubport',
  summary: 'a port of a hub that joins several netdevs and devices',
  options: defineOptions({
    hubid: { kind: 'int', required: true, doc: 'The number of the hub; it is made with its first port.' },
    netdev: { kind: 'string', metavar: 'id', doc: 'The netdev to put on the hub.' },
    policy: {
      kind: 'enum',
      values: ['any', 'all'],
      defaultText: "as the hub's other ports have it, else any",
      beyond: true,
      doc: 'any: a port without room drops the frame and counts it. all: the hub waits for its slowest port.',
    },
  }),
  resolve: (o): HubportConfig => ({ hubId: o.hubid, netdev: o.netdev, policy: o.policy }),
});
