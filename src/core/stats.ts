/**
 * Counters. A counter is a public number field of a plain class beside the code that counts (`class E1000Stats { rxDropNoDescriptor = 0 }`):
 * an increment costs nothing, and names are written once. Names tell direction and cause; RX and TX are the guest's. This file only reads
 * such objects, for those who print them.
 */

export type Counters = Readonly<Record<string, number>>;

/** Every numeric field of `stats`, by name, in the order of declaration. */
export function readCounters(stats: object): Counters {
  const out: Record<string, number> = {};
  for (const [name, value] of Object.entries(stats)) if (typeof value === 'number') out[name] = value;
  return out;
}

/** The sum of all counters whose name says that frames were lost. */
export function sumDrops(counters: Counters): number {
  let sum = 0;
  for (const [name, value] of Object.entries(counters)) if (/drop/i.test(name)) sum += value;
  return sum;
}
