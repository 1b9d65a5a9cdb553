/**
 * Names that the network's name server answers itself: those of `hosts=`, over UDP and TCP. Everything else is relayed (udp-nat.ts,
 * dns-tcp.ts); where nothing may leave (`restrict`), it is refused here, so that a guest's resolver gives up at once.
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

  /** A query over UDP whose bytes lie in region 0 in one run. True: it was answered (or dropped for want of room). */
  answer(version: number, start: number, ip: number, udp: UdpHeader): boolean {
    const site = this.#site;
    const { bytes } = site.pool;
    const reply = this.reply(bytes, udp.payload, udp.payloadEnd);
    if (reply === null) return false;
    if (site.outbox.room() <= 0) return true;
    const frame = allocPacket(site, reply.length);
    if (frame === 0) return true;
    bytes.set(reply, payloadPlace(site, frame));
    const link = linkHeaderReply(bytes, version, ip, start + 6, site.mac, IP_PROTOCOL_UDP);
    sendUdpOnce(site, frame, reply.length, link, DNS_PORT, udp.srcPort);
    return true;
  }

  /** The answer to the query bytes[at..end), or null when it is not for us to answer. */
  reply(bytes: Uint8Array, at: number, end: number): Uint8Array | null {
    const site = this.#site;
    if (end - at < DNS_HEADER_BYTES) return null;
    const flags = u16be(bytes, at + 2);
    // A standard query with one question.
    if ((flags & 0xf800) !== 0 || u16be(bytes, at + 4) !== 1) return null;
    const name = readDomainName(bytes, at, at + DNS_HEADER_BYTES, end);
    const question = skipDomainName(bytes, at + DNS_HEADER_BYTES, end);
    if (name === null || question < 0 || end - question < 4 || question - at > 300) return null;
    const known = site.config.hosts.filter((own) => own.name === name.toLowerCase());
    if (known.length === 0 && !site.config.restrict) return null;
    const type = u16be(bytes, question);
    const inClass = u16be(bytes, question + 2) === DNS_CLASS_IN;
    const answers = inClass
      ? known.filter(({ address }) => type === (address.family === 4 ? DNS_TYPE_A : DNS_TYPE_AAAA))
      : [];
    const questionBytes = question + 4 - at;
    const reply = new Uint8Array(questionBytes + answers.length * (RECORD_HEAD_BYTES + 16));
    copyBytes(reply, 0, bytes, at, questionBytes);
    const rcode = known.length === 0 ? REFUSED : 0;
    putU16be(reply, 2, RESPONSE | AUTHORITATIVE | RECURSION_AVAILABLE | (flags & RECURSION_DESIRED) | rcode);
    putU16be(reply, 6, answers.length);
    putU32be(reply, 8, 0);
    let to = questionBytes;
    for (const { address } of answers) {
      const dataBytes = address.family === 4 ? 4 : 16;
      putU16be(reply, to, QUESTION_NAME);
      putU16be(reply, to + 2, type);
      putU16be(reply, to + 4, DNS_CLASS_IN);
      putU32be(reply, to + 6, TTL_SECONDS);
      putU16be(reply, to + 10, dataBytes);
      if (address.family === 4) putU32be(reply, to + RECORD_HEAD_BYTES, address.value);
      else copyBytes(reply, to + RECORD_HEAD_BYTES, address.bytes, 0, 16);
      to += RECORD_HEAD_BYTES + dataBytes;
    }
    if (rcode === REFUSED) site.stats.dnsRefused++;
    else site.stats.dnsOwnAnswers++;
    return reply.subarray(0, to);
  }
}
