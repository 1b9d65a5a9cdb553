/**
 * What a TCP stack can be told, with the defaults and where they come from. Times in nanoseconds of the injected clock.
 */

export interface TcpSettings {
  /** The link's IP MTU: what the MSS offered and used is derived from. */
  readonly ipMtuBytes: number;
  /** Most bytes of received data a connection holds: the largest window it offers. */
  readonly receiveWindowBytes: number;
  /** First congestion window, in segments (RFC 6928: 10). */
  readonly initialWindowSegments: number;
  /** Slots all connections together may hold, sent and received; past it new data waits or is dropped unacknowledged. */
  readonly heldSlotsMax: number;
  /** RFC 6298 section 2.4 asks for 1 s; every current stack uses about 200 ms, since clocks are no longer coarse. */
  readonly rtoMinNs: number;
  readonly rtoMaxNs: number;
  readonly rtoInitialNs: number;
  /** Longest time an acknowledgement waits for data to ride on (RFC 9293 section 3.8.6.3: under 500 ms). */
  readonly delayedAckNs: number;
  /** Twice the maximum segment lifetime. */
  readonly timeWaitNs: number;
  /** Data unacknowledged (or a window closed) for this long ends the connection (RFC 9293 section 3.8.3, R2 >= 100 s). */
  readonly userTimeoutNs: number;
  /** A handshake that does not end in this time fails. */
  readonly handshakeTimeoutNs: number;
  /** Silence after which the peer is probed; Infinity: never (RFC 9293 section 3.8.4: not less than two hours by default). */
  readonly keepAliveIdleNs: number;
  readonly keepAliveIntervalNs: number;
  readonly keepAliveProbes: number;
  /** Offer and use timestamps and SACK. */
  readonly timestamps: boolean;
  readonly sack: boolean;
}

export const DEFAULT_TCP_SETTINGS: TcpSettings = {
  ipMtuBytes: 1500,
  receiveWindowBytes: 1 << 20,
  initialWindowSegments: 10,
  heldSlotsMax: 2048,
  rtoMinNs: 200e6,
  rtoMaxNs: 60e9,
  rtoInitialNs: 1e9,
  delayedAckNs: 40e6,
  timeWaitNs: 60e9,
  userTimeoutNs: 120e9,
  handshakeTimeoutNs: 75e9,
  keepAliveIdleNs: 7200e9,
  keepAliveIntervalNs: 75e9,
  keepAliveProbes: 9,
  timestamps: true,
  sack: true,
};
