/** What all chardevs share: one user at a time, counters, and for those with one permanent channel, the channel itself. */

import type { ChardevConfig } from '../config/chardevs.ts';
import { OptionError } from '../core/errors.ts';
import type { Handle } from '../host-io/host-io.ts';
import { type Channel, type ChannelUser, type Chardev, ChardevStats, type ChardevUser } from './chardev.ts';

export abstract class BaseChardev implements Chardev {
  readonly config: ChardevConfig;
  readonly stats = new ChardevStats();
  protected user: ChardevUser | null = null;

  constructor(config: ChardevConfig) {
    this.config = config;
  }

  get id(): string {
    return this.config.id;
  }

  get busy(): boolean {
    return this.user !== null;
  }

  attach(user: ChardevUser): void {
    if (this.user !== null) throw chardevInUse(this.id);
    this.user = user;
    this.attached();
  }

  detach(): void {
    if (this.user === null) return;
    this.user = null;
    this.detached();
  }

  abstract readonly connected: boolean;
  abstract describe(): string;
  protected abstract attached(): void;
  protected abstract detached(): void;
  abstract close(): void;
}

export function chardevInUse(id: string): OptionError {
  return new OptionError(`chardev '${id}' is already in use`, { option: 'chardev' });
}

/** A chardev that is its own one channel, open for as long as somebody uses it. */
export abstract class PlainChardev extends BaseChardev implements Channel {
  protected channelUser: ChannelUser | null = null;

  get connected(): boolean {
    return this.channelUser !== null;
  }

  protected override attached(): void {
    this.stats.opened++;
    this.channelUser = this.user!.opened(this);
    this.resume();
  }

  protected override detached(): void {
    if (this.channelUser !== null) this.stats.closed++;
    this.channelUser = null;
  }

  abstract write(bytes: Uint8Array, from: number, to: number): number;

  /** Without input there is nothing to go on with. */
  resume(): void {}

  takeFds(): Handle[] {
    return [];
  }

  close(): void {
    this.detach();
  }
}
