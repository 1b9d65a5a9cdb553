/** `bridge`: a tap that a privileged helper makes on a bridge and passes back. */
import { defineOptions } from '../schema.ts';
import { checkInterfaceName, defineNetdev } from './definition.ts';
import { DEFAULT_BRIDGE, DEFAULT_BRIDGE_HELPER } from './tap.ts';

export interface BridgeConfig {
  readonly bridge: string;
  readonly helper: string;
}

export const bridge = defineNetdev({
  type: 'bridge',
  summary: 'a TAP interface on a bridge, made by a helper program',
  options: defineOptions({
    br: { kind: 'string', metavar: 'name', default: DEFAULT_BRIDGE, doc: 'The bridge to join.' },
    helper: {
      kind: 'string',
      metavar: 'file',
      default: DEFAULT_BRIDGE_HELPER,
      doc: 'The program that makes the interface.',
    },
  }),
  resolve: (o): BridgeConfig => {
    checkInterfaceName('br', o.br);
    return { bridge: o.br, helper: o.helper };
  },
});
