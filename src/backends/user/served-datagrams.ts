/** Datagrams to the gateway and the name server that this network answers itself, the same in both families: TFTP, and names of its own. */

import { LENGTH } from '../../core/pool.ts';
import { DNS_PORT } from '../../wire/dns.ts';
import type { UdpHeader } from '../../wire/udp.ts';
import type { Parts } from './parts.ts';
import type { Site } from './site.ts';
import { udpChecksumOk } from './udp-nat.ts';
import { runSegmentBytes } from './udp-run.ts';

export class ServedDatagrams {
  readonly #site: Site;
  readonly #parts: Parts;

  constructor(site: Site, parts: Parts) {
    this.#site = site;
    this.#parts = parts;
  }

  /** A datagram to the gateway may be TFTP's. True: it was, and the frame is taken. */
  tftp(frame: number, version: number, start: number, ip: number, udp: UdpHeader): boolean {
    const { tftp } = this.#parts;
    const { pool } = this.#site;
    if (tftp === null || !tftp.serves(udp.dstPort)) return false;
    const whole = udp.payloadEnd <= start + pool.table[frame + LENGTH];
    if (!whole) this.#site.stats.tftpDropMalformed++;
    else if (!udpChecksumOk(this.#site, frame, version, start, ip, udp))
      this.#site.stats.udpDropBadChecksum++;
    else tftp.input(version, start, ip, udp);
    pool.release(frame);
    return true;
  }

  /** A query to the name server may be for a name of this network. True: it was answered, and the frame is taken. */
  ownNames(frame: number, version: number, start: number, ip: number, udp: UdpHeader): boolean {
    const { pool } = this.#site;
    if (udp.dstPort !== DNS_PORT || !this.#parts.names.active || runSegmentBytes(pool, frame) > 0)
      return false;
    if (udp.payloadEnd > start + pool.table[frame + LENGTH]) return false;
    if (!udpChecksumOk(this.#site, frame, version, start, ip, udp)) return false;
    if (!this.#parts.names.answer(version, start, ip, udp)) return false;
    pool.release(frame);
    return true;
  }
}
