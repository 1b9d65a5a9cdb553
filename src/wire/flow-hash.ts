/**
 * The Toeplitz hash that spreads flows over receive queues (virtio 1.2 section 5.1.6.4.1; Intel and Microsoft's RSS).
 * Each set bit of the input adds (xor) the 32 key bits that start at its position. All of that is worked out per byte
 * value once per key: 36 KiB of table, after which a hash is one table read per input byte.
 *
 * The input is source address, destination address, source port, destination port, in network order.
 */

export const TOEPLITZ_KEY_BYTES = 40;
/** Two IPv6 addresses and two ports. */
const INPUT_MAX_BYTES = 36;

export class ToeplitzHash {
  readonly #table = new Uint32Array(INPUT_MAX_BYTES * 256);

  /** A key of 40 bytes; a shorter one counts as padded with zeros. */
  constructor(key: Uint8Array) {
    for (let position = 0; position < INPUT_MAX_BYTES; position++) {
      for (let bit = 0; bit < 8; bit++) {
        const window = keyWindow(key, position * 8 + bit);
        const mask = 0x80 >>> bit;
        for (let value = 0; value < 256; value++) {
          if (value & mask) this.#table[position * 256 + value] ^= window;
        }
      }
    }
  }

  /** The hash of up to 36 bytes of input in place; the rest is ignored. */
  hash(bytes: Uint8Array, offset: number, length: number): number {
    const count = Math.min(length, INPUT_MAX_BYTES);
    let hash = 0;
    for (let i = 0; i < count; i++) hash ^= this.#table[i * 256 + bytes[offset + i]];
    return hash >>> 0;
  }

  /** Over two IPv4 addresses. */
  hashV4(src: number, dst: number): number {
    return (this.#word(0, src) ^ this.#word(4, dst)) >>> 0;
  }

  /** Over two IPv4 addresses and two ports. */
  hashV4Ports(src: number, dst: number, srcPort: number, dstPort: number): number {
    return (this.#word(0, src) ^ this.#word(4, dst) ^ this.#word(8, (srcPort << 16) | dstPort)) >>> 0;
  }

  /** Over two IPv6 addresses that follow each other, as in an IPv6 header: `offset` is that of the source. */
  hashV6(bytes: Uint8Array, offset: number): number {
    return this.hash(bytes, offset, 32);
  }

  /** `hashV6` and two ports. */
  hashV6Ports(bytes: Uint8Array, offset: number, srcPort: number, dstPort: number): number {
    return (this.hash(bytes, offset, 32) ^ this.#word(32, (srcPort << 16) | dstPort)) >>> 0;
  }

  #word(position: number, value: number): number {
    const table = this.#table;
    const base = position * 256;
    return (
      table[base + (value >>> 24)] ^
      table[base + 256 + ((value >>> 16) & 0xff)] ^
      table[base + 512 + ((value >>> 8) & 0xff)] ^
      table[base + 768 + (value & 0xff)]
    );
  }
}

/** The 32 bits of the key that start at `bit`. */
function keyWindow(key: Uint8Array, bit: number): number {
  let window = 0;
  for (let i = bit; i < bit + 32; i++) {
    const byte = key[i >>> 3] ?? 0;
    window = (window << 1) | ((byte >>> (7 - (i & 7))) & 1);
  }
  return window >>> 0;
}
