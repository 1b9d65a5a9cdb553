/**
 * Counting: the chip's tally counters, which a driver has written to its RAM by DTCCR (8139C+ datasheet, "Dump Tally Counter"), and netemu's
 * counters beside them, which tell every cause by name.
 */

import type { GuestMemory } from '../../pci/guest-memory.ts';

/** netemu's counters of one rtl8139. */
export class Rtl8139Stats {
  rxFrames = 0;
  rxBytes = 0;
  rxDropDisabled = 0;
  rxDropLoopback = 0;
  rxDropBroadcast = 0;
  rxDropMulticast = 0;
  rxDropUnicast = 0;
  rxDropRunt = 0;
  rxDropTooLong = 0;
  /** The descriptor ring or the receive buffer is not RAM. */
  rxDropBadRing = 0;
  rxDropBadAddress = 0;
  /** Looped-back frames for which there was no room. */
  rxDropNoDescriptor = 0;
  /** Offers refused because the driver had given no room; the frames stay with their sender. */
  rxNoDescriptor = 0;
  txFrames = 0;
  txBytes = 0;
  txSegmentations = 0;
  /** Frames whose payload went by reference to guest RAM. */
  txBorrowed = 0;
  txDropRunt = 0;
  txDropTooLong = 0;
  txDropBadAddress = 0;
  /** Checksum or large-send requests that contradict the frame; it went out without. */
  txBadOffload = 0;
  /** Descriptors inside a frame that begin another one, or that continue none. */
  txBadDescriptor = 0;
  /** Rings that are not RAM, or that hold one frame without an end. */
  txBadRing = 0;
  /** Times that transmission waited for a free frame. */
  txPoolExhausted = 0;
  /** Tally dumps to an address that is not RAM. */
  badTallyAddress = 0;
  interrupts = 0;
}

export const TALLY_BYTES = 64;
const MISSED_MAX = 0xffffff;

/** The tally counters, and MPC. */
export class Tally {
  txOk = 0;
  rxOk = 0;
  txError = 0;
  rxError = 0;
  rxMissed = 0;
  rxOkPhysical = 0;
  rxOkBroadcast = 0;
  rxOkMulticast = 0;
  txAbort = 0;
  /** MPC: frames lost for want of room since the driver set it to zero. */
  missedPackets = 0;
  readonly #bytes = new Uint8Array(TALLY_BYTES);

  received(broadcast: boolean, multicast: boolean): void {
    this.rxOk++;
    if (broadcast) this.rxOkBroadcast++;
    else if (multicast) this.rxOkMulticast++;
    else this.rxOkPhysical++;
  }

  /** So many frames for this station alone. */
  receivedPhysical(frames: number): void {
    this.rxOk += frames;
    this.rxOkPhysical += frames;
  }

  missed(frames: number): void {
    this.rxMissed += frames;
    this.missedPackets = Math.min(this.missedPackets + frames, MISSED_MAX);
  }

  clear(): void {
    this.load(new Array(TALLY_FIELDS).fill(0));
  }

  /** Writes the 64 bytes of the dump to guest RAM; false when the address is not RAM. */
  dump(memory: GuestMemory, address: number): boolean {
    const view = new DataView(this.#bytes.buffer);
    const put64 = (at: number, value: number): void => {
      view.setUint32(at, value % 2 ** 32, true);
      view.setUint32(at + 4, Math.floor(value / 2 ** 32), true);
    };
    put64(0, this.txOk);
    put64(8, this.rxOk);
    put64(16, this.txError);
    view.setUint32(24, this.rxError, true);
    view.setUint16(28, this.rxMissed, true);
    // Alignment errors, and frames sent after one or more collisions: there are none.
    view.setUint16(30, 0, true);
    put64(32, 0);
    put64(40, this.rxOkPhysical);
    put64(48, this.rxOkBroadcast);
    view.setUint32(56, this.rxOkMulticast, true);
    view.setUint16(60, this.txAbort, true);
    view.setUint16(62, 0, true);
    return memory.write(address, this.#bytes, 0, TALLY_BYTES);
  }

  save(): number[] {
    return [
      this.txOk,
      this.rxOk,
      this.txError,
      this.rxError,
      this.rxMissed,
      this.rxOkPhysical,
      this.rxOkBroadcast,
      this.rxOkMulticast,
      this.txAbort,
      this.missedPackets,
    ];
  }

  load(values: readonly number[]): void {
    [
      this.txOk,
      this.rxOk,
      this.txError,
      this.rxError,
      this.rxMissed,
      this.rxOkPhysical,
      this.rxOkBroadcast,
      this.rxOkMulticast,
      this.txAbort,
      this.missedPackets,
    ] = values;
  }
}

/** Numbers in a saved tally. */
export const TALLY_FIELDS = 10;
