/**
 * Short texts on a chardev, each behind its length (4 bytes, big-endian), as colo-compare and who makes checkpoints speak. A message that finds
 * the one before it still unsent is not sent: `send` says so. A stream that makes no sense is at its end.
 */

import type { Channel, ChannelUser, Chardev } from '../../chardev/chardev.ts';
import { getLatin1, putLatin1 } from '../../wire/bytes.ts';
import {
  FRAMING_BAD,
  FRAMING_FRAME,
  FRAMING_MORE,
  FRAMING_PREFIX_BYTES,
  StreamFraming,
  writeFramingPrefix,
} from '../../wire/framing.ts';

const MESSAGE_MAX_BYTES = 256;

export class MessageChannel {
  readonly #chardev: Chardev;
  readonly #heard: (message: string) => void;
  readonly #framing = new StreamFraming(MESSAGE_MAX_BYTES);
  readonly #in = new Uint8Array(MESSAGE_MAX_BYTES);
  readonly #out = new Uint8Array(FRAMING_PREFIX_BYTES + MESSAGE_MAX_BYTES);
  #sent = 0;
  #filled = 0;
  #channel: Channel | null = null;

  /** `heard` is told of each message. */
  constructor(chardev: Chardev, heard: (message: string) => void) {
    this.#chardev = chardev;
    this.#heard = heard;
    chardev.attach({
      opened: (channel): ChannelUser => {
        this.#channel = channel;
        this.#framing.reset();
        this.#sent = 0;
        this.#filled = 0;
        return {
          receive: (bytes, from, to) => this.#receive(bytes, from, to),
          writable: () => this.#flush(),
          closed: () => {
            this.#channel = null;
          },
        };
      },
    });
  }

  /** False: nobody is there, or the message before is still on its way. */
  send(message: string): boolean {
    if (this.#channel === null || this.#sent < this.#filled) return false;
    writeFramingPrefix(this.#out, 0, message.length);
    this.#filled = FRAMING_PREFIX_BYTES + putLatin1(this.#out, FRAMING_PREFIX_BYTES, message);
    this.#sent = 0;
    this.#flush();
    return true;
  }

  #flush(): void {
    if (this.#sent === this.#filled) return;
    this.#sent += this.#channel?.write(this.#out, this.#sent, this.#filled) ?? 0;
  }

  #receive(bytes: Uint8Array, from: number, to: number): number {
    const framing = this.#framing;
    framing.begin(from);
    for (;;) {
      const found = framing.next(bytes, to);
      if (found === FRAMING_MORE) return to - from;
      if (found === FRAMING_BAD) {
        this.#channel?.close();
        this.#channel = null;
        return to - from;
      }
      for (let i = framing.pieceStart; i < framing.pieceEnd; i++)
        this.#in[framing.pieceAt + i - framing.pieceStart] = bytes[i]!;
      if (found === FRAMING_FRAME) this.#heard(getLatin1(this.#in, 0, framing.frameBytes));
    }
  }

  close(): void {
    this.#chardev.detach();
    this.#channel = null;
  }
}
