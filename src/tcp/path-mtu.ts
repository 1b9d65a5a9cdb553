/**
 * Path MTU discovery (RFC 1191, RFC 8201) for segments of ours that a router behind the peer's end of the link could not pass on: how long packets
 * may be from now on. Only ever less than now. Bounds: IPv6 says that no link is narrower than 1280; for IPv4 everything below 552 is taken as
 * 552, since no real path is, while a forged "68" would cost one packet for every 16 bytes.
 */

export const PATH_MTU_MIN_V4 = 552;
export const PATH_MTU_MIN_V6 = 1280;
/** RFC 1191 section 7.1's plateaus above the bound: for routers that do not say how wide the next link is. */
const PLATEAUS = [32_000, 17_914, 8166, 4352, 2002, 1492, 1006, PATH_MTU_MIN_V4];

/** `told`: the next hop's MTU as the ICMP message has it, 0 if it has none; `packetBytes`: the quoted packet's length. 0: of no use. */
export function pathMtu(version: number, told: number, packetBytes: number): number {
  // RFC 8201 section 4: a link below the bound is none; the message is to be ignored.
  if (version === 6) return told < PATH_MTU_MIN_V6 ? 0 : told;
  if (told === 0) return PLATEAUS.find((mtu) => mtu < packetBytes) ?? 0;
  return Math.max(told, PATH_MTU_MIN_V4);
}
