/**
 * `netmap`: an interface with netmap support, or a VALE switch port. Netmap is a kernel module of its own that Linux does not carry; netemu
 * has no driver for its rings. The type is known, so that an option line is checked, and is refused with the reason that applies.
 */

import { notInThisBuild, UnsupportedError } from '../core/errors.ts';
import type { OpenBackend } from './backend.ts';
import type { Services } from './services.ts';

export function netmapBackend(services: Services): OpenBackend<'netmap'> {
  return ({ ifname, devname }) => {
    if (!services.exists(devname)) {
      throw new UnsupportedError(
        `netdev type 'netmap' needs the netmap kernel module, which is not loaded (there is no ${devname})`,
      );
    }
    throw notInThisBuild("netdev type 'netmap'", `${ifname} can be joined with tap instead`);
  };
}
