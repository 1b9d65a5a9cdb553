/**
 * A frame generator: `framesPerSecond` frames of the least length, with an EtherType that IEEE keeps for experiments (88-B5), so that nobody answers.
 * They go to the gateway's MAC when there is one, else to everybody. At most BURST a turn; what the NIC does not take waits, a
 * generator that fell behind by more than a tenth of a second skips.
 */

import type { Loop, Timer } from '../../core/loop.ts';
import { putU32be } from '../../wire/bytes.ts';
import { ETH_HEADER_BYTES, ETH_MIN_FRAME_BYTES } from '../../wire/ethernet.ts';
import type { IpHost } from './net/host.ts';

const ETHERTYPE_EXPERIMENT = 0x88b5;
const BURST = 256;
const TICK_NS = 1e6;
const BEHIND_NS = 1e8;
const BROADCAST = Uint8Array.of(255, 255, 255, 255, 255, 255);

export class Generator {
  /** Frames handed to the NIC. */
  frames = 0;

  readonly #host: IpHost;
  readonly #loop: Loop;
  readonly #rate: number;
  readonly #mac: Uint8Array;
  readonly #timer: Timer;
  #dueNs = 0;
  #running = false;

  /** `rate`: frames a second; Infinity is as fast as they are taken. */
  constructor(host: IpHost, rate: number, gatewayMac: Uint8Array | null) {
    this.#host = host;
    this.#loop = host.loop;
    this.#rate = rate;
    this.#mac = gatewayMac ?? BROADCAST;
    this.#timer = host.loop.timer(() => this.#tick());
  }

  get frameBytes(): number {
    return ETH_MIN_FRAME_BYTES;
  }

  get running(): boolean {
    return this.#running;
  }

  start(): void {
    this.#running = true;
    this.#dueNs = this.#loop.clock.nowNs();
    this.#tick();
  }

  stop(): void {
    this.#running = false;
    this.#timer.cancel();
  }

  #tick(): void {
    if (!this.#running) return;
    const nowNs = this.#loop.clock.nowNs();
    const stepNs = 1e9 / this.#rate;
    if (nowNs - this.#dueNs > BEHIND_NS) this.#dueNs = nowNs - BEHIND_NS;
    const { link } = this.#host;
    // Half of the room: the others on this NIC have something to send too.
    let room = link.up ? Math.min(BURST, (link.room + 1) >> 1) : 0;
    while (room > 0 && this.#dueNs <= nowNs) {
      if (!this.#send()) break;
      this.#dueNs += stepNs;
      room--;
    }
    this.#host.interface.flush();
    this.#timer.arm(Math.max(this.#dueNs, nowNs + TICK_NS / 10));
  }

  #send(): boolean {
    const iface = this.#host.interface;
    const at = iface.begin(ETH_MIN_FRAME_BYTES);
    if (at < 0) return false;
    iface.memory.fill(0, at + ETH_HEADER_BYTES, at + ETH_MIN_FRAME_BYTES);
    putU32be(iface.memory, at + ETH_HEADER_BYTES, this.frames >>> 0);
    iface.send(at, this.#mac, 0, ETHERTYPE_EXPERIMENT, ETH_MIN_FRAME_BYTES - ETH_HEADER_BYTES);
    this.frames++;
    return true;
  }
}
