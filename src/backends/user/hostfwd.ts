/**
 * Forwards from the host to the guest, over TCP, UDP and unix sockets; added, listed and removed at any time. The guest sees the gateway as the
 * peer, never an address of the host, but where a rule asks for the PROXY protocol: then the connection's first bytes say who made it. A TCP or unix connection becomes a flow of the TCP NAT as soon as the guest's MAC is known. UDP peers
 * share the rule's one socket: each gets a port of the gateway for the guest to answer to, its own number where that is free.
 */

import { isUnspecified } from '../../config/address.ts';
import type { HostForward } from '../../config/netdevs/user-forward.ts';
import { HostIoError, OptionError } from '../../core/errors.ts';
import type { Timer } from '../../core/loop.ts';
import { LENGTH, SLOT } from '../../core/pool.ts';
import { ADDRESS_BYTES, type Endpoint, ERRNO, FAILED, type Handle, READABLE } from '../../host-io/host-io.ts';
import { cutFrame } from '../../tcp/frames.ts';
import { linkHeaderSum, linkHeaderV4, linkHeaderV6, linkPseudoSum } from '../../tcp/link-header.ts';
import { formatIpv4, formatIpv6, toHex, u16be, u32be } from '../../wire/bytes.ts';
import { IP_PROTOCOL_TCP, IP_PROTOCOL_UDP } from '../../wire/ipv4.ts';
import { proxyHeaderTcp, proxyHeaderUnix } from '../../wire/proxy-protocol.ts';
import type { UdpHeader } from '../../wire/udp.ts';
import { PACKET_ROOM, sendUdp } from './packet-out.ts';
import type { Site } from './site.ts';
import type { TcpFlow } from './tcp-flow.ts';
import type { TcpNat } from './tcp-nat.ts';
import { RUN_MAX, runSegmentBytes, splitRun } from './udp-run.ts';

const ACCEPTS_PER_TURN = 64;
const PEERS_MAX = 4096;
const PEER_IDLE_NS = 120e9;
const BATCH = 16;
/** As in udp-nat.ts: a datagram's size is not known before it is received. */
const LARGE_KEPT = 96;

/** A rule that is in force, for `hostfwd_list` and the report at start. */
export interface ForwardInfo {
  readonly rule: string;
  readonly protocol: 'tcp' | 'udp' | 'unix';
  /** Where it listens, the port chosen if it was 0; the path for unix. */
  readonly listen: string;
  readonly port: number;
  readonly guest: string;
  readonly guestPort: number;
  readonly active: number;
  readonly total: number;
}

interface Forward {
  readonly rule: HostForward;
  readonly handle: Handle;
  readonly local: Endpoint;
  readonly flows: Set<TcpFlow>;
  readonly peers: Map<string, Peer>;
  total: number;
  closed: boolean;
}

interface Peer {
  readonly forward: Forward;
  readonly key: string;
  readonly endpoint: Endpoint;
  /** The gateway's port that stands for it. */
  readonly port: number;
  lastNs: number;
}

export class HostForwards {
  readonly #site: Site;
  readonly #tcp: TcpNat;
  readonly #ask: (guest: HostForward['guestAddress']) => void;
  readonly #forwards: Forward[] = [];
  readonly #peersByPort = new Map<number, Peer>();
  readonly #frames = new Int32Array(BATCH);
  readonly #addresses = new Uint8Array(BATCH * ADDRESS_BYTES);
  readonly #out = new Int32Array(RUN_MAX);
  readonly #timer: Timer;

  /** `ask` sends an ARP request or a neighbour solicitation. */
  constructor(site: Site, tcp: TcpNat, ask: (guest: HostForward['guestAddress']) => void) {
    this.#site = site;
    this.#tcp = tcp;
    this.#ask = ask;
    this.#timer = site.loop.timer(() => this.#expire());
  }

  /** Starts to listen. Throws OptionError `Could not set up host forwarding rule 'R'`. */
  add(rule: HostForward): ForwardInfo {
    const { hostIo } = this.#site;
    const failed = (reason?: string): OptionError =>
      new OptionError(
        `Could not set up host forwarding rule '${rule.text}'${reason === undefined ? '' : `: ${reason}`}`,
        {
          option: 'hostfwd',
        },
      );
    const { config } = this.#site;
    if ((rule.guestAddress.family === 4 ? config.ipv4 : config.ipv6) === undefined) throw failed();
    let handle: Handle;
    try {
      if (rule.proto === 'unix') handle = hostIo.unixListen(rule.unixPath!);
      else {
        const local = { address: rule.hostAddress!.text, port: rule.hostPort };
        handle = rule.proto === 'tcp' ? hostIo.tcpListen(local, { v6Only: true }) : hostIo.udpOpen({ local });
      }
    } catch (error) {
      if (error instanceof HostIoError) throw failed();
      throw error;
    }
    const local = rule.proto === 'unix' ? { address: rule.unixPath!, port: 0 } : hostIo.localEndpoint(handle);
    const forward: Forward = {
      rule,
      handle,
      local,
      flows: new Set(),
      peers: new Map(),
      total: 0,
      closed: false,
    };
    this.#forwards.push(forward);
    hostIo.watch(handle, READABLE, (ready) => {
      if (rule.proto !== 'udp') this.#accept(forward);
      else {
        // An error is told until somebody takes it, also while nothing is received.
        if ((ready & FAILED) !== 0) hostIo.takeError(handle);
        if ((ready & READABLE) !== 0) this.#receive(forward);
      }
    });
    // QEMU's default, but seldom what is wanted.
    if (rule.hostAddress !== undefined && isUnspecified(rule.hostAddress)) {
      const { id, log } = this.#site;
      log.warn(
        { port: local.port },
        `hostfwd '${rule.text}' of ${id} listens on every address (${rule.hostAddress.text})`,
      );
    }
    return this.#info(forward);
  }

  /** Stops listening and resets the connections that came this way. False: there is no such rule. */
  remove(matches: (rule: HostForward) => boolean): boolean {
    const index = this.#forwards.findIndex((forward) => matches(forward.rule));
    if (index < 0) return false;
    const [forward] = this.#forwards.splice(index, 1);
    this.#end(forward);
    return true;
  }

  #end(forward: Forward): void {
    forward.closed = true;
    this.#site.hostIo.close(forward.handle);
    for (const flow of [...forward.flows]) flow.close();
    for (const peer of forward.peers.values()) this.#peersByPort.delete(peer.port);
    forward.peers.clear();
  }

  list(): ForwardInfo[] {
    return this.#forwards.map((forward) => this.#info(forward));
  }

  #info(forward: Forward): ForwardInfo {
    const { rule, local } = forward;
    return {
      rule: rule.text,
      protocol: rule.proto,
      listen: local.address,
      port: local.port,
      guest: rule.guestAddress.text,
      guestPort: rule.guestPort,
      active: forward.flows.size + forward.peers.size,
      total: forward.total,
    };
  }

  #accept(forward: Forward): void {
    const { hostIo, neighbours, stats, descriptors } = this.#site;
    const { rule } = forward;
    for (let i = 0; i < ACCEPTS_PER_TURN; i++) {
      const handle = hostIo.accept(forward.handle);
      if ((handle === -ERRNO.EMFILE || handle === -ERRNO.ENFILE) && descriptors.free()) continue;
      if (handle < 0) return;
      stats.forwardConnections++;
      forward.total++;
      const preamble = this.#proxyHeader(rule, handle);
      if (preamble === null) {
        stats.forwardDropGone++;
        hostIo.reset(handle);
        continue;
      }
      neighbours.resolve(
        rule.guestAddress.text,
        () => this.#ask(rule.guestAddress),
        (mac) => {
          if (mac === null || forward.closed) {
            stats.forwardDropNoGuest++;
            hostIo.reset(handle);
            return;
          }
          const link = this.#link(rule, mac, IP_PROTOCOL_TCP);
          const before = forward.flows;
          const flow = this.#tcp.forward(
            handle,
            link,
            rule.guestPort,
            'hostfwd',
            (ended) => before.delete(ended),
            preamble,
          );
          if (flow !== null) forward.flows.add(flow);
        },
      );
    }
  }

  /** What the guest gets first of this connection: undefined when the rule asks for nothing, null when whoever made it is gone again. */
  #proxyHeader({ proxyVersion, unixPath }: HostForward, handle: Handle): Uint8Array | undefined | null {
    if (proxyVersion === 0) return undefined;
    if (unixPath !== undefined) return proxyHeaderUnix(proxyVersion, unixPath);
    const { hostIo } = this.#site;
    try {
      return proxyHeaderTcp(proxyVersion, hostIo.remoteEndpoint(handle), hostIo.localEndpoint(handle));
    } catch (error) {
      if (error instanceof HostIoError) return null;
      throw error;
    }
  }

  #link(rule: HostForward, mac: Uint8Array, protocol: number): Uint8Array {
    const { config, mac: own } = this.#site;
    const guest = rule.guestAddress;
    if (guest.family === 4) return linkHeaderV4(mac, own, config.ipv4!.host.value, guest.value, protocol);
    return linkHeaderV6(mac, own, config.ipv6!.host.bytes, guest.bytes, protocol);
  }

  // UDP.

  /** Until the guest's MAC is known datagrams wait in the socket; `asked` and still unknown: they are dropped. */
  #receive(forward: Forward, asked = false): void {
    const site = this.#site;
    const { hostIo, pool, outbox, neighbours, stats } = site;
    const { rule } = forward;
    const mac = neighbours.find(rule.guestAddress.text);
    if (mac === null && !asked) {
      hostIo.setInterest(forward.handle, 0);
      neighbours.resolve(
        rule.guestAddress.text,
        () => this.#ask(rule.guestAddress),
        (found) => {
          if (forward.closed) return;
          hostIo.setInterest(forward.handle, READABLE);
          if (found === null) this.#receive(forward, true);
        },
      );
      return;
    }
    const frames = this.#frames;
    const large = pool.freeLarge >= LARGE_KEPT;
    let count = 0;
    while (count < BATCH) {
      const frame = large ? pool.allocLarge() : pool.alloc(pool.smallBytes);
      if (frame === 0) break;
      frames[count++] = frame;
    }
    const addresses = this.#addresses;
    const got = Math.max(
      0,
      hostIo.receiveDatagrams(forward.handle, frames, 0, count, PACKET_ROOM, addresses),
    );
    for (let i = 0; i < got; i++) {
      const frame = frames[i];
      const peer = mac === null ? null : this.#peerOf(forward, addresses, i * ADDRESS_BYTES);
      if (mac === null || peer === null || outbox.room() <= 0) {
        stats.forwardDropNoGuest++;
        pool.release(frame);
        continue;
      }
      const link = this.#link(rule, mac, IP_PROTOCOL_UDP);
      const place = pool.table[frame + SLOT] + PACKET_ROOM;
      const bytes = pool.table[frame + LENGTH];
      stats.udpDatagramsIn++;
      sendUdp(
        site,
        frame,
        place,
        bytes,
        link,
        linkHeaderSum(link),
        linkPseudoSum(link),
        peer.port,
        rule.guestPort,
      );
    }
    pool.releaseAll(frames, got, count);
  }

  #peerOf(forward: Forward, addresses: Uint8Array, at: number): Peer | null {
    const nowNs = this.#site.loop.clock.nowNs();
    const key = toHex(addresses, at, 19);
    const known = forward.peers.get(key);
    if (known !== undefined) {
      known.lastNs = nowNs;
      return known;
    }
    if (this.#peersByPort.size >= PEERS_MAX) return null;
    const own = u16be(addresses, at + 16);
    let port = own;
    while (port === 0 || this.#peersByPort.has(port)) port = 49_152 + (this.#site.random() & 0x3fff);
    const address = addresses[at + 18] === 4 ? formatIpv4(u32be(addresses, at)) : formatIpv6(addresses, at);
    const peer: Peer = { forward, key, endpoint: { address, port: own }, port, lastNs: nowNs };
    forward.peers.set(key, peer);
    forward.total++;
    this.#site.stats.forwardConnections++;
    this.#peersByPort.set(port, peer);
    if (!this.#timer.armed) this.#timer.armIn(PEER_IDLE_NS);
    return peer;
  }

  /** Whether a datagram of the guest to the gateway's `port`, from its `guestPort`, is an answer to a forward's peer. */
  answers(port: number, guestPort: number): boolean {
    const peer = this.#peersByPort.get(port);
    return peer !== undefined && peer.forward.rule.guestPort === guestPort;
  }

  /** Such a datagram. Takes the frame, which starts at `start` of region 0. */
  inputUdp(frame: number, start: number, udp: UdpHeader): void {
    const { pool, hostIo, stats, loop } = this.#site;
    const peer = this.#peersByPort.get(udp.dstPort)!;
    const length = udp.payloadEnd - udp.payload;
    const each = runSegmentBytes(pool, frame);
    const cut = cutFrame(pool, frame, udp.payload - start, length);
    if (cut === 0) {
      stats.txDropNoSlot++;
      pool.release(frame);
      return;
    }
    peer.lastNs = loop.clock.nowNs();
    const out = this.#out;
    let count = 1;
    out[0] = cut;
    if (each > 0 && length > each) {
      if (length > each * RUN_MAX) {
        stats.udpDropMalformed++;
        pool.release(cut);
        return;
      }
      stats.udpRunsOut++;
      count = splitRun(pool, cut, each, length, out);
      if (count < Math.ceil(length / each)) stats.txDropNoSlot++;
    }
    const sent = hostIo.sendDatagrams(peer.forward.handle, out, 0, count, peer.endpoint);
    stats.udpDatagramsOut += Math.max(0, sent);
    const lost = count - Math.max(0, sent);
    if (sent >= 0 || sent === -ERRNO.EAGAIN) stats.udpDropHostFull += lost;
    else stats.udpDropHostError += lost;
    pool.releaseAll(out, 0, count);
  }

  #expire(): void {
    const nowNs = this.#site.loop.clock.nowNs();
    for (const peer of [...this.#peersByPort.values()]) {
      if (peer.lastNs + PEER_IDLE_NS > nowNs) continue;
      this.#peersByPort.delete(peer.port);
      peer.forward.peers.delete(peer.key);
    }
    if (this.#peersByPort.size > 0) this.#timer.armIn(PEER_IDLE_NS);
  }

  close(): void {
    this.#timer.cancel();
    for (const forward of this.#forwards.splice(0)) this.#end(forward);
  }
}
