/** Small things that tests with servers on this machine's loopback share. */

import { createHash } from 'node:crypto';
import { type AddressInfo, createServer, type Server } from 'node:net';

export const sha = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

/** Listens at a port that the host chooses; resolves with it. */
export const listen = (server: Server, address: string): Promise<number> =>
  new Promise((resolve) => {
    server.listen(0, address, () => resolve((server.address() as AddressInfo).port));
  });

/** A port of 127.0.0.1 that nobody listened at a moment ago. */
export async function freePort(): Promise<number> {
  const server = createServer();
  const port = await listen(server, '127.0.0.1');
  await new Promise((resolve) => server.close(resolve));
  return port;
}
