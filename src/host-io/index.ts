/** Chooses an implementation of host I/O. */

import { UnsupportedError } from '../core/errors.ts';
import type { HostIo } from './host-io.ts';
import { createNativeHostIo } from './native.ts';
import { createPortableHostIo } from './portable/index.ts';

export interface HostIoOptions {
  /** `auto` (default): native where the addon loads, else portable. `native` throws UnsupportedError where it does not. */
  implementation?: 'native' | 'portable' | 'auto';
  /** Native only: how long to look again before sleeping, while that pays. 0 (default): never. */
  busyPollNs?: number;
}

export function createHostIo(options: HostIoOptions = {}): HostIo {
  const { implementation = 'auto', busyPollNs } = options;
  if (implementation === 'portable') return createPortableHostIo();
  try {
    return createNativeHostIo(busyPollNs === undefined ? {} : { busyPollNs });
  } catch (error) {
    if (implementation === 'native' || !(error instanceof UnsupportedError)) throw error;
    return createPortableHostIo();
  }
}
