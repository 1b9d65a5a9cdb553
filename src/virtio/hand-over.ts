/**
 * Queues that somebody else serves: the seam between a virtio device, which keeps its registers, its configuration and its control queue, and a queue server, which lets a program
 * outside work on the guest's rings in place (backends/vhost-user). Neither knows what the other is.
 *
 *     driver ── kick ─▶ device ── kick(n) ─▶ server ── eventfd ─▶ whoever serves
 *     driver ◀─ MSI-X ─ device ◀ interrupt(n) ─ server ◀─ eventfd ─ whoever serves
 *
 * The device does not order starts and stops: it says that something changed (`update`), and the server compares what the source wants with what is, in its own time. A driver that resets the
 * device must not reuse its memory before nobody works on it any more: until then `busyWith` is true, and the device's status does not read zero.
 *
 * Whoever serves reaches the guest's RAM by the files it lies in, so the machine must have such files (SharedRam).
 */

import type { DeviceHost } from '../pci/device-host.ts';
import type { Features } from './features.ts';
import type { QueuePosition, VirtQueue } from './queue.ts';

/** A device whose queues are handed over. */
export interface QueueSource {
  readonly name: string;
  readonly host: DeviceHost;
  /** What the driver took. */
  readonly accepted: Features;
  /** The part of it that whoever serves must be able to do. */
  readonly needed: Features;
  /** The rings are to be served: the driver is ready, DMA is allowed, the link is up. */
  readonly wanted: boolean;
  /** Changes with every reset: queues of another epoch are not these. */
  readonly epoch: number;
  /** Data queues, two for each pair. */
  readonly queueCount: number;
  /** Pairs that the driver uses now. */
  readonly pairsInUse: number;
  /** What the driver was told by the MTU feature; 0: nothing. */
  readonly ipMtuBytes: number;
  /** A data queue that the driver has enabled, standing where it stood when it was served last; null: it has not. */
  queueAt(index: number): VirtQueue | null;
  /** The queue is not served any more, and stands here. */
  stoppedAt(index: number, queue: VirtQueue, position: QueuePosition): void;
  /** Buffers were used. */
  interrupt(index: number): void;
  /** A ring cannot be served any more before the driver resets the device. */
  broken(): void;
}

export interface QueueServer {
  /** The netdev's ports carry frames as well, for a device that does not hand its queues over. Absent: they do not. */
  readonly optional?: boolean;
  /** Queue pairs that it serves. */
  readonly pairs: number;
  /** Some rings may be in use by the other side. */
  readonly active: boolean;
  /** All that was wanted is being served. */
  readonly started: boolean;
  /** What whoever serves can do. */
  readonly features: Features;
  /** Serves this source from now on. Throws UnsupportedError when its RAM lies in no files, and OptionError when there is a source already. */
  attach(source: QueueSource): void;
  detach(source: QueueSource): void;
  /** It still serves queues that the source has reset. */
  busyWith(source: QueueSource): boolean;
  /** Something of the source changed. */
  update(): void;
  /** The driver has kicked the queue. */
  kick(index: number): void;
}
