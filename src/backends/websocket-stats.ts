/** Counters of the websocket netdev. */

export class WebsocketStats {
  rxFrames = 0;
  rxDropShort = 0;
  /** Text messages, which are no frames. */
  rxDropText = 0;
  rxDropNoSlot = 0;
  /** The guest refused, and PENDING frames waited already. */
  rxDropQueueFull = 0;
  txFrames = 0;
  /** Frames for a client that does not read. */
  txDropSlowClient = 0;
  txDropDisconnected = 0;
  txDropShort = 0;
  /** Frames from one client to others. */
  switchedFrames = 0;
  clients = 0;
  /** Connections turned away for their origin, or for being too many. */
  refusedOrigin = 0;
  refusedFull = 0;
  /** Connections closed for a message over the maximum, a protocol error, or a missed pong. */
  closedTooLong = 0;
  closedError = 0;
  closedSilent = 0;
}
