/** `vde`: a port of a vde_switch. */
import { expects } from '../kinds.ts';
import { defineOptions } from '../schema.ts';
import { defineNetdev } from './definition.ts';

export interface VdeConfig {
  /** The switch's control folder; undefined: where libvdeplug looks by default. */
  readonly sock: string | undefined;
  /** 0: any free port. */
  readonly port: number;
  readonly group: string | undefined;
  readonly mode: number;
}

export const vde = defineNetdev({
  type: 'vde',
  summary: 'a port of a vde_switch',
  options: defineOptions({
    sock: {
      kind: 'string',
      metavar: 'dir',
      defaultText: "libvdeplug's default",
      doc: 'The control folder of the switch.',
    },
    port: { kind: 'uint', bits: 16, default: 0, doc: 'The port of the switch to use; 0 is any free one.' },
    group: { kind: 'string', metavar: 'name', doc: 'The group that owns the socket made for this port.' },
    mode: {
      kind: 'uint',
      bits: 16,
      octal: true,
      default: 0o700,
      doc: 'The permissions of the socket made for this port, in octal.',
    },
  }),
  resolve: (o): VdeConfig => {
    if (o.mode > 0o777) throw expects('mode', 'an octal mode up to 0777');
    return { sock: o.sock, port: o.port, group: o.group, mode: o.mode };
  },
});
