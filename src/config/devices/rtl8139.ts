/** Properties of the rtl8139. */
import { defineOptions, type OptionsOf } from '../schema.ts';

export const rtl8139Options = defineOptions({
  chip: {
    kind: 'enum',
    values: ['8139c+', '8139c'],
    default: '8139c+',
    beyond: true,
    doc: "The chip: 8139c+ has PCI revision 0x20 and both programming models, 8139c has revision 0x10 and the classic one, to which Linux's 8139too binds.",
  },
});

export interface Rtl8139Properties {
  readonly chip: '8139c+' | '8139c';
}

export function resolveRtl8139(o: OptionsOf<typeof rtl8139Options>): Rtl8139Properties {
  return { chip: o.chip };
}
