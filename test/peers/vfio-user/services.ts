/** What a guest finds on the host behind the user network's gateway: a web server with a large file. */

import { createHash } from 'node:crypto';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { seededRandom } from '../../../src/core/clock.ts';

export interface WebServer {
  port: number;
  /** SHA-256 of /file, and of what was last uploaded (by POST to any path). */
  fileHash: string;
  uploadHash: () => string;
  close: () => void;
}

/** Serves `bytes` pseudo-random bytes at /file, and hashes what is uploaded. */
export async function startWebServer(bytes: number): Promise<WebServer> {
  const random = seededRandom(64);
  const file = Buffer.from(Uint32Array.from({ length: bytes / 4 }, random).buffer);
  // busybox's wget posts a file up to its first zero byte.
  for (let at = file.indexOf(0); at >= 0; at = file.indexOf(0, at)) file[at] = 0xa5;
  let uploadHash = '';
  const server = createServer((request, response) => {
    if (request.method === 'POST') {
      const hash = createHash('sha256');
      request.on('data', (chunk: Buffer) => hash.update(chunk));
      request.on('end', () => {
        uploadHash = hash.digest('hex');
        response.end(`stored ${uploadHash}\n`);
      });
    } else {
      response.setHeader('Content-Length', file.length);
      response.end(file);
    }
  });
  // Node gives a request five minutes by default, which a guest on a busy machine may need for an upload.
  server.requestTimeout = 0;
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    port: (server.address() as AddressInfo).port,
    fileHash: createHash('sha256').update(file).digest('hex'),
    uploadHash: () => uploadHash,
    close: () => {
      server.closeAllConnections();
      server.close();
    },
  };
}

/** A guest's command that uploads a file to the web server and prints what that says. (Of a file to post, busybox's wget sends what is in front of its first zero byte.) */
export function uploadCommand(file: string, host: string, port: number): string {
  const head = `printf 'POST / HTTP/1.0\\r\\nContent-Length: %d\\r\\n\\r\\n' $(stat -c %s ${file})`;
  return `{ ${head}; cat ${file}; } | nc ${host} ${port}`;
}
