/**
 * The front-end's side of the rings: an eventfd each way and one for errors for each of them, which stay the same whoever serves the ring, and where a ring stands when nobody could be asked.
 *
 * A back-end uses buffers of a split ring in what order it likes, but counts them: whoever comes after one that died goes on from the used index, and serves again what was fetched and not used. Of a
 * packed ring the place to go on from is known only to the one that served it. When it kept an in-flight area, its successor reads it there; otherwise, it can be told from the
 * descriptors alone as long as each buffer is one descriptor and buffers are used in order (`packedPosition`); where that cannot be told, the ring is broken and the driver has to reset the device.
 */

import { type Handle, type HostIo, READABLE } from '../../host-io/host-io.ts';
import type { GuestMemory } from '../../pci/guest-memory.ts';
import type { QueuePosition, VirtQueue } from '../../virtio/queue.ts';

export class RingEvents {
  readonly kick: Handle;
  readonly call: Handle;
  readonly error: Handle;
  readonly #hostIo: HostIo;

  /** `called`: buffers of the ring were used. `failed`: the back-end says that the ring is broken. Throws HostIoError. */
  constructor(hostIo: HostIo, called: () => void, failed: () => void) {
    this.#hostIo = hostIo;
    const made: Handle[] = [];
    try {
      for (let i = 0; i < 3; i++) made.push(hostIo.eventFd());
    } catch (error) {
      for (const handle of made) hostIo.close(handle);
      throw error;
    }
    [this.kick, this.call, this.error] = made as [Handle, Handle, Handle];
    hostIo.watch(this.call, READABLE, () => {
      hostIo.drain(this.call);
      called();
    });
    hostIo.watch(this.error, READABLE, () => {
      hostIo.drain(this.error);
      failed();
    });
  }

  signalKick(): void {
    this.#hostIo.signal(this.kick);
  }

  close(): void {
    for (const handle of [this.kick, this.call, this.error]) this.#hostIo.close(handle);
  }
}

const WRAP = 0x8000;

/** The position behind a back-end's answer to GET_VRING_BASE. */
export function positionOf(base: number, queue: VirtQueue, memory: GuestMemory): QueuePosition {
  if (queue.packed) return { avail: base & 0xffff, used: base >>> 16 };
  return { avail: base & 0xffff, used: Math.max(0, memory.u16(queue.layout.device + USED_INDEX)) };
}

const USED_INDEX = 2;

/** Where the ring of a back-end that died stands; null: it cannot be told. */
export function positionAfterDeath(queue: VirtQueue, memory: GuestMemory): QueuePosition | null {
  if (queue.packed) return packedPosition(queue, memory);
  const used = memory.u16(queue.layout.device + USED_INDEX);
  return used < 0 ? null : { avail: used, used };
}

const DESCRIPTOR_BYTES = 16;
const ID = 12;
const FLAGS = 14;
const DESC_NEXT = 1;
const DESC_AVAIL = 0x80;
const DESC_USED = 0x8000;

/**
 * From one place on there are buffers that the driver made available in this lap (AVAIL is the lap's wrap counter, USED is not), before it what was used in this lap, behind it what was used in the
 * lap before. Any other picture has chains or buffers used out of order in it.
 */
function packedPosition(queue: VirtQueue, memory: GuestMemory): QueuePosition | null {
  const { size, descriptors } = queue.layout;
  const flags = new Uint16Array(size);
  for (let i = 0; i < size; i++) {
    const value = memory.u16(descriptors + DESCRIPTOR_BYTES * i + FLAGS);
    if (value < 0) return null;
    flags[i] = value;
  }
  const availOf = (i: number): boolean => (flags[i]! & DESC_AVAIL) !== 0;
  const isOpen = (i: number): boolean => availOf(i) !== ((flags[i]! & DESC_USED) !== 0);
  // The place is the first of the buffers that wait; where none waits, the first one of the lap before.
  let place = -1;
  for (let i = 0; i < size && place < 0; i++) {
    const before = (i + size - 1) % size;
    // From the last descriptor to the first one the lap changes by itself.
    const isNextLap = (availOf(i) !== availOf(before)) === i > 0;
    if (isOpen(i) && (!isOpen(before) || isNextLap)) place = i;
  }
  if (place < 0 && isOpen(0)) place = 0;
  let wrap: boolean;
  if (place >= 0) {
    wrap = availOf(place);
  } else {
    // All used: the lap changes where AVAIL does.
    const lap = availOf(0);
    place = 0;
    while (place < size && availOf(place) === lap) place++;
    if (place === size) {
      place = 0;
      wrap = !lap;
    } else {
      wrap = lap;
    }
  }
  // Now the whole ring must be as that place says.
  let waiting = true;
  let open = 0;
  for (let n = 0; n < size; n++) {
    const i = (place + n) % size;
    const lap = place + n < size ? wrap : !wrap;
    if (isOpen(i)) {
      if (!waiting || availOf(i) !== lap || (flags[i]! & DESC_NEXT) !== 0) return null;
      open++;
    } else {
      waiting = false;
      if (availOf(i) === lap) return null;
    }
  }
  // A ring whose only buffer so far was a chain of two looks like one with a buffer waiting, but for its id.
  const id = (i: number): number => memory.u16(descriptors + DESCRIPTOR_BYTES * i + ID);
  if (place === 1 && wrap && open === 1 && id(0) === id(1)) return null;
  const at = place | (wrap ? WRAP : 0);
  return { avail: at, used: at };
}
