/**
 * The driver's half of a NIC, one interface over every model. The probe guest, the tests and the benches drive NICs through it, by
 * registers and descriptor rings in guest RAM, as an operating system's driver does; nothing here reaches into a model.
 *
 * Packets are described by numbers: a `PacketBatch` is a structure of arrays that the caller fills and reuses. A packet's bytes lie in guest RAM in one piece and
 * stay the driver's until it reports them sent. Received packets are shown one at a time, in the driver's own buffers, which
 * go back to the NIC when the listener returns.
 *
 * Who owns the machine calls `interrupt` after the NIC raised its interrupt (not from within `setIntx` or `signalMsi`: a CPU takes an interrupt
 * after the instruction, so post it to the loop). A driver may also be polled: `interrupt` is harmless when nothing happened.
 */

import type { Loop } from '../../core/loop.ts';
import type { GuestRam } from './guest-ram.ts';

/** One PCI function as a CPU sees it. A `PciFunction` is one; values are unsigned, sizes 1, 2 or 4 bytes. */
export interface PciAccess {
  readConfig(offset: number, size: number): number;
  writeConfig(offset: number, size: number, value: number): void;
  readBar(bar: number, offset: number, size: number): number;
  writeBar(bar: number, offset: number, size: number, value: number): void;
}

/** A run of guest RAM at a guest-physical address. */
export interface PacketMemory {
  readonly address: number;
  readonly bytes: Uint8Array;
}

export interface DriverOptions {
  readonly pci: PciAccess;
  readonly ram: GuestRam;
  /** Where packets to send lie if not in `ram`, for drivers that touch their bytes (a copy, a checksum that the NIC cannot fill). */
  readonly packets?: PacketMemory;
  readonly loop: Loop;
  /** Descriptors of each ring; default 256. */
  readonly ringSize?: number;
  /** IP MTU in bytes; default 1500. Receive buffers are as large as a frame of it needs. */
  readonly ipMtuBytes?: number;
  /** Take all frames whatever their address. */
  readonly promiscuous?: boolean;
  /** Which VLAN ids to receive; absent: VLAN filter off. Tags are stripped and inserted by the NIC when given. */
  readonly vlans?: readonly number[];
  /** Let the NIC check and fill checksums and cut TCP segments, where it can; default true. */
  readonly offloads?: boolean;
  /** Multicast groups to receive beside broadcast, as MAC addresses. */
  readonly multicast?: readonly Uint8Array[];
}

/** A received packet's checksums were verified by the NIC. */
export const RX_CSUM_OK = 1;
/** The NIC found a checksum wrong. */
export const RX_CSUM_BAD = 2;
/** `vlanTci` is the tag that the NIC took off. */
export const RX_VLAN = 4;

export interface DriverListener {
  /** A packet of `length` bytes (no FCS) at `address` of guest RAM, which is the driver's again when this returns. `flags`: RX_* or-ed. */
  received(address: number, length: number, flags: number, vlanTci: number): void;
  /** All packets of this interrupt were shown. */
  receivedAll?(): void;
  /** The oldest `count` packets taken by `send` were transmitted: their bytes are the caller's again. */
  sent(count: number): void;
  /** There is room in the transmit ring again, after `send` took less than all. */
  sendReady?(): void;
  linkChanged?(up: boolean): void;
}

/** Segmentation kinds a driver can ask for. */
export const SEGMENT_NONE = 0;
export const SEGMENT_TCP4 = 1;
export const SEGMENT_TCP6 = 2;

/** Packets to send, as arrays by packet. The caller writes entries [0, n) and sends any part of them. */
export class PacketBatch {
  /** Guest address of the Ethernet header. */
  readonly address: Float64Array;
  /** Bytes of the whole packet. */
  readonly length: Int32Array;
  /** Sum from this offset to the end (0: no checksum to fill) … */
  readonly csumStart: Int32Array;
  /** … and store it this many bytes behind. The field holds the folded pseudo-header sum, with the length for one packet, without it for SEGMENT_*. */
  readonly csumOffset: Int32Array;
  /** SEGMENT_*: cut the packet into TCP segments … */
  readonly segment: Uint8Array;
  /** … of this many payload bytes … */
  readonly segmentBytes: Int32Array;
  /** … behind headers (Ethernet to TCP) of this length. */
  readonly headerBytes: Int32Array;
  /** TCI of a tag for the NIC to insert; -1: none. */
  readonly vlanTci: Int32Array;

  constructor(size: number) {
    this.address = new Float64Array(size);
    this.length = new Int32Array(size);
    this.csumStart = new Int32Array(size);
    this.csumOffset = new Int32Array(size);
    this.segment = new Uint8Array(size);
    this.segmentBytes = new Int32Array(size);
    this.headerBytes = new Int32Array(size);
    this.vlanTci = new Int32Array(size).fill(-1);
  }

  /** Entry `i` is a plain packet. */
  plain(i: number, address: number, length: number): void {
    this.address[i] = address;
    this.length[i] = length;
    this.csumStart[i] = 0;
    this.segment[i] = SEGMENT_NONE;
    this.vlanTci[i] = -1;
  }

  /** Entry `i` is a packet whose checksum the NIC fills in. */
  checksummed(i: number, address: number, length: number, csumStart: number, csumOffset: number): void {
    this.plain(i, address, length);
    this.csumStart[i] = csumStart;
    this.csumOffset[i] = csumOffset;
  }

  /** Entry `i` is a TCP packet of up to 64 KiB that the NIC cuts into segments. */
  segmented(
    i: number,
    address: number,
    length: number,
    kind: number,
    csumStart: number,
    headerBytes: number,
    segmentBytes: number,
  ): void {
    this.checksummed(i, address, length, csumStart, 16);
    this.segment[i] = kind;
    this.headerBytes[i] = headerBytes;
    this.segmentBytes[i] = segmentBytes;
  }
}

/** What a driver can ask its NIC for. */
export interface DriverCapabilities {
  readonly checksum: boolean;
  readonly segmentTcp4: boolean;
  readonly segmentTcp6: boolean;
  readonly vlan: boolean;
}

export interface NicDriver {
  /** 6 bytes, as read from the NIC. */
  readonly mac: Uint8Array;
  readonly linkUp: boolean;
  readonly capabilities: DriverCapabilities;
  readonly ipMtuBytes: number;
  /** Packets that `send` can take at least, if none needs more than one descriptor and a context. */
  readonly room: number;
  /** Set before `open`. */
  listener: DriverListener;
  /** Resets the NIC, reads its address, lays out rings, sets filters and starts it. False: this is not a NIC that the driver knows, or it does not answer. */
  open(): boolean;
  /** Queues packets [from, to) of the batch and rings the doorbell once; returns how many were taken. Less than all: `sendReady` follows. */
  send(batch: PacketBatch, from: number, to: number): number;
  /** Services the NIC: reads the causes, shows received packets, reports sent ones and refills. Returns true when there was something to do. */
  interrupt(): boolean;
  /** Stops the NIC and gives its RAM back. */
  close(): void;
}
