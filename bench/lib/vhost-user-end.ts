/**
 * netemu as a vhost-user back-end in a process of its own, as it is run: what stands behind the NIC counts and frees what comes, or sends as fast as the guest takes.
 * (A second network in the bench's own process would be a quarter slower than the first, whose arrays' addresses the compiler takes for constants.)
 */

import { fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { readDevice } from '../../src/config/devices/index.ts';
import { seededRandom } from '../../src/core/clock.ts';
import { silentLogger } from '../../src/core/log.ts';
import { Loop } from '../../src/core/loop.ts';
import { FramePool, LENGTH, OFFSET, TOTAL } from '../../src/core/pool.ts';
import { ACCEPT_ALL, type Client, type LinkContext, Port } from '../../src/core/port.ts';
import { VhostUserBackend, VhostUserHost } from '../../src/guest/vhost-user/index.ts';
import { NativeHostIo } from '../../src/host-io/native.ts';
import { systemClock } from '../../src/host-io/system-clock.ts';
import { adapt } from '../../src/nic/offload.ts';
import { VirtioNet } from '../../src/nic/virtio-net/index.ts';

const BATCH = 64;
/** Batches sent before the loop looks at other things. */
const PASS_BATCHES = 16;

/** The other end of the NIC's link; it sends while `length` is not 0. */
class End implements Client {
  readonly port: Port;
  frames = 0;
  touched = 0;
  length = 0;
  readonly #context: LinkContext;
  readonly #batch = new Int32Array(BATCH);
  #waiting = 0;
  #posted = false;

  constructor(context: LinkContext) {
    this.#context = context;
    this.port = new Port('end', 'backend', this, context);
    this.port.accepts = ACCEPT_ALL;
  }

  receive(frames: Int32Array, from: number, to: number): number {
    const { pool } = this.#context;
    const { table, bytes } = pool;
    for (let i = from; i < to; i++)
      this.touched = (this.touched + bytes[table[frames[i]! + OFFSET]! + 13]!) | 0;
    pool.releaseAll(frames, from, to);
    this.frames += to - from;
    return to - from;
  }

  peerReady(): void {
    this.send();
  }

  send(): void {
    if (this.#posted || this.length === 0) return;
    this.#posted = true;
    this.#context.loop.post(this.#pass);
  }

  readonly #pass = (): void => {
    this.#posted = false;
    const { length } = this;
    const { pool } = this.#context;
    const { table } = pool;
    const { view } = pool.memories[0]!;
    const batch = this.#batch;
    for (let round = 0; round < PASS_BATCHES && length !== 0; round++) {
      for (; this.#waiting < BATCH; this.#waiting++) {
        const frame = pool.alloc(length);
        if (frame === 0) throw new Error('the pool is exhausted');
        const at = table[frame + OFFSET]!;
        view.setInt32(at, -1);
        view.setInt32(at + 4, 0xffff0607 | 0);
        view.setInt32(at + 8, 0x08090a0b);
        view.setInt16(at + 12, 0x0c0d);
        table[frame + LENGTH] = length;
        table[frame + TOTAL] = length;
        batch[this.#waiting] = frame;
      }
      const taken = this.port.send(batch, 0, BATCH);
      batch.copyWithin(0, taken, BATCH);
      this.#waiting = BATCH - taken;
      if (taken < BATCH) return;
    }
    this.send();
  };

  close(): void {
    this.length = 0;
    this.#context.pool.releaseAll(this.#batch, 0, this.#waiting);
    this.#waiting = 0;
  }
}

class BackEnd {
  readonly #hostIo = new NativeHostIo(undefined, { busyPollNs: 50_000 });
  readonly #pool = new FramePool();
  readonly #end: End;
  readonly #device: VirtioNet;
  readonly #backend: VhostUserBackend;

  constructor(path: string, queueCount: number) {
    const pool = this.#pool;
    const hostIo = this.#hostIo;
    const clock = systemClock();
    const loop = new Loop(clock);
    hostIo.attachPool(pool);
    hostIo.drive(loop);
    const link = { pool, loop, clock, adapt };
    const host = new VhostUserHost({ pool, loop, random: seededRandom(1), log: silentLogger });
    const queues = queueCount > 1 ? { mq: true, queues: queueCount } : {};
    const config = readDevice({ driver: 'virtio-net-pci', packed: true, ...queues } as never);
    if (config.model !== 'virtio-net') throw new Error('not a virtio-net');
    const mac = Uint8Array.of(0x52, 0x54, 0, 1, 2, 3);
    this.#device = new VirtioNet({ host, link, name: 'net0' }, { ...config, mac });
    this.#end = new End(link);
    Port.connect(this.#device.ports[0]!, this.#end.port);
    this.#backend = new VhostUserBackend({
      path,
      listen: true,
      device: this.#device,
      host,
      hostIo,
      loop,
      log: silentLogger,
    });
  }

  /** Sends frames of this length to the guest; 0: none. */
  send(length: number): void {
    this.#end.length = length;
    this.#end.send();
  }

  close(): void {
    const { brokenRings, txDropBadHeader, rxDropTooLong } = this.#device.stats;
    if (brokenRings + txDropBadHeader + rxDropTooLong !== 0) throw new Error('frames were dropped');
    this.#end.close();
    this.#backend.close();
    this.#device.close();
    if (this.#pool.free !== this.#pool.capacity) throw new Error('frames were lost');
    this.#hostIo.shutdown();
  }
}

/** The process, seen from the bench. */
export class VhostUserEnd {
  readonly #child;

  private constructor(path: string, queues: number) {
    this.#child = fork(fileURLToPath(import.meta.url), [path, String(queues)]);
  }

  /** Resolves when its socket listens. */
  static async make(path: string, queues: number): Promise<VhostUserEnd> {
    const end = new VhostUserEnd(path, queues);
    await once(end.#child, 'message');
    return end;
  }

  send(length: number): void {
    this.#child.send(length);
  }

  async close(): Promise<void> {
    const ended = once(this.#child, 'exit');
    this.#child.send('close');
    const [status] = await ended;
    if (status !== 0) throw new Error(`the back-end ended with ${status}`);
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const backEnd = new BackEnd(process.argv[2]!, Number(process.argv[3]));
  process.on('message', (message: number | 'close') => {
    if (message !== 'close') return backEnd.send(message);
    backEnd.close();
    process.disconnect();
  });
  process.send!('listening');
}
