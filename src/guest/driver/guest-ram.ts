/**
 * The RAM of a guest that netemu plays itself (probe guest, tests, benches): one run of bytes at a guest-physical address, handed out from the
 * front to drivers. A driver reaches it as a CPU does, through typed arrays; the device reaches the same bytes through GuestMemory.
 */

import { InvariantError } from '../../core/errors.ts';

export class GuestRam {
  /** Guest-physical address of the first byte. */
  readonly address: number;
  readonly bytes: Uint8Array;
  readonly words: Int32Array;
  #next = 0;

  /** `bytes`: memory that others share; it begins at the start of its buffer. */
  constructor(lengthBytes: number, address = 0, bytes: Uint8Array = new Uint8Array(lengthBytes)) {
    this.address = address;
    this.bytes = bytes;
    this.words = new Int32Array(this.bytes.buffer);
  }

  /** Guest address of `lengthBytes` zeroed bytes, aligned to `align` (a power of two). They are never given back one by one: see `mark`. */
  allocate(lengthBytes: number, align = 16): number {
    const at = Math.ceil((this.address + this.#next) / align) * align - this.address;
    if (at + lengthBytes > this.bytes.length)
      throw new InvariantError(`guest RAM of ${this.bytes.length} bytes is used up`);
    this.#next = at + lengthBytes;
    this.bytes.fill(0, at, at + lengthBytes);
    return this.address + at;
  }

  /** What is allocated now; `release` gives back all that was allocated since. */
  mark(): number {
    return this.#next;
  }

  release(mark: number): void {
    this.#next = mark;
  }

  /** Index in `bytes` of a guest address. */
  offset(address: number): number {
    return address - this.address;
  }
}
