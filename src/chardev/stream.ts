/**
 * A chardev as a plain stream handle, for those who move bytes between handles (guestfwd): a socket pair, one end for the caller, the other
 * relayed to the chardev's channel. Nothing is queued here beyond what the two sockets hold: a side that takes no more stops the other.
 *
 * The relay ends with either side, and then leaves the chardev to the next one; a chardev that was described in place is closed with it.
 */

import { type ChardevReference, chardevNotFound } from '../config/chardevs.ts';
import { OptionError } from '../core/errors.ts';
import type { Handle, HostIo } from '../host-io/host-io.ts';
import { type Channel, type ChannelUser, type Chardev, ChardevStats } from './chardev.ts';
import { HandleChannel } from './handle-channel.ts';
import type { Chardevs } from './index.ts';

/**
 * Returns the caller's end at once; bytes wait in it until the chardev is open and connected. Throws OptionError for an id that is not there
 * or in use. When a chardev in place cannot be opened, the stream ends.
 */
export function openChardevStream(chardevs: Chardevs, hostIo: HostIo, reference: ChardevReference): Handle {
  let chardev: Chardev | undefined;
  if (reference.kind === 'chardev') {
    chardev = chardevs.get(reference.id);
    if (chardev === undefined) throw chardevNotFound(reference.id);
    if (chardev.busy) throw new OptionError(`chardev '${reference.id}' is already in use`);
  }
  const [outer, inner] = hostIo.socketPair();
  const relay = new Relay(hostIo, inner);
  if (chardev !== undefined) relay.join(chardev, () => chardev.detach());
  else if (reference.kind === 'device') {
    chardevs.openUnnamed(reference.device).then(
      (opened) => relay.join(opened, () => opened.close()),
      () => relay.end(),
    );
  }
  return outer;
}

class Relay {
  readonly #near: HandleChannel;
  #far: Channel | null = null;
  #leave: (() => void) | null = null;
  #ended = false;

  constructor(hostIo: HostIo, inner: Handle) {
    this.#near = new HandleChannel(
      hostIo,
      { input: inner, output: inner },
      { label: 'relay', passesFds: false, stats: new ChardevStats(), onClose: () => {} },
    );
    this.#near.serve({
      receive: (bytes, from, to) => this.#far?.write(bytes, from, to) ?? 0,
      writable: () => this.#far?.resume(),
      ended: () => this.end(),
      closed: () => this.end(),
    });
  }

  /** `leave` gives the chardev up. */
  join(chardev: Chardev, leave: () => void): void {
    if (this.#ended) {
      leave();
      return;
    }
    this.#leave = leave;
    chardev.attach({
      opened: (channel): ChannelUser => {
        this.#far = channel;
        this.#near.resume();
        return {
          receive: (bytes, from, to) => this.#near.write(bytes, from, to),
          writable: () => this.#near.resume(),
          ended: () => this.end(),
          closed: () => this.end(),
        };
      },
    });
  }

  end(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#far = null;
    this.#near.close();
    this.#leave?.();
  }
}
