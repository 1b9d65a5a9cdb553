/**
 * Copies between two memories without making a view. `target.set(source.subarray(from, to))` is one allocation for each copy, and costs more than
 * the copy of a short frame; on the data path a memory is therefore held as a `ByteMemory`, the same bytes seen in several ways, and
 * `copyMemory` takes the widest way that both alignments allow.
 *
 * Measured (Node 20, ns for 60 / 192 / 1514 bytes): 64-bit words where both runs lie alike modulo 8: 8 / 25 / 130; 32-bit unaligned access by DataView
 * 19 / 48 / 310; `set(subarray)` 98 / 118 / 134. A BigInt64Array copies words as they are (a Float64Array may change NaNs), and optimised code
 * makes no BigInt of them.
 */

export const NO_WORDS = new Int32Array(0);

const LITTLE_ENDIAN = new Uint8Array(Uint16Array.of(1).buffer)[0] === 1;
/** From here on the engine's own copy is faster than a loop by more than its view costs: alike modulo 8, and not. */
const VIEW_MIN_ALIKE_BYTES = 2048;
const VIEW_MIN_SKEWED_BYTES = 512;
/** Up to here single bytes are as fast as anything. */
const BYTES_MAX = 7;

/** The whole words of `bytes`, or an empty array where it does not start at a multiple of 4. */
export function wordsOf(bytes: Uint8Array): Int32Array {
  if (bytes.byteOffset % 4 !== 0 || !LITTLE_ENDIAN) return NO_WORDS;
  return new Int32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength >>> 2);
}

/** One memory, seen as bytes, as 32-bit and 64-bit words, and unaligned. */
export class ByteMemory {
  readonly bytes: Uint8Array;
  readonly words: Int32Array;
  /** Empty where the memory does not start at a multiple of 8. */
  readonly longs: BigInt64Array;
  readonly view: DataView;

  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
    this.words = wordsOf(bytes);
    const aligned = bytes.byteOffset % 8 === 0 && LITTLE_ENDIAN;
    this.longs = new BigInt64Array(
      bytes.buffer,
      aligned ? bytes.byteOffset : 0,
      aligned ? bytes.byteLength >>> 3 : 0,
    );
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }
}

/** No bytes: what a region holds that was taken away. */
export const NO_MEMORY = new ByteMemory(new Uint8Array(0));

/**
 * Copies `length` bytes; nothing else of the target changes. The runs do not overlap, and the target holds its run; what lies past the end of
 * `source` (a region that was taken away) reads as zeros.
 */
export function copyMemory(
  source: ByteMemory,
  from: number,
  target: ByteMemory,
  to: number,
  length: number,
): void {
  const end = from + length;
  if (end > source.bytes.length) {
    copyMissing(source, from, target, to, length);
    return;
  }
  if (length <= BYTES_MAX) {
    const s = source.bytes;
    const t = target.bytes;
    for (let i = 0; i < length; i++) t[to + i] = s[from + i];
    return;
  }
  if (((from ^ to) & 7) === 0) {
    if (length < VIEW_MIN_ALIKE_BYTES && source.longs.length !== 0 && target.longs.length !== 0) {
      copyAlike(source, from, target, to, length);
      return;
    }
  } else if (length < VIEW_MIN_SKEWED_BYTES) {
    copySkewed(source.view, from, target.view, to, length);
    return;
  }
  target.bytes.set(source.bytes.subarray(from, end), to);
}

/**
 * Like `copyMemory` for runs that lie alike modulo 8, in whole 64-bit words: up to 7 bytes on both sides of the target's run are
 * overwritten. For private slots, where nothing else lies.
 */
export function copyRounded(
  source: ByteMemory,
  from: number,
  target: ByteMemory,
  to: number,
  length: number,
): void {
  const s = source.longs;
  const t = target.longs;
  const i = from >>> 3;
  const j = to >>> 3;
  const end = (from + length + 7) >>> 3;
  if (end > s.length || length >= VIEW_MIN_ALIKE_BYTES || t.length === 0) {
    copyMemory(source, from, target, to, length);
    return;
  }
  copyLongs(s, i, t, j, end);
}

/** Words [i, end) of `s` to `t[j..)`; eight at a time, because a turn of a loop costs as much as two words. */
function copyLongs(s: BigInt64Array, i: number, t: BigInt64Array, j: number, end: number): void {
  for (const last = end - 7; i < last; i += 8, j += 8) {
    t[j] = s[i];
    t[j + 1] = s[i + 1];
    t[j + 2] = s[i + 2];
    t[j + 3] = s[i + 3];
    t[j + 4] = s[i + 4];
    t[j + 5] = s[i + 5];
    t[j + 6] = s[i + 6];
    t[j + 7] = s[i + 7];
  }
  if (end - i >= 4) {
    t[j] = s[i];
    t[j + 1] = s[i + 1];
    t[j + 2] = s[i + 2];
    t[j + 3] = s[i + 3];
    i += 4;
    j += 4;
  }
  for (; i < end; i++, j++) t[j] = s[i];
}

function copyAlike(source: ByteMemory, from: number, target: ByteMemory, to: number, length: number): void {
  const end = from + length;
  const sb = source.bytes;
  const tb = target.bytes;
  if ((from & 7) === 4) {
    target.words[to >> 2] = source.words[from >> 2];
    from += 4;
    to += 4;
  } else {
    while ((from & 7) !== 0) tb[to++] = sb[from++];
  }
  const s = source.longs;
  const t = target.longs;
  const i = from >>> 3;
  const j = to >>> 3;
  const stop = end >>> 3;
  copyLongs(s, i, t, j, stop);
  from = stop << 3;
  to = (j + stop - i) << 3;
  if (end - from >= 4) {
    target.words[to >> 2] = source.words[from >> 2];
    from += 4;
    to += 4;
  }
  while (from < end) tb[to++] = sb[from++];
}

function copySkewed(source: DataView, from: number, target: DataView, to: number, length: number): void {
  const last = from + length - 4;
  const shift = to - from;
  let i = from;
  for (const stop = last - 12; i < stop; i += 16) {
    target.setInt32(i + shift, source.getInt32(i, true), true);
    target.setInt32(i + shift + 4, source.getInt32(i + 4, true), true);
    target.setInt32(i + shift + 8, source.getInt32(i + 8, true), true);
    target.setInt32(i + shift + 12, source.getInt32(i + 12, true), true);
  }
  for (; i < last; i += 4) target.setInt32(i + shift, source.getInt32(i, true), true);
  // The last word once more from its own start: it may overlap the one before, with the same bytes.
  target.setInt32(last + shift, source.getInt32(last, true), true);
}

function copyMissing(source: ByteMemory, from: number, target: ByteMemory, to: number, length: number): void {
  const there = Math.max(0, Math.min(length, source.bytes.length - from));
  if (there > 0) target.bytes.set(source.bytes.subarray(from, from + there), to);
  target.bytes.fill(0, to + there, to + length);
}

/** `copyMemory` for callers that hold bytes and words (`wordsOf`) apart. The two memories may be one when the runs do not overlap. */
export function copyRun(
  source: Uint8Array,
  sourceWords: Int32Array,
  from: number,
  target: Uint8Array,
  targetWords: Int32Array,
  to: number,
  length: number,
): void {
  if (length >= 128) {
    target.set(source.subarray(from, from + length), to);
    return;
  }
  const end = from + length;
  if (length < 16 || sourceWords.length === 0 || targetWords.length === 0) {
    while (from < end) target[to++] = source[from++];
    return;
  }
  while ((to & 3) !== 0) target[to++] = source[from++];
  let t = to >>> 2;
  const count = (end - from) >>> 2;
  const skew = from & 3;
  let s = from >>> 2;
  if (skew === 0) {
    for (const stop = t + count; t < stop; t++, s++) targetWords[t] = sourceWords[s];
  } else {
    // One word less than there are, so that the word behind the run need not exist.
    const right = skew << 3;
    const left = 32 - right;
    let low = sourceWords[s++];
    for (const stop = t + count - 1; t < stop; t++, s++) {
      const high = sourceWords[s];
      targetWords[t] = (low >>> right) | (high << left);
      low = high;
    }
  }
  from += (t << 2) - to;
  to = t << 2;
  while (from < end) target[to++] = source[from++];
}
