/**
 * `filter-netem`: a bad network on demand. One filter works on the directions its `queue` names; two filters with
 * different values make an asymmetric line. Every option can be changed by qom-set while frames are held.
 */
import { expects } from '../kinds.ts';
import { defineOptions, type OptionsOf } from '../schema.ts';

export const netemOptions = defineOptions({
  delay: { kind: 'duration', bareUnit: 'ms', default: 0, doc: 'How long each frame is held.' },
  jitter: { kind: 'duration', bareUnit: 'ms', default: 0, doc: 'How far the delay of a frame may be off.' },
  distribution: {
    kind: 'enum',
    values: ['uniform', 'normal', 'pareto'],
    default: 'uniform',
    doc: 'How the jitter is distributed.',
  },
  loss: {
    kind: 'percent',
    default: 0,
    doc: 'Frames lost at random; with the gilbert model, how many are lost in its good state.',
  },
  'loss-model': {
    kind: 'enum',
    values: ['random', 'gilbert'],
    default: 'random',
    doc: 'random loses frames independently; gilbert has a good and a bad state and loses them in bursts.',
  },
  'gilbert-bad': {
    kind: 'percent',
    default: 1,
    doc: 'The chance per frame of going from the good state to the bad one.',
  },
  'gilbert-good': {
    kind: 'percent',
    default: 25,
    doc: 'The chance per frame of coming back to the good state.',
  },
  'gilbert-loss': { kind: 'percent', default: 100, doc: 'Frames lost in the bad state.' },
  duplicate: { kind: 'percent', default: 0, doc: 'Frames sent twice.' },
  reorder: { kind: 'percent', default: 0, doc: 'Frames sent at once instead of after their delay.' },
  corrupt: { kind: 'percent', default: 0, doc: 'Frames with one bit flipped.' },
  rate: { kind: 'rate', unit: 'bit/s', default: 0, doc: 'The rate of the line; 0 is no limit.' },
  burst: {
    kind: 'size',
    default: 65536,
    doc: 'How many bytes may go at once before the rate holds them back.',
  },
  limit: {
    kind: 'uint',
    bits: 32,
    default: 1000,
    doc: 'How many frames may be held; more are dropped and counted.',
  },
  seed: { kind: 'uint64', default: 0n, doc: 'Where the random numbers begin; 0 draws a seed.' },
});

export interface NetemConfig {
  readonly delayNs: number;
  readonly jitterNs: number;
  readonly distribution: 'uniform' | 'normal' | 'pareto';
  /** Probabilities from 0 to 1. */
  readonly loss: number;
  /** undefined: losses are independent. */
  readonly gilbert:
    | { readonly toBad: number; readonly toGood: number; readonly lossInBad: number }
    | undefined;
  readonly duplicate: number;
  readonly reorder: number;
  readonly corrupt: number;
  /** undefined: no limit. */
  readonly rateBps: number | undefined;
  readonly burstBytes: number;
  readonly limitFrames: number;
  /** undefined: draw one. */
  readonly seed: bigint | undefined;
}

export function resolveNetem(o: OptionsOf<typeof netemOptions>): NetemConfig {
  if (o.limit < 1) throw expects('limit', 'a number greater than zero');
  if (o.rate > 0 && o.burst < 1514) throw expects('burst', 'a size of at least one frame, 1514');
  const gilbert = o['loss-model'] === 'gilbert';
  return {
    delayNs: o.delay,
    jitterNs: o.jitter,
    distribution: o.distribution,
    loss: o.loss / 100,
    gilbert: gilbert
      ? { toBad: o['gilbert-bad'] / 100, toGood: o['gilbert-good'] / 100, lossInBad: o['gilbert-loss'] / 100 }
      : undefined,
    duplicate: o.duplicate / 100,
    reorder: o.reorder / 100,
    corrupt: o.corrupt / 100,
    rateBps: o.rate === 0 ? undefined : o.rate,
    burstBytes: o.burst,
    limitFrames: o.limit,
    seed: o.seed === 0n ? undefined : o.seed,
  };
}
