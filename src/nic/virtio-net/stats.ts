/** Counters of a virtio network device; RX and TX are the guest's. */

import { VirtioStats } from '../../virtio/registers.ts';

export class VirtioNetStats extends VirtioStats {
  txFrames = 0;
  txBytes = 0;
  /** Frames that were handed on as large segments. */
  txSegmentations = 0;
  /** Frames whose payload was lent, not copied. */
  txBorrowed = 0;
  /** Shorter than its packet header or an Ethernet header. */
  txDropRunt = 0;
  txDropTooLong = 0;
  /** The packet header contradicts the frame, or asks for what was not negotiated. */
  txDropBadHeader = 0;
  /** A buffer outside RAM. */
  txDropBadAddress = 0;
  txPoolExhausted = 0;
  /** Times that half a ring waited behind a frame that somebody held, and went back out of order. */
  txOrderGivenUp = 0;

  rxFrames = 0;
  rxBytes = 0;
  /** Frames that took more than one buffer. */
  rxMerged = 0;
  /** Frames that found no buffer and stayed with their sender. */
  rxNoBuffer = 0;
  /** The driver is not ready, or the queue for it is not enabled. */
  rxDropDisabled = 0;
  rxDropUnicast = 0;
  rxDropMulticast = 0;
  rxDropBroadcast = 0;
  rxDropVlan = 0;
  rxDropRunt = 0;
  /** Longer than the driver's buffers can ever hold. */
  rxDropTooLong = 0;
  rxDropBadAddress = 0;
  /** Offloads that the driver has switched off since the frame was sent. */
  rxDropOffload = 0;
  /** Buffers too small for the packet header, given back empty. */
  rxBufferTooSmall = 0;

  ctrlCommands = 0;
  ctrlErrors = 0;
  /** Commands without room for their answer. */
  ctrlBadCommand = 0;
}
