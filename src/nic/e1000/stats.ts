/**
 * Counting: the chip's own statistics registers (8254x manual, section 13.7), which stick at all ones and clear when read, and netemu's
 * counters beside them, which tell every cause by name.
 *
 * Sizes in statistics registers include the FCS, which frames here do not carry.
 */

export const FCS_BYTES = 4;

const MPC = 0x4010 >> 2;
/** Word of the first of six counters of received frames by size. */
export const PRC64 = 0x405c >> 2;
const GPRC = 0x4074 >> 2;
const BPRC = 0x4078 >> 2;
const MPRC = 0x407c >> 2;
const GPTC = 0x4080 >> 2;
const GORCL = 0x4088 >> 2;
const GOTCL = 0x4090 >> 2;
const RNBC = 0x40a0 >> 2;
const RUC = 0x40a4 >> 2;
const ROC = 0x40ac >> 2;
const TORL = 0x40c0 >> 2;
const TOTL = 0x40c8 >> 2;
const TPR = 0x40d0 >> 2;
const TPT = 0x40d4 >> 2;
/** The same of frames sent. */
export const PTC64 = 0x40d8 >> 2;
const MPTC = 0x40f0 >> 2;
const BPTC = 0x40f4 >> 2;
const TSCTC = 0x40f8 >> 2;

/** netemu's counters of one e1000. */
export class E1000Stats {
  rxFrames = 0;
  rxBytes = 0;
  rxDropDisabled = 0;
  rxDropLoopback = 0;
  rxDropVlan = 0;
  rxDropBroadcast = 0;
  rxDropMulticast = 0;
  rxDropUnicast = 0;
  rxDropRunt = 0;
  rxDropTooLong = 0;
  rxDropBadRing = 0;
  rxDropBadAddress = 0;
  /** Looped-back frames for which there was no descriptor. */
  rxDropNoDescriptor = 0;
  /** Offers refused because the ring had too few descriptors; the frames stay with their sender. */
  rxNoDescriptor = 0;
  txFrames = 0;
  txBytes = 0;
  txSegmentations = 0;
  /** Frames whose payload went by reference to guest RAM. */
  txBorrowed = 0;
  txDropRunt = 0;
  txDropTooLong = 0;
  txDropBadAddress = 0;
  /** Checksum or segmentation requests that contradict the frame; it went out without. */
  txBadOffload = 0;
  txBadDescriptor = 0;
  /** Doorbells with a head or tail outside the ring. */
  txBadRing = 0;
  /** Times that transmission waited for a free frame. */
  txPoolExhausted = 0;
  /** Accesses that are not 32 bits wide, or not aligned. */
  oddAccess = 0;
  interrupts = 0;
}

export class HardwareStats {
  readonly #regs: Int32Array;

  constructor(regs: Int32Array) {
    this.#regs = regs;
  }

  #add(word: number, count: number): void {
    const sum = (this.#regs[word] >>> 0) + count;
    this.#regs[word] = sum > 0xffffffff ? -1 : sum;
  }

  /** Adds to a 64-bit counter. */
  #add64(low: number, bytes: number): void {
    const sum = (this.#regs[low] >>> 0) + bytes;
    this.#regs[low] = sum;
    if (sum > 0xffffffff) this.#add(low + 1, 1);
  }

  /** A frame of `bytes` bytes without FCS left; `first` is its first address byte and tells a group address. */
  sent(bytes: number, broadcast: boolean, multicast: boolean, count = 1): void {
    this.#regs[PTC64 + sizeBin(bytes + FCS_BYTES)] += count;
    if (broadcast) this.#add(BPTC, count);
    else if (multicast) this.#add(MPTC, count);
  }

  sentTotals(frames: number, bytes: number): void {
    const octets = bytes + FCS_BYTES * frames;
    this.#add(GPTC, frames);
    this.#add(TPT, frames);
    this.#add64(GOTCL, octets);
    this.#add64(TOTL, octets);
  }

  segmentation(): void {
    this.#add(TSCTC, 1);
  }

  received(bytes: number, broadcast: boolean, multicast: boolean): void {
    this.#regs[PRC64 + sizeBin(bytes + FCS_BYTES)]++;
    if (broadcast) this.#add(BPRC, 1);
    else if (multicast) this.#add(MPRC, 1);
  }

  receivedTotals(frames: number, bytes: number): void {
    const octets = bytes + FCS_BYTES * frames;
    this.#add(GPRC, frames);
    this.#add(TPR, frames);
    this.#add64(GORCL, octets);
    this.#add64(TORL, octets);
  }

  missed(frames: number): void {
    this.#add(MPC, frames);
  }

  noBuffer(): void {
    this.#add(RNBC, 1);
  }

  tooShort(): void {
    this.#add(RUC, 1);
  }

  tooLong(): void {
    this.#add(ROC, 1);
  }
}

/** Which of the six size counters a frame belongs to; `octets` with FCS. */
export function sizeBin(octets: number): number {
  if (octets <= 64) return 0;
  if (octets <= 127) return 1;
  if (octets <= 255) return 2;
  if (octets <= 511) return 3;
  return octets <= 1023 ? 4 : 5;
}
