/** RAM of a guest that netemu plays itself, in a file without a name, so that another program can be let into it. */

import type { RamFile } from '../guest/probe/machine.ts';
import type { HostIo } from './host-io.ts';

/** `lengthBytes`: a multiple of the page size. Throws HostIoError or UnsupportedError. */
export function openRamFile(hostIo: HostIo, lengthBytes: number): RamFile {
  const handle = hostIo.memoryFd('netemu-guest', lengthBytes);
  try {
    const bytes = hostIo.map(handle, 0, lengthBytes);
    return {
      bytes,
      handle,
      close() {
        hostIo.unmap(bytes);
        hostIo.close(handle);
      },
    };
  } catch (error) {
    hostIo.close(handle);
    throw error;
  }
}
