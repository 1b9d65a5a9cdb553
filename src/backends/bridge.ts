/** `bridge`: a tap on a bridge, made by a privileged helper program and passed back. */

import type { OpenBackend } from './backend.ts';
import { openByHelper } from './bridge-helper.ts';
import { needHostIo, type Services } from './services.ts';
import { asTap, TapBackend } from './tap.ts';
import { TapPort } from './tap-port.ts';

export function bridgeBackend(services: Services): OpenBackend<'bridge'> {
  return async ({ id, helper, bridge }, context) => {
    const hostIo = needHostIo(context, 'bridge');
    const handle = await openByHelper(helper, bridge, hostIo, services);
    const tap = asTap(hostIo, handle, 'of the helper');
    return new TapBackend([new TapPort(id, context, hostIo, tap)], `helper=${helper},br=${bridge}`);
  };
}
