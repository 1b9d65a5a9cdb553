/**
 * Servers that live on addresses of the guest's network and are neither the gateway nor the name server: `guestfwd` rules (a process or a
 * character device for each connection) and the `smb` share. What they are made of is the embedder's matter (site.ts); here is only
 * which address and port they answer.
 */

import { UnsupportedError } from '../../core/errors.ts';
import type { Handle } from '../../host-io/host-io.ts';
import { u32be } from '../../wire/bytes.ts';
import type { Site, SmbServer } from './site.ts';

const SMB_PORTS = [139, 445];

export class InnerServers {
  readonly #site: Site;
  readonly #smb: SmbServer | null;

  /** Throws UnsupportedError for what this platform cannot serve. */
  constructor(site: Site) {
    this.#site = site;
    const { config, services } = site;
    for (const rule of config.guestfwd) {
      if (rule.target.kind !== 'command' && site.openChardev !== undefined) continue;
      const why =
        services.openGuestForward === undefined
          ? 'there are no processes or devices here'
          : services.refuseGuestForward?.(rule.target);
      if (why !== undefined) throw new UnsupportedError(`guestfwd '${rule.text}': ${why}`);
    }
    if (config.smb === undefined || config.ipv4 === undefined) this.#smb = null;
    else if (services.openSmb === undefined)
      throw new UnsupportedError("smb= needs the host's smbd, which cannot be run here");
    else this.#smb = services.openSmb(site.hostIo, config.smb);
  }

  /** Whether an IPv4 address answers ARP because something here lives on it. */
  serves(address: number): boolean {
    const { config } = this.#site;
    if (this.#smb !== null && address === config.ipv4!.smbServer.value) return true;
    return config.guestfwd.some((rule) => rule.server.value === address);
  }

  /** A stream to the server at `port` of the address at `at` of `bytes`, or null when there is none. Throws when it cannot be opened. */
  open(bytes: Uint8Array, version: number, at: number, port: number): Handle | null {
    if (version !== 4) return null;
    const { config, services } = this.#site;
    const value = u32be(bytes, at);
    for (const rule of config.guestfwd) {
      if (rule.server.value !== value || rule.port !== port) continue;
      const { target } = rule;
      if (target.kind !== 'command' && this.#site.openChardev !== undefined)
        return this.#site.openChardev(target);
      return services.openGuestForward!(this.#site.hostIo, target);
    }
    if (this.#smb !== null && value === config.ipv4!.smbServer.value && SMB_PORTS.includes(port)) {
      return this.#smb.connect();
    }
    return null;
  }

  close(): void {
    this.#smb?.close();
  }
}
