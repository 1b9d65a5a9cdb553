/**
 * How many frames a second pass from one e1000 over a hub to another, in netemu and in QEMU 11.1? Both run the same qtest script on the same machine
 * `pc`: rings of 16384 descriptors in guest RAM, one write of each tail register, and reads of the heads until all frames are received. The time of the
 * two or three qtest lines of a round is counted for both.
 *
 *     npx tsx bench/nic-pair.ts
 */

import { forkyCommand } from '../test/peers/lib/forky.ts';
import { prepare } from '../test/peers/lib/prepare.ts';
import { QtestSession } from '../test/peers/lib/qtest-client.ts';
import { median, report, runtimeFacts } from './lib/report.ts';

const RING = 16384;
const ROUND_FRAMES = RING - 1;
const BUFFERS = 256;
const BUFFER_BYTES = 2048;
const ROUNDS = 15;
const WARM_UP_ROUNDS = 20;
const SENDER = { slot: 3, bar: 0xe0000000, mac: '525400123456', ring: 0x400000, buffers: 0x200000 };
const TAKER = { slot: 4, bar: 0xe0100000, mac: '525400123457', ring: 0x800000, buffers: 0x300000 };
const TDH = 0x3810;
const TDT = 0x3818;
const RDH = 0x2810;
const RDT = 0x2818;
const GPRC = 0x4074;

type Nic = typeof SENDER;
const hex = (value: number): string => `0x${(value >>> 0).toString(16)}`;
const write = (nic: Nic, register: number, value: number): string =>
  `writel ${hex(nic.bar + register)} ${hex(value)}`;
const read = (nic: Nic, register: number): string => `readl ${hex(nic.bar + register)}`;

function setUp(nic: Nic): string[] {
  const config = (offset: number): string => `outl 0xcf8 ${hex(0x80000000 + (nic.slot << 11) + offset)}`;
  return [config(0x10), `outl 0xcfc ${hex(nic.bar)}`, config(4), 'outw 0xcfc 6', write(nic, 0, 0x40)];
}

function descriptors(nic: Nic, upper: string): string[] {
  const lines: string[] = [];
  for (let i = 0; i < RING; i++) {
    lines.push(`writeq ${hex(nic.ring + 16 * i)} ${hex(nic.buffers + BUFFER_BYTES * (i % BUFFERS))}`);
    lines.push(`writeq ${hex(nic.ring + 16 * i + 8)} ${upper}`);
  }
  return lines;
}

class Contestant {
  readonly #session: QtestSession;
  #tail = 0;
  #expected = 0;
  readonly samples: number[] = [];

  constructor(program: string, args: readonly string[]) {
    this.#session = new QtestSession(program, args);
  }

  async prepare(length: number): Promise<void> {
    const frame = `0x${TAKER.mac}${SENDER.mac}88b5${'5a'.repeat(length - 14)}`;
    const lines = [...setUp(SENDER), ...setUp(TAKER)];
    for (let i = 0; i < BUFFERS; i++)
      lines.push(`write ${hex(SENDER.buffers + BUFFER_BYTES * i)} ${length} ${frame}`);
    // RS, IFCS, EOP.
    lines.push(...descriptors(SENDER, hex(0x0b000000 | length)), ...descriptors(TAKER, '0x0'));
    lines.push(write(TAKER, 0x2800, TAKER.ring), write(TAKER, 0x2808, 16 * RING));
    // EN, BAM, 2048-byte buffers, CRC stripped; QEMU keeps frames back for a second after this.
    lines.push(write(TAKER, 0x100, 0x04008002), 'clock_step 2000000000');
    lines.push(write(SENDER, 0x3800, SENDER.ring), write(SENDER, 0x3808, 16 * RING));
    lines.push(write(SENDER, 0x400, 0x4010a), read(TAKER, GPRC));
    await this.#session.ask(lines);
    for (let i = 0; i < WARM_UP_ROUNDS; i++) await this.#round();
  }

  /** Sends and receives ROUND_FRAMES; returns ns a frame. */
  async #round(): Promise<number> {
    const session = this.#session;
    // The receiver's ring is one short of a lap ahead, and the sender's ring a lap less one further on.
    const tail = (this.#tail + ROUND_FRAMES) % RING;
    const begin = performance.now();
    await session.ask([write(TAKER, RDT, tail), write(SENDER, TDT, tail)]);
    for (;;) {
      const [sent, received] = await session.ask([read(SENDER, TDH), read(TAKER, RDH)]);
      if (Number(sent!.slice(3)) === tail && Number(received!.slice(3)) === tail) break;
    }
    const ns = ((performance.now() - begin) * 1e6) / ROUND_FRAMES;
    this.#tail = tail;
    this.#expected += ROUND_FRAMES;
    return ns;
  }

  async measure(): Promise<void> {
    this.samples.push(await this.#round());
  }

  /** Every frame must have been counted by the receiving chip, and its bytes be there. */
  async finish(length: number): Promise<number> {
    const [counted] = await this.#session.ask([read(TAKER, GPRC)]);
    const [bytes] = await this.#session.ask([`read ${hex(TAKER.buffers)} ${length}`]);
    this.#session.close();
    if (Number(counted!.slice(3)) !== this.#expected) throw new Error(`${counted} of ${this.#expected}`);
    if (!bytes!.endsWith(`88b5${'5a'.repeat(length - 14)}`)) throw new Error(`received ${bytes}`);
    return median(this.samples);
  }
}

await prepare(['qemu-11.1']);
const nic = ({ slot, mac }: Nic, id: string): string[] => [
  ...['-netdev', `hubport,id=${id},hubid=0`],
  ...['-device', `e1000,netdev=${id},mac=${mac.match(/../g)!.join(':')},addr=${slot}`],
];
const machine = ['-nodefaults', '-display', 'none', '-m', '64M', '-qtest-log', '/dev/null', '-M', 'pc'];
const args = [...machine, '-accel', 'qtest', '-qtest', 'stdio', ...nic(SENDER, 'n0'), ...nic(TAKER, 'n1')];
const qemu = forkyCommand('qemu-system-x86_64', args);
const sizes: Record<string, Record<string, number>> = {};
for (const length of [60, 1514]) {
  const ours = new Contestant(process.execPath, ['dist/cli/main.js', ...args]);
  const theirs = new Contestant(qemu.program, qemu.args);
  await ours.prepare(length);
  await theirs.prepare(length);
  for (let round = 0; round < ROUNDS; round++) {
    await theirs.measure();
    await ours.measure();
  }
  const ns = await ours.finish(length);
  const qemuNs = await theirs.finish(length);
  sizes[length] = {
    ns,
    framesPerSecond: 1e9 / ns,
    qemuNs,
    qemuFramesPerSecond: 1e9 / qemuNs,
    ratio: qemuNs / ns,
  };
}
report({ bench: 'nic-pair', ...runtimeFacts(), ring: RING, nsPerFrame: sizes });
