/**
 * `filter-hook`: a module of the user decides about each flow or frame. This file knows what such a module is and carries its verdicts out;
 * who loads it is the embedder's matter.
 *
 *     frame ─▶ its flow's verdict, asked for once ('pass', 'drop', or 'frames': look at each) ─▶ the frame's verdict ─▶ next
 *
 * A flow is an EtherType and, for IPv4 and IPv6, protocol, addresses and ports, one direction at a time; FLOWS_MAX of them are remembered, the
 * oldest forgotten first. A hook that throws drops the frame, counted: a bug in it must not let through what it should have stopped.
 */

import type { Logger } from '../../core/log.ts';
import { LENGTH, OFFSET, TOTAL } from '../../core/pool.ts';
import type { LinkContext } from '../../core/port.ts';
import { formatIpv4, formatIpv6, u16be, u32be } from '../../wire/bytes.ts';
import { type Filter, type FilterDirection, PassingStage } from './filter.ts';

/** What a hook's module exports. */
export interface HookModule {
  /** Called when the filter is made; `config` is the text of its option. */
  createHook(site: HookSite): Hook;
}

export interface HookSite {
  readonly config: string;
  readonly netdev: string;
  readonly log: Logger;
  /** The network's clock. */
  nowNs(): number;
}

export interface Hook {
  /** Asked once for each flow; absent: every frame is looked at. */
  flow?(flow: HookFlow): 'pass' | 'drop' | 'frames';
  /**
   * Asked for each frame of a flow that said 'frames'. Bytes returned replace the frame; absent: it passes. Of as many bytes as before, the
   * replacement keeps the frame's offloads (a checksum that is still to be completed); of another length it has none.
   */
  frame?(frame: HookFrame): 'pass' | 'drop' | Uint8Array;
  /** The filter is removed. */
  close?(): void;
}

export interface HookFlow {
  /** rx: to the netdev; tx: from it. */
  readonly direction: 'rx' | 'tx';
  /** Behind VLAN tags. */
  readonly etherType: number;
  /** undefined: not IP, or not to be told from the frame. */
  readonly protocol: number | undefined;
  readonly source: string | undefined;
  readonly destination: string | undefined;
  readonly sourcePort: number | undefined;
  readonly destinationPort: number | undefined;
}

export interface HookFrame {
  readonly flow: HookFlow;
  /** A copy of all bytes, the hook's own. */
  readonly bytes: Uint8Array;
}

export class HookStats {
  passed = 0;
  changed = 0;
  dropHook = 0;
  /** Frames that the hook threw at, or gave no verdict on. */
  dropHookFailed = 0;
  /** Replacements that found no slot or are longer than a frame can be. */
  dropNoSlot = 0;
  flowsSeen = 0;
  closeFailed = 0;
}

const FLOWS_MAX = 4096;
const VLAN_TAGS_MAX = 2;
const ETHERTYPE_VLAN = 0x8100;
const ETHERTYPE_QINQ = 0x88a8;
const ETHERTYPE_IPV4 = 0x0800;
const ETHERTYPE_IPV6 = 0x86dd;
const PROTOCOL_TCP = 6;
const PROTOCOL_UDP = 17;

export interface HookFilterOptions {
  readonly id: string;
  readonly direction: FilterDirection;
  readonly netdev: string;
  readonly config: string;
}

export class HookFilter implements Filter {
  readonly type = 'filter-hook';
  readonly id: string;
  readonly rx: HookStage | null;
  readonly tx: HookStage | null;
  readonly stats = new HookStats();
  active = true;
  readonly #hook: Hook;

  /** What createHook throws is the caller's. */
  constructor(
    options: HookFilterOptions,
    context: LinkContext & { readonly log: Logger },
    module: HookModule,
  ) {
    this.id = options.id;
    const { log, loop } = context;
    this.#hook = module.createHook({
      config: options.config,
      netdev: options.netdev,
      log,
      nowNs: () => loop.clock.nowNs(),
    });
    const stage = (direction: 'rx' | 'tx'): HookStage =>
      new HookStage(direction, this.id, this.#hook, context, this.stats);
    this.rx = options.direction === 'tx' ? null : stage('rx');
    this.tx = options.direction === 'rx' ? null : stage('tx');
  }

  close(): void {
    for (const stage of [this.rx, this.tx]) {
      stage?.peerReady();
      stage?.drop();
    }
    try {
      this.#hook.close?.();
    } catch {
      this.stats.closeFailed++;
    }
  }
}

type Verdict = 'pass' | 'drop' | 'frames';

class HookStage extends PassingStage {
  readonly #direction: 'rx' | 'tx';
  readonly #id: string;
  readonly #hook: Hook;
  readonly #context: LinkContext & { readonly log: Logger };
  readonly #stats: HookStats;
  readonly #flows = new Map<string, { flow: HookFlow; verdict: Verdict }>();
  readonly #one = new Int32Array(1);
  /** A frame that was judged and the far end did not take: it is offered again as it is. */
  #judged = 0;
  #complained = false;

  constructor(
    direction: 'rx' | 'tx',
    id: string,
    hook: Hook,
    context: LinkContext & { readonly log: Logger },
    stats: HookStats,
  ) {
    super();
    this.#direction = direction;
    this.#id = id;
    this.#hook = hook;
    this.#context = context;
    this.#stats = stats;
  }

  receive(frames: Int32Array, from: number, to: number): number {
    if (this.#judged !== 0 && !this.#offerJudged()) return 0;
    for (let i = from; i < to; i++) {
      this.#judged = this.#judge(frames[i]!);
      if (this.#judged !== 0 && !this.#offerJudged()) return i + 1 - from;
    }
    return to - from;
  }

  override peerReady(): void {
    if (this.#judged !== 0 && !this.#offerJudged()) return;
    super.peerReady();
  }

  #offerJudged(): boolean {
    this.#one[0] = this.#judged;
    if (this.next.receive(this.#one, 0, 1) === 0) return false;
    this.#judged = 0;
    return true;
  }

  /** The frame to pass on, or 0 when it was dropped. */
  #judge(frame: number): number {
    const { pool } = this.#context;
    let verdict: Verdict | Uint8Array;
    try {
      const known = this.#flowOf(frame);
      verdict = known.verdict;
      if (verdict === 'frames') {
        verdict = this.#hook.frame?.({ flow: known.flow, bytes: pool.toBytes(frame) }) ?? 'pass';
      }
    } catch (error) {
      this.#complain(error);
      verdict = 'frames';
    }
    if (verdict === 'pass') {
      this.#stats.passed++;
      return frame;
    }
    const replacement = verdict instanceof Uint8Array ? pool.from(verdict) : 0;
    if (replacement !== 0 && pool.table[replacement + TOTAL] === pool.table[frame + TOTAL]) {
      pool.copyFacts(frame, replacement);
    }
    pool.release(frame);
    if (replacement !== 0) this.#stats.changed++;
    else if (verdict === 'drop') this.#stats.dropHook++;
    else if (verdict instanceof Uint8Array) this.#stats.dropNoSlot++;
    else this.#stats.dropHookFailed++;
    return replacement;
  }

  #complain(error: unknown): void {
    if (this.#complained) return;
    this.#complained = true;
    this.#context.log.warn(
      { filter: this.#id, error: String(error) },
      'a hook threw; its frames are dropped',
    );
  }

  #flowOf(frame: number): { flow: HookFlow; verdict: Verdict } {
    const flow = this.#parse(frame);
    const { protocol, source, destination, sourcePort, destinationPort } = flow;
    const key = `${flow.etherType} ${protocol} ${source} ${destination} ${sourcePort} ${destinationPort}`;
    const known = this.#flows.get(key);
    if (known !== undefined) return known;
    const made = { flow, verdict: this.#hook.flow?.(flow) ?? 'frames' };
    if (this.#flows.size === FLOWS_MAX) this.#flows.delete(this.#flows.keys().next().value!);
    this.#flows.set(key, made);
    this.#stats.flowsSeen++;
    return made;
  }

  /** Headers lie in the first segment; what does not fit there is left out of the flow. */
  #parse(frame: number): HookFlow {
    const { pool } = this.#context;
    const bytes = pool.bytes;
    const start = pool.table[frame + OFFSET]!;
    const end = start + pool.table[frame + LENGTH]!;
    let at = start + 12;
    for (let tags = 0; tags < VLAN_TAGS_MAX && at + 2 <= end; tags++) {
      const type = u16be(bytes, at);
      if (type !== ETHERTYPE_VLAN && type !== ETHERTYPE_QINQ) break;
      at += 4;
    }
    const etherType = at + 2 <= end ? u16be(bytes, at) : 0;
    const ip = at + 2;
    const flow = {
      direction: this.#direction,
      etherType,
      protocol: undefined as number | undefined,
      source: undefined as string | undefined,
      destination: undefined as string | undefined,
      sourcePort: undefined as number | undefined,
      destinationPort: undefined as number | undefined,
    };
    let ports = end;
    if (etherType === ETHERTYPE_IPV4 && ip + 20 <= end) {
      flow.protocol = bytes[ip + 9]!;
      flow.source = formatIpv4(u32be(bytes, ip + 12));
      flow.destination = formatIpv4(u32be(bytes, ip + 16));
      // Only the first fragment has ports.
      if ((u16be(bytes, ip + 6) & 0x1fff) === 0) ports = ip + 4 * (bytes[ip]! & 15);
    } else if (etherType === ETHERTYPE_IPV6 && ip + 40 <= end) {
      flow.protocol = bytes[ip + 6]!;
      flow.source = formatIpv6(bytes, ip + 8);
      flow.destination = formatIpv6(bytes, ip + 24);
      ports = ip + 40;
    }
    const hasPorts = flow.protocol === PROTOCOL_TCP || flow.protocol === PROTOCOL_UDP;
    if (hasPorts && ports + 4 <= end) {
      flow.sourcePort = u16be(bytes, ports);
      flow.destinationPort = u16be(bytes, ports + 2);
    }
    return flow;
  }

  /** A frame that nobody took. */
  drop(): void {
    if (this.#judged !== 0) this.#context.pool.release(this.#judged);
    this.#judged = 0;
  }
}
