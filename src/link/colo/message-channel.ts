/**
 * Short texts on a chardev, each behind its length (4 bytes, big-endian), as colo-compare and who makes checkpoints speak. With vnet_hdr_support
 * what is heard also has the length of a virtio_net_hdr, and that header, as frames have; what is said has not (observed of QEMU 11.1).
 *
 * A message that finds the one before it still unsent is not sent: `send` says so. A stream that makes no sense is at its end.
 */

import type { Channel, ChannelUser, Chardev } from '../../chardev/chardev.ts';
import { getLatin1, putLatin1, putU32be, u32be } from '../../wire/bytes.ts';

const LENGTH_BYTES = 4;
/** Of a message and a header before it. */
const MESSAGE_MAX_BYTES = 256;

export class MessageChannel {
  readonly #chardev: Chardev;
  readonly #lengthsBytes: number;
  readonly #heard: (message: string) => void;
  readonly #in = new Uint8Array(2 * LENGTH_BYTES + MESSAGE_MAX_BYTES);
  readonly #out = new Uint8Array(LENGTH_BYTES + MESSAGE_MAX_BYTES);
  #read = 0;
  #sent = 0;
  #filled = 0;
  #channel: Channel | null = null;

  /** `heard` is told of each message. */
  constructor(chardev: Chardev, vnetHdr: boolean, heard: (message: string) => void) {
    this.#chardev = chardev;
    this.#lengthsBytes = vnetHdr ? 2 * LENGTH_BYTES : LENGTH_BYTES;
    this.#heard = heard;
    chardev.attach({
      opened: (channel): ChannelUser => {
        this.#channel = channel;
        this.#read = 0;
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
    putU32be(this.#out, 0, message.length);
    this.#filled = LENGTH_BYTES + putLatin1(this.#out, LENGTH_BYTES, message);
    this.#sent = 0;
    this.#flush();
    return true;
  }

  #flush(): void {
    if (this.#sent === this.#filled) return;
    this.#sent += this.#channel?.write(this.#out, this.#sent, this.#filled) ?? 0;
  }

  #receive(bytes: Uint8Array, from: number, to: number): number {
    for (let at = from; at < to; ) {
      const count = Math.min(this.#wanted() - this.#read, to - at);
      this.#in.set(bytes.subarray(at, at + count), this.#read);
      this.#read += count;
      at += count;
      if (this.#read < this.#lengthsBytes) continue;
      const wanted = this.#wanted();
      if (wanted < 0) {
        this.#channel?.close();
        this.#channel = null;
        break;
      }
      if (this.#read < wanted) continue;
      const start = this.#lengthsBytes + this.#headerBytes();
      const text = getLatin1(this.#in, start, this.#read - start);
      this.#read = 0;
      this.#heard(text);
    }
    return to - from;
  }

  #headerBytes(): number {
    return this.#lengthsBytes > LENGTH_BYTES ? u32be(this.#in, LENGTH_BYTES) : 0;
  }

  /** Bytes to the end of the lengths, or of the message once they are there; negative when they make no sense. */
  #wanted(): number {
    if (this.#read < this.#lengthsBytes) return this.#lengthsBytes;
    const length = u32be(this.#in, 0);
    return length > MESSAGE_MAX_BYTES || this.#headerBytes() > length ? -1 : this.#lengthsBytes + length;
  }

  close(): void {
    this.#chardev.detach();
    this.#channel = null;
  }
}
