/**
 * What the `user` netdev needs of Node beside sockets: the host's name servers, files for TFTP, processes for guestfwd.
 *
 * resolv.conf is read anew when its modification time or size changed, looked at no more than once a second: queries follow a change
 * of network without a watch, which editors and resolvers that rename files over it would break.
 */

import type { ChildProcess } from 'node:child_process';
import { readFileSync, statSync } from 'node:fs';
import { isIP } from 'node:net';
import type { UserServices } from '../backends/user/site.ts';
import { UnsupportedError } from '../core/errors.ts';
import type { HostIo } from './host-io.ts';
import { connectProcess, openSmbShare } from './smb-share.ts';
import { openTftpRoot } from './tftp-root.ts';

const RESOLV_CONF = '/etc/resolv.conf';
const LOOK_MS = 1000;
/** What resolvers ask when the file names nobody (resolv.conf(5)). */
const DEFAULT_SERVERS: readonly string[] = ['127.0.0.1'];

/** The name servers in the text of a resolv.conf, zones of link-local addresses left out with their servers. */
export function parseResolvConf(text: string): string[] {
  const servers: string[] = [];
  for (const line of text.split('\n')) {
    const match = /^\s*nameserver\s+(\S+)/.exec(line);
    if (match !== null && isIP(match[1]) !== 0 && !match[1].includes('%')) servers.push(match[1]);
  }
  return servers;
}

/** Reads `path` as described above. `nowMs` is any clock that does not go back. */
export function followResolvConf(
  path = RESOLV_CONF,
  nowMs: () => number = () => performance.now(),
): () => readonly string[] {
  let lookedMs = Number.NEGATIVE_INFINITY;
  let stamp = '';
  let servers: readonly string[] = DEFAULT_SERVERS;
  return () => {
    const now = nowMs();
    if (now - lookedMs < LOOK_MS) return servers;
    lookedMs = now;
    try {
      const { mtimeMs, size, ino } = statSync(path);
      const seen = `${mtimeMs} ${size} ${ino}`;
      if (seen !== stamp) {
        stamp = seen;
        const found = parseResolvConf(readFileSync(path, 'utf8'));
        servers = found.length > 0 ? found : DEFAULT_SERVERS;
      }
    } catch {
      servers = DEFAULT_SERVERS;
    }
    return servers;
  };
}

/** Everything but character devices, which live in the network's registry: a guestfwd to one is refused. */
export function nodeUserServices(hostIo: HostIo): UserServices {
  const children = new Set<ChildProcess>();
  return {
    resolvers: followResolvConf(),
    openTftpRoot,
    openSmb: (folder) => openSmbShare(hostIo, folder),
    refuseGuestForward: (target) =>
      target.kind === 'command' ? undefined : 'character devices cannot be forwarded to yet; use cmd:',
    openGuestForward: (target) => {
      if (target.kind !== 'command') throw new UnsupportedError('guestfwd to a character device');
      return connectProcess(hostIo, '/bin/sh', ['-c', target.command], children);
    },
  };
}
