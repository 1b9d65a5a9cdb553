/** Runs in the page: two probe guests, each on an e1000, joined by a hub; one serves HTTP, the other fetches from it. */
import {
  Network,
  nics,
  ProbeGuest,
  ProbeMachine,
  parseGuest,
  seededRandom,
  silentLogger,
  VirtualClock,
} from '../../../src/browser.ts';

export interface PageResult {
  lines: string[];
  ok: boolean;
  poolFree: boolean;
  refused: string;
}

export async function run(): Promise<PageResult> {
  const clock = new VirtualClock();
  const random = seededRandom(7);
  const network = new Network({ clock, random, backends: {}, nics });
  const { loop, pool } = network;
  const lines: string[] = [];

  const probe = async (name: string, guest: string, onDone: (ok: boolean) => void) => {
    await network.addNetdev({ type: 'hubport', id: `port-${name}`, hubid: 0 });
    const machine = new ProbeMachine({ loop, pool, random, log: silentLogger });
    const { nic } = network.addDevice({ driver: 'e1000', id: name, netdev: `port-${name}`, host: machine });
    const config = parseGuest(guest);
    if (config.type !== 'probe') throw new Error('not a probe');
    const running = ProbeGuest.onNic(machine, nic, {
      config,
      loop,
      random,
      log: silentLogger,
      report: ({ ok, detail }) => lines.push(`${name} ${ok ? 'ok' : 'failed'} ${detail}`),
      onDone: ({ ok }) => onDone(ok),
    });
    running.start();
    return { running, machine };
  };

  const server = await probe('server', 'probe,http=80', () => {});
  const addressOf = (name: string): string | undefined =>
    new RegExp(`${name} ok link-local address ([0-9.]+)`).exec(lines.join('\n'))?.[1];
  loop.runWhile(() => addressOf('server') === undefined, 120e9);
  let done: boolean | null = null;
  const client = await probe(
    'client',
    `probe,once,get=http://${addressOf('server')}/bytes/1000000,timeout=300`,
    (ok) => {
      done = ok;
    },
  );
  loop.runWhile(() => done === null, 600e9);

  let refused = '';
  await network.addNetdev({ type: 'user', id: 'n0' }).catch((error: Error) => {
    refused = error.message;
  });
  for (const { running, machine } of [client, server]) {
    running.close();
    machine.close();
  }
  network.close();
  loop.runUntil(clock.nowNs());
  return { lines, ok: done === true, poolFree: pool.free === pool.capacity, refused };
}

declare global {
  var netemuPage: typeof run;
}
globalThis.netemuPage = run;
