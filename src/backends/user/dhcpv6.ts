/**
 * Stateless DHCPv6 (RFC 8415 section 18.3.6): an Information-Request gets the name server, the search list and the boot file (RFC 5970). Addresses
 * come by SLAAC, so anything that asks for one is not answered (section 18.3: a server without addresses to give may stay silent).
 */

import { linkHeaderReply } from '../../tcp/link-header.ts';
import { copyBytes, equalBytes, utf8Bytes } from '../../wire/bytes.ts';
import {
  DHCPV6_CLIENT_PORT,
  DHCPV6_INFORMATION_REQUEST,
  DHCPV6_OPT_BOOTFILE_URL,
  DHCPV6_OPT_CLIENT_ID,
  DHCPV6_OPT_SERVER_ID,
  DHCPV6_REPLY,
  DHCPV6_SERVER_PORT,
  Dhcpv6Message,
  Dhcpv6Writer,
  DUID_LL_BYTES,
  writeDuidLl,
} from '../../wire/dhcpv6.ts';
import { IP_PROTOCOL_UDP } from '../../wire/ipv4.ts';
import { linkLocalOf } from './ndp.ts';
import { allocPacket, payloadPlace, sendUdpOnce } from './packet-out.ts';
import type { Site } from './site.ts';

const REPLY_MAX_BYTES = 1100;
const DUID_MAX_BYTES = 130;

export class Dhcpv6Server {
  readonly #site: Site;
  readonly #message = new Dhcpv6Message();
  readonly #writer = new Dhcpv6Writer();
  readonly #duid = new Uint8Array(DUID_LL_BYTES);
  readonly #linkLocal: Uint8Array;

  constructor(site: Site) {
    this.#site = site;
    writeDuidLl(this.#duid, 0, site.mac, 0);
    this.#linkLocal = linkLocalOf(site.config.ipv6!.host.bytes);
  }

  /** A datagram to port 547 in region 0 at [at, end), whose IPv6 header is at `ip`, of a frame at `start`. */
  input(start: number, ip: number, at: number, end: number): void {
    const site = this.#site;
    const { stats, pool, config } = site;
    const bytes = pool.bytes;
    const message = this.#message;
    if (!message.parse(bytes, at, end)) {
      stats.dhcpDropMalformed++;
      return;
    }
    stats.dhcpRequests++;
    if (message.type !== DHCPV6_INFORMATION_REQUEST || site.outbox.room() <= 0) return;
    if (message.findOption(bytes, DHCPV6_OPT_SERVER_ID)) {
      const ours =
        message.valueBytes === DUID_LL_BYTES &&
        equalBytes(bytes, message.valueOffset, this.#duid, 0, DUID_LL_BYTES);
      if (!ours) return;
    }
    const hasClient = message.findOption(bytes, DHCPV6_OPT_CLIENT_ID);
    const [client, clientBytes] = [message.valueOffset, message.valueBytes];
    if (hasClient && clientBytes > DUID_MAX_BYTES) {
      stats.dhcpDropMalformed++;
      return;
    }
    const frame = allocPacket(site, REPLY_MAX_BYTES);
    if (frame === 0) return;
    const place = payloadPlace(site, frame);
    const w = this.#writer.start(bytes, place, place + REPLY_MAX_BYTES, DHCPV6_REPLY, message.transactionId);
    w.bytes(DHCPV6_OPT_SERVER_ID, this.#duid);
    if (hasClient) w.bytes(DHCPV6_OPT_CLIENT_ID, bytes, client, clientBytes);
    w.dnsServers([config.ipv6!.dns.bytes]);
    w.domainList(config.dnssearch);
    if (config.bootfile !== undefined) {
      w.bytes(DHCPV6_OPT_BOOTFILE_URL, utf8Bytes(`tftp://[${config.ipv6!.host.text}]/${config.bootfile}`));
    }
    const length = w.finish();
    const link = linkHeaderReply(bytes, 6, ip, start + 6, site.mac, IP_PROTOCOL_UDP);
    // The request went to a group: the answer comes from our link-local address.
    copyBytes(link, 14 + 8, this.#linkLocal, 0, 16);
    sendUdpOnce(site, frame, length, link, DHCPV6_SERVER_PORT, DHCPV6_CLIENT_PORT);
  }
}
