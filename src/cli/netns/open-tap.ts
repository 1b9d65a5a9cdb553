/**
 * A small program of its own, run inside a namespace: makes the tap named by its first argument there and passes it over the socket at its
 * descriptor 3. The interface lives as long as somebody has the descriptor.
 */

import { HostIoError, UnsupportedError } from '../../core/errors.ts';
import { createNativeHostIo } from '../../host-io/native.ts';

try {
  const hostIo = createNativeHostIo();
  const tap = hostIo.tapOpen({ name: process.argv[2]!, vnetHeader: true });
  const sent = hostIo.sendWithFds(hostIo.adopt(3), new Uint8Array(1), [tap.handle]);
  process.exitCode = sent === 1 ? 0 : 1;
  hostIo.shutdown();
} catch (error) {
  if (!(error instanceof HostIoError || error instanceof UnsupportedError)) throw error;
  process.stderr.write(`${error.message}\n`);
  process.exitCode = 1;
}
