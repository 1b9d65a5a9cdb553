/** Properties of the e1000 (Intel 82540EM). */
import { defineOptions, type OptionsOf } from '../schema.ts';

export const e1000Options = defineOptions({
  mitigation: {
    kind: 'bool',
    default: true,
    doc: 'Moderate interrupts as ITR, RADV and TADV say; off raises each at once.',
  },
  'init-vet': {
    kind: 'bool',
    default: true,
    doc: 'VET holds 0x8100 after reset, as drivers that never write it expect.',
  },
});

export interface E1000Properties {
  readonly mitigation: boolean;
  readonly initVet: boolean;
}

export function resolveE1000(o: OptionsOf<typeof e1000Options>): E1000Properties {
  return { mitigation: o.mitigation, initVet: o['init-vet'] };
}
