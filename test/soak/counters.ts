/**
 * What netemu's counters must say: none ever falls, and once no frame is on its way, each one that an end of a link has sent was received
 * or dropped, counted, by the other.
 */

import type { EndState, NetworkState } from './machine.ts';

function* endsOf(network: NetworkState): Iterable<EndState> {
  yield* network.nics;
  yield* network.netdevs;
}

/** The counters that are less than before, of ends that were there before (not those plugged and unplugged in between). */
export function backwards(before: NetworkState, now: NetworkState): string[] {
  const found: string[] = [];
  const earlier = new Map([...endsOf(before)].map((end) => [end.id, end]));
  for (const end of endsOf(now)) {
    const old = earlier.get(end.id);
    if (old === undefined || end.id === 'plugged' || end.id === 'card') continue;
    const pairs: [string, Record<string, number>, Record<string, number> | undefined][] = [
      [end.id, end.counters, old.counters],
      ...end.queues.map(
        (queue, i) =>
          [`${end.id}, queue ${i}`, queue.counters, old.queues[i]?.counters] as [
            string,
            Record<string, number>,
            Record<string, number> | undefined,
          ],
      ),
    ];
    for (const [name, counters, was] of pairs)
      for (const [key, count] of Object.entries(counters))
        if (!Number.isSafeInteger(count) || count < (was?.[key] ?? 0))
          found.push(`${name}: ${key} went from ${was?.[key]} to ${count}`);
  }
  return found;
}

const sum = (counters: Record<string, number>, pattern: RegExp): number =>
  Object.entries(counters).reduce((total, [key, count]) => (pattern.test(key) ? total + count : total), 0);

/** Frames that an end has taken from its link, dropped ones among them. */
function taken(end: EndState, isNic: boolean): number {
  if (isNic || end.type === 'hubport') return sum(end.counters, /^rx(Frames|Drop)/);
  // User: of the guest's frames, all are counted. Others: what went out, and what could not.
  if (end.type === 'user') return end.counters.txFrames!;
  return sum(end.counters, /^tx(Frames|Drop)/);
}

/** Links whose two ends do not agree. */
export function imbalances(network: NetworkState): string[] {
  const found: string[] = [];
  const ends = [...endsOf(network)];
  for (const end of ends)
    for (const { peer, counters } of end.queues) {
      const other = ends.find(({ id }) => id === peer);
      if (other === undefined) continue;
      const got = taken(other, network.nics.includes(other));
      if (counters.sentFrames !== got)
        found.push(`${end.id} sent ${counters.sentFrames} frames, ${other.id} took ${got}`);
    }
  return found;
}
