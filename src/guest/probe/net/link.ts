/**
 * The Ethernet link under the probe's IP host: a driver half and its NIC in real use (driver-link.ts), a core port in tests.
 *
 * The guest's packet buffers are a FramePool of its own that lies in guest RAM, as a kernel's packet buffers do: what is sent is sent from
 * where it was written, and goes back to the pool when the device is done with it.
 *
 * Sending small packets: `reserve` gives a place in `memory`, the caller writes the frame there, `send` hands it to the device. A place that
 * was reserved and not sent is simply reserved again. TCP brings whole frames (`sendFrame`). `flush` rings the doorbell once for all that was
 * sent since. When there is no place, the frame is dropped by its sender, counted.
 *
 * Receiving: the link calls `receiver.receive` for each frame, in memory that is valid only during the call, then `receiver.endOfBatch`.
 */

import type { ByteMemory } from '../../../core/copy.ts';
import type { FramePool } from '../../../core/pool.ts';

export interface LinkReceiver {
  /** One frame in `memory.bytes[offset .. offset + length)`, without FCS. `facts`: RX_CSUM_* bits. */
  receive(memory: ByteMemory, offset: number, length: number, facts: number): void;
  /** No more frames for now. */
  endOfBatch(): void;
  linkChanged(up: boolean): void;
  /** There is room to send again after `reserve` had none. */
  room(): void;
}

/** The device has verified the transport checksum of this received frame. */
export const RX_CSUM_VALID = 1;

export interface EthernetLink {
  readonly mac: Uint8Array;
  readonly up: boolean;
  /** `1000 Mb/s full duplex`, or what the hardware says. */
  readonly speedText: string;
  /** The guest's packet buffers; `memory` is its region 0, where frames to send are written. */
  readonly pool: FramePool;
  readonly memory: Uint8Array;
  /** ACCEPT_CSUM, ACCEPT_TSO4, ACCEPT_TSO6 (core/port.ts): the offload facts a frame may ask the device for. */
  readonly offloads: number;
  receiver: LinkReceiver;
  /** The offset in `memory` of a place for a frame of up to `bytes`, or -1 when the device holds them all. */
  reserve(bytes: number): number;
  /** Sends `length` bytes from the reserved place, as they are. */
  send(length: number): void;
  /** How many more frames can be sent now. After it said 0, `receiver.room` tells when that changes. */
  readonly room: number;
  /** Sends a frame of `pool` whose bytes lie in one segment, with its offload facts. Takes it. Returns the bytes sent, or 0 when it was dropped. */
  sendFrame(frame: number): number;
  /** Lets the device see what was sent. */
  flush(): void;
  close(): void;
}
