/** What the transport protocols see of IP: one packet in, one packet out, the same for both families. */

import { type ByteMemory, NO_MEMORY } from '../../../core/copy.ts';
import type { Family } from './address.ts';
import type { Neighbour } from './neighbours.ts';

/** A received packet, headers checked. Reused: valid only during the call it is passed to. */
export class Packet {
  memory: ByteMemory = NO_MEMORY;
  /** The bytes of `memory`. */
  bytes: Uint8Array = NO_MEMORY.bytes;
  family: Family = 4;
  /** 4 or 16. */
  addressBytes = 4;
  /** Where the IP header starts, and the two addresses in it. */
  ipOffset = 0;
  src = 0;
  dst = 0;
  protocol = 0;
  payload = 0;
  payloadEnd = 0;
  hopLimit = 0;
  /** Sent to a broadcast or multicast address. */
  toGroup = false;
  /** The device has verified the transport checksum. */
  checksumValid = false;
}

/** Sends packets of one family. */
export interface IpLayer {
  /** An address is configured that can be sent from. */
  readonly ready: boolean;
  /** The longest payload of one packet. */
  readonly payloadMaxBytes: number;
  /**
   * Starts a packet to the address at `remote[remoteOffset..]`. Returns where its payload is to be written in the interface's memory, or -1
   * (counted): no room. `payloadBytes` is the most it will hold, payloadMaxBytes when left out. Only one packet is under way at a time; one that is not ended is simply forgotten.
   */
  begin(remote: Uint8Array, remoteOffset: number, protocol: number, payloadBytes?: number): number;
  /** The pseudo-header sum of the packet under way for a transport length of `length`. */
  pseudoSum(length: number): number;
  /** Sends the packet under way, whose payload is complete. */
  end(payloadBytes: number): void;
  /** The neighbour that packets to `remote` are handed to, being asked for when its MAC is not known yet; null: no route. */
  hop(remote: Uint8Array): Neighbour | null;
  /** The address packets to `remote` are sent from, as bytes that stay valid until the configuration changes; null: no route. */
  sourceFor(remote: Uint8Array): Uint8Array | null;
}

/** What is told about something we sent. */
export type IpProblem = 'unreachable' | 'refused' | 'prohibited' | 'too-big' | 'ttl-exceeded';

/** A protocol above IP. */
export interface Transport {
  receive(packet: Packet): void;
  /**
   * An ICMP error quotes a packet of ours to `remote`; `bytes[at..end)` is the quoted transport header (at least 8 bytes). Also told, with
   * at = end, when the neighbour cache gives `remote` up.
   */
  problem(problem: IpProblem, remote: Uint8Array, bytes: Uint8Array, at: number, end: number): void;
}
