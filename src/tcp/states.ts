/**
 * The states of RFC 9293 section 3.3.2 as numbers, and one more in front: SYN_HELD, a SYN that came and is not answered yet. A NAT needs it:
 * it answers only when it knows whether the real server does.
 */

export const CLOSED = 0;
export const SYN_HELD = 1;
export const SYN_SENT = 2;
export const SYN_RECEIVED = 3;
export const ESTABLISHED = 4;
export const FIN_WAIT_1 = 5;
export const FIN_WAIT_2 = 6;
export const CLOSE_WAIT = 7;
export const CLOSING = 8;
export const LAST_ACK = 9;
export const TIME_WAIT = 10;

/** For people: flow listings and test failures. */
export const STATE_NAMES: readonly string[] = [
  'CLOSED',
  'SYN_HELD',
  'SYN_SENT',
  'SYN_RECEIVED',
  'ESTABLISHED',
  'FIN_WAIT_1',
  'FIN_WAIT_2',
  'CLOSE_WAIT',
  'CLOSING',
  'LAST_ACK',
  'TIME_WAIT',
];
