/**
 * What netemu's counters must say while it runs: none ever falls. That the two ends of a link agree is not asked: a link that is down, a filter and
 * segmentation each change what arrives.
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
