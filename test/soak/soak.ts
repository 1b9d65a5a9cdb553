/**
 * `make soak`: one netemu under mixed real traffic for MINUTES (30), the first WARM_UP of which do not count. Prints a line a minute; fails when memory grew
 * more than GROWTH_MIB between the first and the last third of what counts (medians), when a round of any activity fails, a counter goes backwards, or
 * when all is quiet a descriptor, a flow, a slot or a file of a socket is left, or netemu says something unasked or does not end with 0.
 */

import { setTimeout as sleep } from 'node:timers/promises';
import { median } from '../../bench/lib/report.ts';
import { prepare } from '../peers/lib/prepare.ts';
import { backwards } from './counters.ts';
import { Machine, type Sample } from './machine.ts';
import { Traffic } from './traffic.ts';

const MINUTES = Number(process.env.MINUTES ?? 30);
const WARM_UP_MINUTES = Math.min(3, MINUTES / 4);
const GROWTH_MIB = 24;
const SAMPLES_PER_MINUTE = 12;
/** Flows of datagrams end after 60 s without any, closed connections after as long. */
const QUIET_SECONDS = 240;

const failures: string[] = [];
const rounds = new Map<string, number>();
let ending = false;

function fail(what: string): void {
  failures.push(what);
  console.log(`FAILED: ${what}`);
}

async function repeat(name: string, activity: () => Promise<void>): Promise<void> {
  while (!ending) {
    try {
      await activity();
      rounds.set(name, (rounds.get(name) ?? 0) + 1);
    } catch (error) {
      fail(
        `${name}, round ${(rounds.get(name) ?? 0) + 1}: ${error instanceof Error ? error.message : error}`,
      );
      await sleep(1000);
    }
  }
}

function tell(minute: number, { residentMiB, descriptors, network, flows }: Sample): void {
  const { capacity, free, exhausted } = network.pool;
  const done = [...rounds.values()].reduce((sum, count) => sum + count, 0);
  console.log(
    `minute ${minute.toFixed(0)}: RSS ${residentMiB.toFixed(1)} MiB, ${descriptors} descriptors, ${flows} flows, ${capacity - free} of ${capacity} slots (none left ${exhausted} times), ${done} rounds`,
  );
}

async function soak(machine: Machine): Promise<void> {
  await machine.start();
  const traffic = new Traffic(machine);
  const before = await machine.sample();
  tell(0, before);
  await traffic.start();
  const running = Object.entries(traffic.activities).map(([name, activity]) => repeat(name, activity));

  const resident: number[] = [];
  let last = before;
  const startMs = performance.now();
  const ticks = MINUTES * SAMPLES_PER_MINUTE;
  for (let tick = 1; tick <= ticks && machine.netemu.child.exitCode === null; tick++) {
    await sleep(startMs + (tick * 60_000) / SAMPLES_PER_MINUTE - performance.now());
    const now = await machine.sample();
    for (const what of backwards(last.network, now.network)) fail(what);
    last = now;
    if (tick > WARM_UP_MINUTES * SAMPLES_PER_MINUTE) resident.push(now.residentMiB);
    if (tick % SAMPLES_PER_MINUTE === 0) tell(tick / SAMPLES_PER_MINUTE, now);
  }
  ending = true;
  await Promise.all(running);
  await traffic.close();
  for (const [name, count] of rounds) console.log(`${name}: ${count} rounds`);
  for (const name of Object.keys(traffic.activities))
    if (!rounds.has(name)) fail(`${name}: no round succeeded`);

  const third = Math.floor(resident.length / 3);
  const first = median(resident.slice(0, third));
  const end = median(resident.slice(-third));
  console.log(`RSS, medians of the first and the last third: ${first.toFixed(1)}, ${end.toFixed(1)} MiB`);
  // Nor when there are too few samples to say.
  if (!(end - first <= GROWTH_MIB))
    fail(`memory grew by ${(end - first).toFixed(1)} MiB (bound ${GROWTH_MIB})`);

  // Nothing happens any more; what was held for somebody is given back.
  let quiet = await machine.sample();
  const held = (): string[] => [
    ...(quiet.descriptors > before.descriptors
      ? [
          `${quiet.descriptors - before.descriptors} descriptors: ${JSON.stringify(machine.descriptorKinds())}`,
        ]
      : []),
    ...(quiet.flows > 0 ? [`${quiet.flows} flows`] : []),
    ...(quiet.network.pool.free !== quiet.network.pool.capacity
      ? [`${quiet.network.pool.capacity - quiet.network.pool.free} slots`]
      : []),
  ];
  for (let second = 0; second < QUIET_SECONDS && held().length > 0; second++) {
    await sleep(1000);
    quiet = await machine.sample();
  }
  for (const what of held()) fail(`left when all is quiet: ${what}`);
  for (const kind of ['netdevs', 'nics', 'objects', 'chardevs'] as const)
    if (quiet.network[kind].length !== before.network[kind].length)
      fail(`${quiet.network[kind].length} ${kind}, ${before.network[kind].length} at first`);
  console.log(
    `quiet: RSS ${quiet.residentMiB.toFixed(1)} MiB, ${quiet.descriptors} descriptors (${before.descriptors} at first), ${quiet.flows} flows`,
  );

  const { status, output, left } = await machine.stop();
  if (status !== 0) fail(`netemu ended with ${status}:\n${output.slice(-2000)}`);
  // Of the nonsense that stream peers send, it has to warn.
  const expected = 'frame length over the maximum';
  const unasked = output
    .split('\n')
    .filter((line) => /error|exception|warn| {4}at /i.test(line) && !line.includes(expected));
  if (unasked.length > 0) fail(`netemu said:\n${unasked.slice(0, 20).join('\n')}`);
  if (left.length > 0) fail(`files left: ${left.join(' ')}`);
}

await prepare(['tools']);
const machine = new Machine();
try {
  await soak(machine);
} catch (error) {
  fail(`${error instanceof Error ? error.stack : error}\n${machine.netemu?.output.slice(-2000)}`);
} finally {
  await machine.clean();
}
console.log(failures.length === 0 ? 'soak: passed' : `soak: ${failures.length} failures`);
process.exit(failures.length === 0 ? 0 : 1);
