/**
 * A hub's flood to ten ports against ten plain sends of the same frames over ten links (target: less than 1.2 x), and against a hub that
 * would copy the frame for each port. 1514-byte frames. One JSON line.
 */
import { Port } from '../src/core/port.ts';
import { Hub } from '../src/link/hub.ts';
import { benchContext } from './lib/context.ts';
import { Counter, Source } from './lib/ends.ts';
import { nsPerItem } from './lib/micro.ts';
import { report, runtimeFacts } from './lib/report.ts';

const BATCH = 64;
const BYTES = 1514;
const PORTS = 10;

const context = benchContext();
const hub = new Hub(0, context);
const flooder = new Source(context);
Port.connect(flooder.port, hub.addPort('in').port);
const listeners = Array.from({ length: PORTS }, (_, i) => {
  const counter = new Counter(context);
  Port.connect(counter.port, hub.addPort(`out${i}`).port);
  return counter;
});

const links = Array.from({ length: PORTS }, () => {
  const source = new Source(context);
  const counter = new Counter(context);
  Port.connect(source.port, counter.port);
  return { source, counter };
});

const wire = new Uint8Array(BYTES);
let touched = 0;
const ns = nsPerItem(
  {
    hub: () => flooder.burst(BATCH, BYTES),
    tenSends() {
      for (const link of links) link.source.burst(BATCH, BYTES);
    },
    copyingHub() {
      for (let i = 0; i < BATCH; i++) {
        for (let b = 0; b < 14; b++) wire[b] = b + i;
        for (let p = 0; p < PORTS; p++) touched = (touched + wire.slice()[13]!) | 0;
      }
    },
  },
  BATCH,
);
for (const listener of listeners) {
  if (listener.frames !== flooder.port.stats.sentFrames) throw new Error('frames were lost');
}

report({
  bench: 'hub-fanout',
  ...runtimeFacts(),
  batch: BATCH,
  frameBytes: BYTES,
  ports: PORTS,
  nsPerFrame: ns,
  hubOverTenSends: ns.hub! / ns.tenSends!,
  hubOverCopyingHub: ns.hub! / ns.copyingHub!,
  checksum: touched,
});
