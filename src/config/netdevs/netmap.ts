/** `netmap`: the rings of an interface or of a VALE switch, mapped. */
import { expects } from '../kinds.ts';
import { defineOptions } from '../schema.ts';
import { defineNetdev } from './definition.ts';

export interface NetmapConfig {
  readonly ifname: string;
  readonly devname: string;
}

export const netmap = defineNetdev({
  type: 'netmap',
  summary: 'an interface with netmap support, or a VALE switch port',
  options: defineOptions({
    ifname: {
      kind: 'string',
      metavar: 'name',
      required: true,
      doc: 'The interface, or valeX:Y for a switch port.',
    },
    devname: { kind: 'string', metavar: 'file', default: '/dev/netmap', doc: 'The netmap device.' },
  }),
  resolve: (o): NetmapConfig => {
    // As many as the device's request has room for.
    if (!/^[\x21-\x2e\x30-\x7e]{1,15}$/.test(o.ifname))
      throw expects('ifname', 'an interface or valeX:Y (1 to 15 characters)');
    return { ifname: o.ifname, devname: o.devname };
  },
});
