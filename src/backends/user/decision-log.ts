/**
 * The log of egress decisions, so many a second at most: a guest decides how often there is something to tell, and must not fill a disk by it.
 * What was not told is counted and told with the next line.
 */

import type { Logger } from '../../core/log.ts';
import type { Loop } from '../../core/loop.ts';

const BURST = 20;
const PER_SECOND = 5;

export class DecisionLog {
  /** Decisions that no line was written for. */
  suppressed = 0;
  readonly #log: Logger;
  readonly #loop: Loop;
  readonly #netdev: string;
  #tokens = BURST;
  #sinceNs: number;
  #untold = 0;

  constructor(netdev: string, log: Logger, loop: Loop) {
    this.#netdev = netdev;
    this.#log = log;
    this.#loop = loop;
    this.#sinceNs = loop.clock.nowNs();
  }

  /** A refusal at level info, a permission at debug. `rule`: what decided. */
  tell(allow: boolean, protocol: string, address: string, port: number, rule: string): void {
    const nowNs = this.#loop.clock.nowNs();
    this.#tokens = Math.min(BURST, this.#tokens + ((nowNs - this.#sinceNs) / 1e9) * PER_SECOND);
    this.#sinceNs = nowNs;
    if (this.#tokens < 1) {
      this.suppressed++;
      this.#untold++;
      return;
    }
    this.#tokens--;
    const to = protocol === 'icmp' ? { protocol, address } : { protocol, address, port };
    const details = {
      netdev: this.#netdev,
      ...to,
      rule,
      ...(this.#untold > 0 ? { untold: this.#untold } : {}),
    };
    this.#untold = 0;
    if (allow) this.#log.debug(details, 'egress allowed');
    else this.#log.info(details, 'egress denied');
  }
}
