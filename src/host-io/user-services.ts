/** What the `user` netdev needs of Node beside sockets: the host's name servers, files for TFTP, processes for guestfwd and smb. */

import type { ChildProcess } from 'node:child_process';
import type { UserServices } from '../backends/user/site.ts';
import { UnsupportedError } from '../core/errors.ts';
import { hostResolvers } from './resolvers.ts';
import { connectProcess, openSmbShare } from './smb-share.ts';
import { openTftpRoot } from './tftp-root.ts';

/** Everything but character devices, which live in the network's registry: a guestfwd to one is refused. */
export function nodeUserServices(): UserServices {
  const children = new Set<ChildProcess>();
  return {
    resolvers: hostResolvers(),
    openTftpRoot,
    openSmb: openSmbShare,
    refuseGuestForward: (target) =>
      target.kind === 'command' ? undefined : 'character devices cannot be forwarded to yet; use cmd:',
    openGuestForward: (hostIo, target) => {
      if (target.kind !== 'command') throw new UnsupportedError('guestfwd to a character device');
      return connectProcess(hostIo, '/bin/sh', ['-c', target.command], children);
    },
  };
}
