/** What every part of the user network shares: one object, made by index.ts. Parts hold it and each other only through it. */

import type { ChardevReference } from '../../config/chardevs.ts';
import type { UserConfig } from '../../config/netdevs/user.ts';
import type { GuestForward } from '../../config/netdevs/user-forward.ts';
import type { Random } from '../../core/clock.ts';
import type { Logger } from '../../core/log.ts';
import type { Loop } from '../../core/loop.ts';
import type { FramePool } from '../../core/pool.ts';
import type { Endpoint, Handle, HostIo } from '../../host-io/host-io.ts';
import type { ChecksumRegion } from '../../wire/checksum.ts';
import type { Descriptors } from './descriptors.ts';
import type { EgressNames } from './egress-names.ts';
import type { Neighbours } from './neighbours.ts';
import type { Outbox } from './outbox.ts';
import type { Policy } from './policy.ts';
import type { Resolvers } from './resolvers.ts';
import type { UserStats } from './stats.ts';

/** What the embedder brings beside sockets; on Node it is host-io/user-services.ts. What is absent is refused where it is asked for. */
export interface UserServices {
  /** The host's name servers, textual addresses, the preferred first, as they are now. */
  resolvers(): readonly string[];
  /** Why a guestfwd target cannot be opened here; undefined: it can. Asked once, before the netdev stands. */
  refuseGuestForward?(target: GuestForward['target']): string | undefined;
  /** Opens the far end of a guestfwd: a stream handle (a process's standard input and output, a character device). Throws when it cannot. */
  openGuestForward?(hostIo: HostIo, target: GuestForward['target']): Handle;
  /** Files for TFTP. */
  openTftpRoot?(path: string): TftpRoot;
  /** Prepares to share a folder by the host's smbd, which runs once for each connection. Throws when there is none. */
  openSmb?(hostIo: HostIo, folder: string): SmbServer;
}

export interface TftpRoot {
  /** Opens a regular file beneath the root for reading, or null. Never follows a link out of it. */
  open(name: string): TftpFile | null;
}

export interface TftpFile {
  readonly sizeBytes: number;
  /** Reads into target[at..at+length); returns the bytes read. */
  read(position: number, target: Uint8Array, at: number, length: number): number;
  close(): void;
}

export interface SmbServer {
  /** A stream handle to a fresh smbd. */
  connect(): Handle;
  close(): void;
}

export interface Site {
  /** The netdev's, for messages. */
  readonly id: string;
  readonly pool: FramePool;
  /** A stream to a character device; absent: there are none. */
  readonly openChardev?: ((reference: ChardevReference) => Handle) | undefined;
  readonly loop: Loop;
  readonly config: UserConfig;
  readonly hostIo: HostIo;
  readonly random: Random;
  readonly log: Logger;
  readonly services: UserServices;
  readonly stats: UserStats;
  readonly outbox: Outbox;
  readonly policy: Policy;
  readonly resolvers: Resolvers;
  readonly egressNames: EgressNames;
  readonly descriptors: Descriptors;
  readonly neighbours: Neighbours;
  readonly sums: ChecksumRegion;
  /** This end of the link. */
  readonly mac: Uint8Array;
  /** ACCEPT_* bits of the guest's side. */
  accepts(): number;
}

/** How to open a socket to the world: the host's address and interface to leave by, where the user named some. */
export function outbound(site: Site, version: number): { local?: Endpoint; bindInterface?: string } {
  const { source, sourceInterface } = site.config;
  const address = source.find((one) => one.family === version);
  return {
    ...(address === undefined ? {} : { local: { address: address.text, port: 0 } }),
    ...(sourceInterface === undefined ? {} : { bindInterface: sourceInterface }),
  };
}
