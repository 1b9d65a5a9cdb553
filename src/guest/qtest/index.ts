/**
 * A qtest machine: the platform, the chardev on which a client drives it, and the NICs plugged into it. One client at a time; another may come when it
 * has left, and finds the machine as it is.
 */

import type { Channel, Chardev } from '../../chardev/chardev.ts';
import type { VirtualClock } from '../../core/clock.ts';
import { QtestPlatform, type QtestPlatformOptions } from './platform.ts';
import { QtestSession, type Transcript } from './session.ts';

export interface QtestMachineOptions extends QtestPlatformOptions {
  /** The clock of `loop`; nobody else moves it. */
  clock: VirtualClock;
  /** Gets a copy of each conversation. */
  transcript?: Transcript;
}

export class QtestMachine {
  readonly platform: QtestPlatform;
  readonly #options: QtestMachineOptions;
  #chardev: Chardev | null = null;
  #session: QtestSession | null = null;

  /** Throws OptionError for an amount of RAM that does not fit. */
  constructor(options: QtestMachineOptions) {
    this.#options = options;
    this.platform = new QtestPlatform(options);
  }

  /** Speaks the protocol on a chardev from now on. Throws OptionError when it is in use. */
  serve(chardev: Chardev): void {
    chardev.attach({ opened: (channel) => this.#opened(channel) });
    this.#chardev = chardev;
  }

  #opened(channel: Channel): QtestSession {
    const { loop, clock, transcript } = this.#options;
    this.#session?.end();
    this.#session = new QtestSession(channel, {
      platform: this.platform,
      loop,
      clock,
      transcript: transcript ?? (() => {}),
    });
    return this.#session;
  }

  /** After the NICs were closed. */
  close(): void {
    this.#session?.end();
    this.#chardev?.detach();
    this.platform.close();
  }
}

export { QtestPlatform, type QtestSlot } from './platform.ts';
export type { Transcript } from './session.ts';
