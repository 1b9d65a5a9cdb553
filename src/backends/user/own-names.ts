/**
 * Names that the network's name server answers itself: those of `hosts=`, over UDP. Everything else is relayed unread (udp-nat.ts); where
 * nothing may leave (`restrict`), it is refused here, so that a guest's resolver gives up at once.
 *
 * Only a query with one question is looked at, and only its name and type: a few comparisons, whatever the message holds.
 */

import { linkHeaderReply } from '../../tcp/link-header.ts';
import { copyBytes, putU16be, putU32be, u16be } from '../../wire/bytes.ts';
import {
  DNS_CLASS_IN,
  DNS_HEADER_BYTES,
  DNS_PORT,
  DNS_TYPE_A,
  DNS_TYPE_AAAA,
  readDomainName,
  skipDomainName,
} from '../../wire/dns.ts';
import { IP_PROTOCOL_UDP } from '../../wire/ipv4.ts';
import type { UdpHeader } from '../../wire/udp.ts';
import { allocPacket, payloadPlace, sendUdpOnce } from './packet-out.ts';
import type { Site } from './site.ts';

const TTL_SECONDS = 60;
const RESPONSE = 0x8000;
const AUTHORITATIVE = 0x0400;
const RECURSION_DESIRED = 0x0100;
const RECURSION_AVAILABLE = 0x0080;
const REFUSED = 5;
/** A pointer to the question's name. */
const QUESTION_NAME = 0xc000 | DNS_HEADER_BYTES;
const RECORD_HEAD_BYTES = 12;

export class OwnNames {
  /** False: no query needs to be looked at. */
  readonly active: boolean;
  readonly #site: Site;

  constructor(site: Site) {
    this.#site = site;
    this.active = site.config.hosts.length > 0 || site.config.restrict;
  }

  /** A query whose bytes lie in region 0 in one run. True: it was answered (or dropped for want of room). */
  answer(version: number, start: number, ip: number, udp: UdpHeader): boolean {
    const site = this.#site;
    const bytes = site.pool.bytes;
    const at = udp.payload;
    const end = udp.payloadEnd;
    if (end - at < DNS_HEADER_BYTES) return false;
    const flags = u16be(bytes, at + 2);
    // A standard query with one question.
    if ((flags & 0xf800) !== 0 || u16be(bytes, at + 4) !== 1) return false;
    const name = readDomainName(bytes, at, at + DNS_HEADER_BYTES, end);
    const question = skipDomainName(bytes, at + DNS_HEADER_BYTES, end);
    if (name === null || question < 0 || end - question < 4 || question - at > 300) return false;
    const known = site.config.hosts.filter((own) => own.name === name.toLowerCase());
    if (known.length === 0 && !site.config.restrict) return false;
    const type = u16be(bytes, question);
    const inClass = u16be(bytes, question + 2) === DNS_CLASS_IN;
    const answers = inClass
      ? known.filter(({ address }) => type === (address.family === 4 ? DNS_TYPE_A : DNS_TYPE_AAAA))
      : [];
    if (site.outbox.room() <= 0) return true;
    const questionEnd = question + 4;
    const room = questionEnd - at + answers.length * (RECORD_HEAD_BYTES + 16);
    const frame = allocPacket(site, room);
    if (frame === 0) return true;
    const place = payloadPlace(site, frame);
    copyBytes(bytes, place, bytes, at, questionEnd - at);
    const rcode = known.length === 0 ? REFUSED : 0;
    const reply = RESPONSE | AUTHORITATIVE | RECURSION_AVAILABLE | (flags & RECURSION_DESIRED) | rcode;
    putU16be(bytes, place + 2, reply);
    putU16be(bytes, place + 6, answers.length);
    putU32be(bytes, place + 8, 0);
    let to = place + questionEnd - at;
    for (const { address } of answers) {
      const dataBytes = address.family === 4 ? 4 : 16;
      putU16be(bytes, to, QUESTION_NAME);
      putU16be(bytes, to + 2, type);
      putU16be(bytes, to + 4, DNS_CLASS_IN);
      putU32be(bytes, to + 6, TTL_SECONDS);
      putU16be(bytes, to + 10, dataBytes);
      if (address.family === 4) putU32be(bytes, to + RECORD_HEAD_BYTES, address.value);
      else copyBytes(bytes, to + RECORD_HEAD_BYTES, address.bytes, 0, 16);
      to += RECORD_HEAD_BYTES + dataBytes;
    }
    if (rcode === REFUSED) site.stats.dnsRefused++;
    else site.stats.dnsOwnAnswers++;
    const link = linkHeaderReply(bytes, version, ip, start + 6, site.mac, IP_PROTOCOL_UDP);
    sendUdpOnce(site, frame, to - place, link, DNS_PORT, udp.srcPort);
    return true;
  }
}
