/**
 * The TFTP server at the gateway (RFC 1350, options RFC 2347–2349): reading only, one block in flight. A transfer has a port of its own (the
 * server's TID); it ends when its last block is acknowledged, by an error, or by silence. Blocks are cut to what the link carries
 * unfragmented. Which files there are is the embedder's matter (`UserServices.openTftpRoot`), which never leaves the folder.
 */

import type { Timer } from '../../core/loop.ts';
import { linkHeaderReply, linkHeaderSum, linkPseudoSum, remoteAddress } from '../../tcp/link-header.ts';
import { IP_PROTOCOL_UDP } from '../../wire/ipv4.ts';
import {
  TFTP_ACK,
  TFTP_BLOCK_MIN_BYTES,
  TFTP_DEFAULT_BLOCK_BYTES,
  TFTP_ERR_ACCESS,
  TFTP_ERR_ILLEGAL,
  TFTP_ERR_NOT_FOUND,
  TFTP_ERR_UNDEFINED,
  TFTP_ERR_UNKNOWN_ID,
  TFTP_ERROR,
  TFTP_HEADER_BYTES,
  TFTP_PORT,
  TFTP_RRQ,
  TFTP_WRQ,
  TftpPacket,
  writeTftpData,
  writeTftpError,
  writeTftpOack,
} from '../../wire/tftp.ts';
import { UDP_HEADER_BYTES, type UdpHeader } from '../../wire/udp.ts';
import { allocPacket, payloadPlace, sendUdp } from './packet-out.ts';
import type { Site, TftpFile, TftpRoot } from './site.ts';

const SESSIONS_MAX = 64;
const PORT_FIRST = 49_152;
const TIMEOUT_SECONDS = 1;
const TRIES = 6;
const ERROR_ROOM = 128;

interface Session {
  readonly link: Uint8Array;
  readonly guestPort: number;
  readonly port: number;
  readonly file: TftpFile;
  readonly blockBytes: number;
  readonly timeoutNs: number;
  readonly timer: Timer;
  /** The block in flight, counted without wrapping; 0 is the OACK. */
  block: number;
  readonly oack: {
    blockBytes: number;
    timeoutSeconds: number;
    transferBytes: number;
    windowBlocks: number;
  } | null;
  tries: number;
}

export class TftpServer {
  readonly #site: Site;
  readonly #root: TftpRoot;
  readonly #packet = new TftpPacket();
  readonly #sessions = new Map<number, Session>();

  constructor(site: Site, root: TftpRoot) {
    this.#site = site;
    this.#root = root;
  }

  get sessions(): number {
    return this.#sessions.size;
  }

  /** Whether a datagram to the gateway's `port` is for us. */
  serves(port: number): boolean {
    return port === TFTP_PORT || this.#sessions.has(port);
  }

  /** Such a datagram, its payload in region 0 in one run; its IP header is at `ip`, the frame at `start`. */
  input(version: number, start: number, ip: number, udp: UdpHeader): void {
    const { pool, stats, mac } = this.#site;
    const packet = this.#packet;
    if (!packet.parse(pool.bytes, udp.payload, udp.payloadEnd) || udp.srcPort === 0) {
      stats.tftpDropMalformed++;
      return;
    }
    const link = linkHeaderReply(pool.bytes, version, ip, start + 6, mac, IP_PROTOCOL_UDP);
    if (udp.dstPort === TFTP_PORT) {
      if (packet.opcode === TFTP_RRQ) this.#request(link, udp.srcPort);
      else if (packet.opcode === TFTP_WRQ)
        this.#error(link, TFTP_PORT, udp.srcPort, TFTP_ERR_ACCESS, 'read only');
      else stats.tftpDropMalformed++;
      return;
    }
    const session = this.#sessions.get(udp.dstPort)!;
    if (session.guestPort !== udp.srcPort || !sameAddress(session.link, link)) {
      if (packet.opcode !== TFTP_ERROR) {
        this.#error(link, udp.dstPort, udp.srcPort, TFTP_ERR_UNKNOWN_ID, 'unknown transfer');
      }
      return;
    }
    if (packet.opcode === TFTP_ERROR) this.#end(session);
    else if (packet.opcode === TFTP_ACK) this.#acknowledged(session, packet.block);
    else {
      this.#error(link, udp.dstPort, udp.srcPort, TFTP_ERR_ILLEGAL, 'illegal operation');
      this.#end(session);
    }
  }

  #request(link: Uint8Array, guestPort: number): void {
    const { stats, config, loop } = this.#site;
    const packet = this.#packet;
    stats.tftpRequests++;
    // A repeated request: the answer was lost, or is under way. It starts anew, as the client did.
    for (const session of [...this.#sessions.values()]) {
      if (session.guestPort === guestPort && sameAddress(session.link, link)) this.#end(session);
    }
    if (packet.mode !== 'octet' && packet.mode !== 'netascii') {
      this.#error(link, TFTP_PORT, guestPort, TFTP_ERR_ILLEGAL, 'unknown mode');
      return;
    }
    const port = this.#sessions.size >= SESSIONS_MAX ? 0 : this.#freePort();
    const file = port === 0 ? null : this.#root.open(packet.filename);
    if (file === null) {
      if (port === 0) this.#error(link, TFTP_PORT, guestPort, TFTP_ERR_UNDEFINED, 'too many transfers');
      else this.#error(link, TFTP_PORT, guestPort, TFTP_ERR_NOT_FOUND, 'file not found');
      return;
    }
    const room = config.ipMtuBytes - (link.length - 14) - UDP_HEADER_BYTES - TFTP_HEADER_BYTES;
    const blockBytes = Math.max(TFTP_BLOCK_MIN_BYTES, Math.min(packet.blockBytes, room));
    const asked = packet.blockBytes >= 0 || packet.timeoutSeconds >= 0 || packet.transferBytes >= 0;
    const session: Session = {
      link,
      guestPort,
      port,
      file,
      blockBytes: packet.blockBytes >= 0 ? blockBytes : Math.min(TFTP_DEFAULT_BLOCK_BYTES, room),
      timeoutNs: (packet.timeoutSeconds >= 0 ? packet.timeoutSeconds : TIMEOUT_SECONDS) * 1e9,
      timer: loop.timer(() => this.#timedOut(session)),
      block: asked ? 0 : 1,
      oack: asked
        ? {
            blockBytes: packet.blockBytes >= 0 ? blockBytes : -1,
            timeoutSeconds: packet.timeoutSeconds,
            transferBytes: packet.transferBytes >= 0 ? file.sizeBytes : -1,
            windowBlocks: -1,
          }
        : null,
      tries: 0,
    };
    this.#sessions.set(port, session);
    this.#transmit(session);
  }

  #freePort(): number {
    for (let tries = 0; tries < 64; tries++) {
      const port = PORT_FIRST + (this.#site.random() & 0x3fff);
      if (!this.#sessions.has(port)) return port;
    }
    return 0;
  }

  #acknowledged(session: Session, block: number): void {
    // Only the block in flight counts: an old one answered again would double every later packet (RFC 1123 section 4.2.3.1).
    if (block !== (session.block & 0xffff)) return;
    if (session.block > 0 && session.block * session.blockBytes > session.file.sizeBytes) {
      this.#end(session);
      return;
    }
    session.block++;
    session.tries = 0;
    this.#transmit(session);
  }

  #transmit(session: Session): void {
    const site = this.#site;
    session.timer.armIn(session.timeoutNs);
    if (site.outbox.room() <= 0) return;
    const frame = allocPacket(site, TFTP_HEADER_BYTES + Math.max(session.blockBytes, 256));
    if (frame === 0) return;
    const place = payloadPlace(site, frame);
    const bytes = site.pool.bytes;
    let length: number;
    if (session.block === 0 && session.oack !== null) {
      length = writeTftpOack(bytes, place, place + 256, session.oack);
    } else {
      writeTftpData(bytes, place, session.block);
      const position = (session.block - 1) * session.blockBytes;
      const wanted = Math.max(0, Math.min(session.blockBytes, session.file.sizeBytes - position));
      const got = session.file.read(position, bytes, place + TFTP_HEADER_BYTES, wanted);
      if (got !== wanted) {
        // The file shrank or cannot be read any more.
        site.pool.release(frame);
        this.#error(session.link, session.port, session.guestPort, TFTP_ERR_UNDEFINED, 'read error');
        this.#end(session);
        return;
      }
      length = TFTP_HEADER_BYTES + wanted;
    }
    const { link } = session;
    sendUdp(
      site,
      frame,
      place,
      length,
      link,
      linkHeaderSum(link),
      linkPseudoSum(link),
      session.port,
      session.guestPort,
    );
  }

  #timedOut(session: Session): void {
    if (++session.tries >= TRIES) this.#end(session);
    else this.#transmit(session);
  }

  #end(session: Session): void {
    session.timer.cancel();
    session.file.close();
    this.#sessions.delete(session.port);
  }

  #error(link: Uint8Array, port: number, guestPort: number, code: number, text: string): void {
    const site = this.#site;
    if (site.outbox.room() <= 0) return;
    const frame = allocPacket(site, ERROR_ROOM);
    if (frame === 0) return;
    const place = payloadPlace(site, frame);
    const length = writeTftpError(site.pool.bytes, place, code, text);
    sendUdp(site, frame, place, length, link, linkHeaderSum(link), linkPseudoSum(link), port, guestPort);
  }

  close(): void {
    for (const session of [...this.#sessions.values()]) this.#end(session);
  }
}

function sameAddress(a: Uint8Array, b: Uint8Array): boolean {
  const x = remoteAddress(a);
  const y = remoteAddress(b);
  return x.length === y.length && x.every((byte, i) => byte === y[i]);
}
