/**
 * Copies between two memories without making a view. `target.set(source.subarray(from, to))` is one allocation for each copy; on the data
 * path memories are therefore held as a pair, their bytes and the same bytes as 32-bit words, and `copyRun` moves words wherever it can,
 * shifting them where source and target lie differently within a word.
 */

export const NO_WORDS = new Int32Array(0);

const LITTLE_ENDIAN = new Uint8Array(Uint16Array.of(1).buffer)[0] === 1;
/** From here on the engine's own copy is faster than a loop by more than its view costs. */
const VIEW_MIN_BYTES = 4096;

/** The whole words of `bytes`, or an empty array where it does not start at a multiple of 4. */
export function wordsOf(bytes: Uint8Array): Int32Array {
  if (bytes.byteOffset % 4 !== 0 || !LITTLE_ENDIAN) return NO_WORDS;
  return new Int32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength >>> 2);
}

/** Copies `length` bytes. The words are `wordsOf` the bytes; the two memories may be one when the runs do not overlap. */
export function copyRun(
  source: Uint8Array,
  sourceWords: Int32Array,
  from: number,
  target: Uint8Array,
  targetWords: Int32Array,
  to: number,
  length: number,
): void {
  if (length >= VIEW_MIN_BYTES) {
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
    const blocksEnd = t + (count & ~3);
    for (; t < blocksEnd; t += 4, s += 4) {
      targetWords[t] = sourceWords[s];
      targetWords[t + 1] = sourceWords[s + 1];
      targetWords[t + 2] = sourceWords[s + 2];
      targetWords[t + 3] = sourceWords[s + 3];
    }
    for (const stop = (to >>> 2) + count; t < stop; t++, s++) targetWords[t] = sourceWords[s];
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
