/**
 * What the two NICs of bench/nic-pair.ts are told in qtest lines, by model: to set them up, to pass one lap of frames from the first to the second, to ask how far
 * both are. Machine `pc`, memory of their own for each NIC.
 */

export interface QtestNic {
  readonly slot: number;
  readonly bar: number;
  readonly mac: string;
  readonly ring: number;
  readonly buffers: number;
}

export const SENDER: QtestNic = {
  slot: 3,
  bar: 0xe0000000,
  mac: '525400123456',
  ring: 0x400000,
  buffers: 0x200000,
};
export const TAKER: QtestNic = {
  slot: 4,
  bar: 0xe0100000,
  mac: '525400123457',
  ring: 0x800000,
  buffers: 0x300000,
};

export interface QtestModel {
  readonly device: string;
  /** What QEMU's devices are told beside the common options. */
  readonly qemuOptions: string;
  /** Frames of a lap, and laps of a sample. */
  readonly lapFrames: number;
  readonly laps: number;
  setUp(length: number): string[];
  /** Offers `lapFrames` frames to be sent, and as many buffers; `done` frames were passed before. With `frames` 0 the same lines offer nothing. */
  lap(done: number, frames: number): string[];
  /** Two lines: how far the sender is, and the taker; and what both say after `done` frames. */
  readonly progress: readonly string[];
  progressAfter(done: number): number;
  /** Where the taker's last buffer has the frame. */
  readonly lastFrame: number;
}

const BUFFER_BYTES = 2048;
const BUFFERS = 256;
export const hex = (value: number): string => `0x${(value >>> 0).toString(16)}`;

function config(nic: QtestNic, offset: number): string {
  return `outl 0xcf8 ${hex(0x80000000 + (nic.slot << 11) + offset)}`;
}

/** The frame of `length` bytes in each of the sender's buffers, `header` zeros in front. */
function frames(length: number, header: number): string[] {
  const frame = `0x${'00'.repeat(header)}${TAKER.mac}${SENDER.mac}88b5${'5a'.repeat(length - 14)}`;
  return Array.from(
    { length: BUFFERS },
    (_, i) => `write ${hex(SENDER.buffers + BUFFER_BYTES * i)} ${header + length} ${frame}`,
  );
}

// e1000: rings of 16384 descriptors over 256 buffers.

const RING = 16384;
const TDH = 0x3810;
const TDT = 0x3818;
const RDH = 0x2810;
const RDT = 0x2818;
const writel = (nic: QtestNic, register: number, value: number): string =>
  `writel ${hex(nic.bar + register)} ${hex(value)}`;
const readl = (nic: QtestNic, register: number): string => `readl ${hex(nic.bar + register)}`;

function descriptors(nic: QtestNic, upper: string): string[] {
  const lines: string[] = [];
  for (let i = 0; i < RING; i++) {
    lines.push(`writeq ${hex(nic.ring + 16 * i)} ${hex(nic.buffers + BUFFER_BYTES * (i % BUFFERS))}`);
    lines.push(`writeq ${hex(nic.ring + 16 * i + 8)} ${upper}`);
  }
  return lines;
}

export const E1000_PAIR: QtestModel = {
  device: 'e1000',
  qemuOptions: '',
  lapFrames: RING - 1,
  laps: 4,
  setUp(length) {
    const lines: string[] = [];
    for (const nic of [SENDER, TAKER]) {
      lines.push(config(nic, 0x10), `outl 0xcfc ${hex(nic.bar)}`, config(nic, 4), 'outw 0xcfc 6');
      lines.push(writel(nic, 0, 0x40));
    }
    // RS, IFCS, EOP.
    const upper = hex(0x0b000000 | length);
    lines.push(...frames(length, 0), ...descriptors(SENDER, upper), ...descriptors(TAKER, '0x0'));
    lines.push(writel(TAKER, 0x2800, TAKER.ring), writel(TAKER, 0x2808, 16 * RING));
    // EN, BAM, 2048-byte buffers, CRC stripped; QEMU keeps frames back for a second after this.
    lines.push(writel(TAKER, 0x100, 0x04008002), 'clock_step 2000000000');
    lines.push(writel(SENDER, 0x3800, SENDER.ring), writel(SENDER, 0x3808, 16 * RING));
    return [...lines, writel(SENDER, 0x400, 0x4010a)];
  },
  // The taker's tail is one short of a lap ahead, and the sender's a lap less one further on.
  lap(done, count) {
    const tail = (done + count) % RING;
    return [writel(TAKER, RDT, tail), writel(SENDER, TDT, tail)];
  },
  progress: [readl(SENDER, TDH), readl(TAKER, RDH)],
  progressAfter: (done) => done % RING,
  lastFrame: TAKER.buffers,
};

// virtio-net: modern registers, split rings, no offloads, no interrupts.

/** What QEMU gives a transmit queue whose peer is no vhost-user. */
const QUEUE = 256;
const HEADER_BYTES = 12;
const AVAILABLE = 0x2000;
const USED = 0x4000;
const NOTIFY = 0x3000;

function setUpVirtio(nic: QtestNic, queue: number, length: number, flags: number): string[] {
  const at = (register: number): string => hex(nic.bar + register);
  const { ring } = nic;
  const lines = [config(nic, 0x20), `outl 0xcfc ${hex(nic.bar)}`, config(nic, 0x24), 'outl 0xcfc 0x0'];
  lines.push(config(nic, 4), 'outw 0xcfc 6', `writeb ${at(0x14)} 0`, `writeb ${at(0x14)} 3`);
  // VERSION_1 only.
  lines.push(`writel ${at(8)} 1`, `writel ${at(12)} 1`, `writeb ${at(0x14)} 11`);
  for (let i = 0; i < QUEUE; i++) {
    lines.push(`writeq ${hex(ring + 16 * i)} ${hex(nic.buffers + BUFFER_BYTES * i)}`);
    lines.push(`writel ${hex(ring + 16 * i + 8)} ${hex(length)}`);
    lines.push(`writel ${hex(ring + 16 * i + 12)} ${hex(flags)}`);
    lines.push(`writew ${hex(ring + AVAILABLE + 4 + 2 * i)} ${hex(i)}`);
  }
  lines.push(
    `writew ${hex(ring + AVAILABLE)} 1`,
    `writew ${at(0x16)} ${queue}`,
    `writew ${at(0x18)} ${QUEUE}`,
  );
  for (const [register, offset] of [0, AVAILABLE, USED].entries()) {
    lines.push(`writel ${at(0x20 + 8 * register)} ${hex(ring + offset)}`);
    lines.push(`writel ${at(0x24 + 8 * register)} 0`);
  }
  return [...lines, `writew ${at(0x1c)} 1`, `writeb ${at(0x14)} 15`];
}

const usedIndex = (nic: QtestNic): string => `readw ${hex(nic.ring + USED + 2)}`;
const notifySender = `writew ${hex(SENDER.bar + NOTIFY + 4)} 1`;

export const VIRTIO_PAIR: QtestModel = {
  device: 'virtio-net-pci',
  /**
   * So that QEMU sends while the line of a notification runs, as the e1000 does, and not in a later turn of its main loop, for which each lap would have to wait. A full
   * burst (256) leaves its timer armed, and a notification then sends at once; the first one only arms it, hence two in `setUp`.
   */
  qemuOptions: ',ioeventfd=off,tx=timer',
  lapFrames: QUEUE,
  laps: 256,
  setUp(length) {
    return [
      ...frames(length, HEADER_BYTES),
      ...setUpVirtio(TAKER, 0, BUFFER_BYTES, 2),
      ...setUpVirtio(SENDER, 1, HEADER_BYTES + length, 0),
      ...[notifySender],
    ];
  },
  lap(done, count) {
    const index = hex((done + count) & 0xffff);
    const offer = (nic: QtestNic): string => `writew ${hex(nic.ring + AVAILABLE + 2)} ${index}`;
    return [offer(TAKER), offer(SENDER), notifySender];
  },
  progress: [usedIndex(SENDER), usedIndex(TAKER)],
  progressAfter: (done) => done & 0xffff,
  lastFrame: TAKER.buffers + BUFFER_BYTES * (QUEUE - 1) + HEADER_BYTES,
};
