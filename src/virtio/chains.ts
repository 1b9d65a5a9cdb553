/**
 * Descriptor chains that a queue handed out, as a structure of arrays: a queue's `fetch` fills it, a device walks it, nothing is allocated. It is also
 * the private copy of the descriptors: each was read from guest memory once and checked, so nothing that the guest changes later matters.
 *
 * Chain i has the parts [first[i], first[i + 1]); those before writeFrom[i] are for the device to read, the rest for it to write.
 */

/** Chains of one batch. */
export const CHAINS_MAX = 256;
/** Parts of one chain, as QEMU allows; a longer one is an error. */
export const CHAIN_PARTS_MAX = 1024;
const PARTS_MAX = 2 * CHAIN_PARTS_MAX;
/** A part is never taken for longer than this: nothing here is as long. */
export const PART_MAX_BYTES = 2 ** 30;

export class ChainBatch {
  count = 0;
  /** What the driver knows the chain by: index of its first descriptor, or the buffer id of a packed ring. */
  readonly id = new Int32Array(CHAINS_MAX);
  /** Descriptors of the ring that the chain takes. */
  readonly slots = new Int32Array(CHAINS_MAX);
  readonly first = new Int32Array(CHAINS_MAX + 1);
  readonly writeFrom = new Int32Array(CHAINS_MAX);
  /** Guest address and bytes of each part; at least 1 byte, at most PART_MAX_BYTES. */
  readonly address = new Float64Array(PARTS_MAX);
  readonly length = new Int32Array(PARTS_MAX);

  /** Whether a further chain of any length still has room. */
  hasRoom(parts: number): boolean {
    return parts <= PARTS_MAX - CHAIN_PARTS_MAX;
  }

  /** Bytes of parts [from, to). */
  bytes(from: number, to: number): number {
    let sum = 0;
    for (let i = from; i < to; i++) sum += this.length[i];
    return sum;
  }
}
