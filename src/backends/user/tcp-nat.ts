/**
 * TCP between the guest and the host: the engine faces the guest as whatever server it called, a host socket stands behind.
 *
 *     SYN ─▶ policy ─▶ host connect ─▶ connected: SYN-ACK
 *                                   ├▶ refused: RST
 *                                   ├▶ unreachable, forbidden, its hop limit too low: ICMP
 *                                   └▶ no answer: nothing, as the real network
 *
 * So a connect scan from the guest sees the true state of every port. A forward is the same the other way round: accepted on the host,
 * connected to the guest from the gateway's address.
 */

import { HostIoError } from '../../core/errors.ts';
import type { Timer } from '../../core/loop.ts';
import { ERRNO, type Handle } from '../../host-io/host-io.ts';
import type { Connection } from '../../tcp/connection.ts';
import { addressesAt, localAddress, remoteAddress } from '../../tcp/link-header.ts';
import { TcpStack } from '../../tcp/stack.ts';
import { STATE_NAMES, SYN_HELD } from '../../tcp/states.ts';
import { formatIpv4, formatIpv6, u32be } from '../../wire/bytes.ts';
import { DNS_PORT } from '../../wire/dns.ts';
import { DnsTcp } from './dns-tcp.ts';
import { FlowList } from './flow-list.ts';
import {
  flowTransport,
  HOST_UNREACHABLE,
  PROHIBITED,
  sendFlowUnreachable,
  type Unreachable,
  unreachableFor,
} from './icmp-error.ts';
import { hopsOnward, NetworkErrors } from './network-errors.ts';
import type { OwnNames } from './own-names.ts';
import { DENIED, NOBODY, NOWHERE, RESTRICTED, TO_HOST, TO_RESOLVER } from './policy.ts';
import { outbound, type Site } from './site.ts';
import { type FlowOwner, TcpFlow } from './tcp-flow.ts';

const FLOWS_MAX = 16_384;
/** Of these, such as do not stand yet. */
const HALF_OPEN_MAX = 4096;
const RETRY_NS = 2e6;

/** What `query-usernet` shows of a flow. */
export interface FlowInfo {
  readonly protocol: 'tcp' | 'udp' | 'icmp';
  readonly state: string;
  readonly guest: string;
  readonly guestPort: number;
  readonly remote: string;
  readonly remotePort: number;
  readonly fromGuestBytes: number;
  readonly toGuestBytes: number;
  readonly kind: string;
}

/**
 * Servers inside the network that are not the host's: guestfwd and smb. Returns a connected stream, or null when there is none at `port` of the
 * address at `at` of `bytes`.
 */
export type InnerServers = (bytes: Uint8Array, version: number, at: number, port: number) => Handle | null;

export class TcpNat implements FlowOwner {
  readonly stack: TcpStack;
  /** Of the packet that is given to the engine. */
  hopLimit = 0;
  readonly #site: Site;
  /** Those that stand on both sides; those that do not yet. */
  readonly #standing = new FlowList<TcpFlow>();
  readonly #halfOpen = new FlowList<TcpFlow>();
  readonly #frames = new Int32Array(64);
  readonly #inner: InnerServers;
  readonly #dns: DnsTcp;
  readonly #retries = new Set<TcpFlow>();
  readonly #timer: Timer;
  readonly #errors: NetworkErrors;

  constructor(site: Site, inner: InnerServers, names: OwnNames) {
    this.#site = site;
    this.#inner = inner;
    this.#errors = new NetworkErrors(site);
    this.#dns = new DnsTcp(site, names);
    this.#timer = site.loop.timer(() => this.#retryAll());
    this.stack = new TcpStack({
      pool: site.pool,
      loop: site.loop,
      random: site.random,
      mac: site.mac,
      lower: {
        get accepts() {
          return site.accepts();
        },
        room: () => site.outbox.room(),
        transmit: (frame) => site.outbox.push(frame),
      },
      settings: {
        ipMtuBytes: site.config.ipMtuBytes,
        // One virtual wire with backpressure instead of a queue that drops: 64 KiB at once loses nothing (RFC 6928's 10 is for the internet).
        initialWindowSegments: Math.max(10, Math.ceil(65_536 / site.config.ipMtuBytes)),
        // A stray duplicate cannot live longer than a frame waits on this link.
        timeWaitNs: 5e9,
      },
      incoming: (connection) => this.#incoming(connection),
    });
  }

  get flows(): number {
    return this.#ownFlows + this.#dns.flows;
  }

  get #ownFlows(): number {
    return this.#standing.size + this.#halfOpen.size;
  }

  #incoming(c: Connection): void {
    const site = this.#site;
    const { stats } = site;
    const inner = this.#innerServer(c);
    if (inner !== undefined) {
      if (inner !== null) this.#begin(c, inner, true, 'guestfwd');
      return;
    }
    const version = c.version;
    const verdict = site.policy.decide(c.link, version, addressesAt(c.link), 'tcp', c.localPort);
    switch (verdict) {
      case NOWHERE:
        stats.txDropBadDestination++;
        this.#refuse(c, null);
        return;
      case NOBODY:
        this.#refuse(c, HOST_UNREACHABLE);
        return;
      case RESTRICTED:
        stats.txDropRestricted++;
        this.#refuse(c, PROHIBITED);
        return;
      case DENIED:
        stats.txDropDenied++;
        this.#refuse(c, PROHIBITED);
        return;
      case TO_RESOLVER:
        // Another port: the connection is refused with a reset.
        if (c.localPort === DNS_PORT) this.#dns.open(c);
        return;
      default:
    }
    if (this.#ownFlows >= FLOWS_MAX) {
      stats.tcpDropFlowLimit++;
      return;
    }
    let handle: Handle;
    let hopLimited: boolean;
    try {
      const hopLimit = verdict === TO_HOST ? hopsOnward(this.hopLimit) : 0;
      const from = verdict === TO_HOST ? outbound(site, version) : {};
      const remote = { address: site.policy.address, port: c.localPort };
      handle = site.descriptors.open(() =>
        site.hostIo.tcpConnect(remote, { noDelay: true, hopLimit, ...from }),
      );
      hopLimited = hopLimit > 0;
    } catch (error) {
      if (!(error instanceof HostIoError)) throw error;
      // Out of descriptors, and no other flow could give one up: a reset; the connections there are go on.
      stats.tcpDropNoDescriptor++;
      return;
    }
    this.#begin(c, handle, site.hostIo.isConnected(handle), 'nat', hopLimited);
  }

  #innerServer(c: Connection): Handle | null | undefined {
    try {
      return this.#inner(c.link, c.version, addressesAt(c.link), c.localPort) ?? undefined;
    } catch (error) {
      this.#site.log.warn({ error: String(error) }, 'a forward from the guest cannot be opened');
      return null;
    }
  }

  #begin(c: Connection, handle: Handle, connected: boolean, label: string, hopLimited = false): void {
    const flow = new TcpFlow(this.#site, this, handle, connected, label, this.#frames);
    flow.hopLimited = hopLimited;
    flow.connection = c;
    c.user = flow;
    this.#addHalfOpen(flow);
    this.#site.stats.tcpFlowsOpened++;
    flow.start();
    if (connected) c.accept();
  }

  /**
   * Who opens and opens and never finishes (a scan of addresses that do not answer, forged SYNs) takes the place of his own oldest attempts:
   * those that the host has not answered go without a word, so a guest that still means it tries again.
   */
  #addHalfOpen(flow: TcpFlow): void {
    this.#halfOpen.add(flow);
    if (this.#halfOpen.size <= HALF_OPEN_MAX) return;
    const { oldest } = this.#halfOpen;
    if (oldest === null) return;
    this.#site.stats.tcpHalfOpenEvicted++;
    const c = oldest.connection;
    if (c !== null && c.state === SYN_HELD) {
      c.user = null;
      oldest.drop();
      c.refuse(true);
    } else oldest.close();
  }

  established(flow: TcpFlow): void {
    if (flow.list === this.#halfOpen) this.#standing.add(flow);
  }

  /** Refuses a held SYN: by an ICMP error, or without a word. A connection that is left alone is reset by the engine. */
  #refuse(c: Connection, what: Unreachable | null): void {
    this.#site.stats.tcpFlowsRefused++;
    if (what !== null) {
      sendFlowUnreachable(this.#site, c.link, c.remotePort, c.localPort, c.receiver.next - 1, what);
    }
    c.refuse(true);
  }

  connectFailed(flow: TcpFlow, errno: number): void {
    const c = flow.connection;
    const told = c !== null && flow.hopLimited && this.#tellErrors(flow.handle, c);
    flow.drop();
    if (c === null) return;
    this.#site.stats.tcpFlowsRefused++;
    c.user = null;
    const what = unreachableFor(errno);
    if (told) {
      c.refuse(true);
      return;
    }
    if (errno === ERRNO.ECONNREFUSED || errno === ERRNO.ECONNRESET) c.refuse();
    else if (what !== null) this.#refuse(c, what);
    else if (errno === ERRNO.ETIMEDOUT) c.refuse(true);
    else c.refuse();
  }

  /** What routers say about the SYN, to the guest. False: nothing. */
  #tellErrors(handle: Handle, c: Connection): boolean {
    const syn = flowTransport(c.link, c.remotePort, c.localPort, c.receiver.next - 1);
    return this.#errors.tell(handle, c.link, () => syn) > 0;
  }

  ended(flow: TcpFlow): void {
    flow.list?.delete(flow);
    this.#retries.delete(flow);
  }

  retry(flow: TcpFlow): void {
    this.#retries.add(flow);
    if (!this.#timer.armed) this.#timer.armIn(RETRY_NS);
  }

  #retryAll(): void {
    const flows = [...this.#retries];
    this.#retries.clear();
    for (const flow of flows) flow.resume();
  }

  /**
   * Connects a stream of the host to the guest: `link` leads from the address the guest shall see. The handle is the flow's from here on,
   * also when null says that there is no port left. `preamble`: what the guest gets before the host's bytes.
   */
  forward(
    handle: Handle,
    link: Uint8Array,
    guestPort: number,
    label: string,
    onEnd: (flow: TcpFlow) => void,
    preamble?: Uint8Array,
  ): TcpFlow | null {
    const owner: FlowOwner = {
      connectFailed: (flow, errno) => this.connectFailed(flow, errno),
      retry: (flow) => this.retry(flow),
      established: (flow) => this.established(flow),
      ended: (flow) => {
        this.ended(flow);
        onEnd(flow);
      },
    };
    const flow = new TcpFlow(this.#site, owner, handle, true, label, this.#frames);
    if (preamble !== undefined) flow.lead(preamble);
    const c = this.#ownFlows >= FLOWS_MAX ? null : this.stack.connect(flow, link, 0, guestPort);
    if (c === null) {
      this.#site.stats.tcpDropFlowLimit++;
      flow.close();
      return null;
    }
    flow.connection = c;
    this.#addHalfOpen(flow);
    flow.start();
    return flow;
  }

  /** The flows there are. */
  list(): FlowInfo[] {
    const out: FlowInfo[] = this.#dns.list();
    for (const flow of [...this.#standing, ...this.#halfOpen]) {
      const c = flow.connection;
      if (c === null) continue;
      out.push({
        protocol: 'tcp',
        state: STATE_NAMES[c.state],
        guest: addressText(remoteAddress(c.link)),
        guestPort: c.remotePort,
        remote: addressText(localAddress(c.link)),
        remotePort: c.localPort,
        fromGuestBytes: c.receivedBytes,
        toGuestBytes: c.sentBytes,
        kind: flow.label,
      });
    }
    return out;
  }

  close(): void {
    this.#timer.cancel();
    for (const flow of [...this.#standing, ...this.#halfOpen]) {
      flow.connection = null;
      flow.close();
    }
    this.#dns.close();
    this.stack.close();
  }
}

export function addressText(address: Uint8Array): string {
  return address.length === 4 ? formatIpv4(u32be(address, 0)) : formatIpv6(address);
}
