/**
 * How many frames a second pass from one NIC over a hub to another, in netemu and in QEMU 11.1? Both run the same qtest script on the same machine `pc`
 * (bench/lib/qtest-nics.ts): e1000 with rings of 16384 descriptors, virtio-net with split rings of 256, the longest that QEMU has for a transmit queue here.
 *
 * A sample is one message of several laps, each a full ring of frames and the two or three lines that offer it, and then the reads of how far both NICs are. Lines take
 * time too: `linesNs` is what the same message takes when it offers no frame, over the same number of frames. It is nothing for the e1000's long rings; of virtio's
 * laps of 256 frames it is a good part, so the ratio is given with the lines (`ratio`) and without them, for both (`ratioOfFrames`).
 *
 * Neither is measured before WARM_UP_SAMPLES samples; a line is asked before each, so that neither is timed while it wakes up; they take turns.
 *
 *     npx tsx bench/nic-pair.ts [e1000|virtio-net-pci]
 *
 * OTHER=…/dist/cli/main.js measures another build instead of QEMU, for a pair of before and after.
 */

import { forkyCommand } from '../test/peers/lib/forky.ts';
import { prepare } from '../test/peers/lib/prepare.ts';
import { QtestSession } from '../test/peers/lib/qtest-client.ts';
import {
  E1000_PAIR,
  hex,
  type QtestModel,
  type QtestNic,
  SENDER,
  TAKER,
  VIRTIO_PAIR,
} from './lib/qtest-nics.ts';
import { median, report, runtimeFacts } from './lib/report.ts';

const SAMPLES = 21;
const WARM_UP_SAMPLES = 30;

class Contestant {
  readonly #model: QtestModel;
  readonly #session: QtestSession;
  #done = 0;
  readonly samples: number[] = [];
  readonly linesSamples: number[] = [];

  constructor(model: QtestModel, program: string, args: readonly string[]) {
    this.#model = model;
    this.#session = new QtestSession(program, args);
  }

  async prepare(length: number): Promise<void> {
    for (const answer of await this.#session.ask(this.#model.setUp(length)))
      if (!answer.startsWith('OK')) throw new Error(answer);
    for (let i = 0; i < WARM_UP_SAMPLES; i++) {
      await this.#sample(this.#model.lapFrames);
      await this.#sample(0);
    }
  }

  /** Passes `laps` laps of `frames` frames; ns over the frames of full laps. */
  async #sample(frames: number): Promise<number> {
    const session = this.#session;
    const { laps, lapFrames, progress, progressAfter } = this.#model;
    const lines: string[] = [];
    for (let lap = 0; lap < laps; lap++) {
      lines.push(...this.#model.lap(this.#done, frames));
      this.#done += frames;
    }
    lines.push(...progress);
    await session.ask([progress[0]!]);
    const begin = performance.now();
    const answers = await session.ask(lines);
    const ns = ((performance.now() - begin) * 1e6) / (laps * lapFrames);
    for (const answer of answers.slice(-2))
      if (Number(answer.slice(3)) !== progressAfter(this.#done))
        throw new Error(`${answer} after ${this.#done} frames`);
    return ns;
  }

  async measure(): Promise<void> {
    this.samples.push(await this.#sample(this.#model.lapFrames));
    this.linesSamples.push(await this.#sample(0));
  }

  /** Every frame was received: the taker's own index said so after each sample. Its bytes must be there. */
  async finish(length: number): Promise<{ ns: number; linesNs: number }> {
    const [bytes] = await this.#session.ask([`read ${hex(this.#model.lastFrame)} ${length}`]);
    this.#session.close();
    if (!bytes!.endsWith(`${TAKER.mac}${SENDER.mac}88b5${'5a'.repeat(length - 14)}`))
      throw new Error(`received ${bytes}`);
    return { ns: median(this.samples), linesNs: median(this.linesSamples) };
  }
}

function argsFor(model: QtestModel, options: string): string[] {
  const nic = ({ slot, mac }: QtestNic, id: string): string[] => [
    ...['-netdev', `hubport,id=${id},hubid=0`, '-device'],
    `${model.device},netdev=${id},mac=${mac.match(/../g)!.join(':')},addr=${slot}${options}`,
  ];
  const machine = ['-nodefaults', '-display', 'none', '-m', '64M', '-qtest-log', 'none', '-M', 'pc'];
  return [...machine, '-accel', 'qtest', '-qtest', 'stdio', ...nic(SENDER, 'n0'), ...nic(TAKER, 'n1')];
}

const other = process.env.OTHER;
const wanted = process.argv[2];
if (other === undefined) await prepare(['qemu-11.1']);
const models: Record<string, unknown> = {};
for (const model of [E1000_PAIR, VIRTIO_PAIR]) {
  if (wanted !== undefined && wanted !== model.device) continue;
  const sizes: Record<string, Record<string, number>> = {};
  for (const length of [60, 1514]) {
    const ours = new Contestant(model, process.execPath, ['dist/cli/main.js', ...argsFor(model, '')]);
    const qemu =
      other === undefined
        ? forkyCommand('qemu-system-x86_64', argsFor(model, model.qemuOptions))
        : { program: process.execPath, args: [other, ...argsFor(model, '')] };
    const theirs = new Contestant(model, qemu.program, qemu.args);
    await ours.prepare(length);
    await theirs.prepare(length);
    for (let sample = 0; sample < SAMPLES; sample++) {
      await theirs.measure();
      await ours.measure();
    }
    const { ns, linesNs } = await ours.finish(length);
    const { ns: peerNs, linesNs: peerLinesNs } = await theirs.finish(length);
    sizes[length] = {
      ns,
      linesNs,
      framesPerSecond: 1e9 / ns,
      peerNs,
      peerLinesNs,
      peerFramesPerSecond: 1e9 / peerNs,
      ratio: peerNs / ns,
      ratioOfFrames: (peerNs - peerLinesNs) / (ns - linesNs),
    };
  }
  models[model.device] = { lapFrames: model.lapFrames, laps: model.laps, sizes };
}
report({ bench: 'nic-pair', ...runtimeFacts(), peer: other ?? 'QEMU 11.1', models });
