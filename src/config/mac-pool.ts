/**
 * Which MAC address a NIC gets. QEMU's policy: 52:54:00:12:34:56 and up, the lowest free last byte through fe.
 * Addresses that users choose inside that range reserve their place; several NICs may ask for the same one.
 */
import { OptionError } from '../core/errors.ts';
import { parseMac } from './address.ts';

const PREFIX = [0x52, 0x54, 0x00, 0x12, 0x34];
const FIRST = 0x56;
const LAST = 0xfe;

/** One per network. */
export class MacPool {
  /** How many NICs hold each last byte of the range. */
  private readonly holders = new Map<number, number>();

  /**
   * Returns the address for a NIC that asks for `requested`; undefined and 00:00:00:00:00:00 ask for a free one.
   * Throws OptionError when none is free. A multicast address was refused before it came here.
   */
  take(requested: string | undefined): Uint8Array {
    const asked = requested === undefined ? undefined : parseMac(requested);
    if (asked?.some((byte) => byte !== 0)) {
      this.count(asked, 1);
      return asked;
    }
    for (let last = FIRST; last <= LAST; last++) {
      if (this.holders.has(last)) continue;
      const mac = Uint8Array.from([...PREFIX, last]);
      this.count(mac, 1);
      return mac;
    }
    throw new OptionError('no free MAC address is left, give mac=', { option: 'mac' });
  }

  /** Gives back what `take` returned. */
  release(mac: Uint8Array): void {
    this.count(mac, -1);
  }

  private count(mac: Uint8Array, change: 1 | -1): void {
    const last = mac[5]!;
    if (!PREFIX.every((byte, i) => byte === mac[i]) || last < FIRST || last > LAST) return;
    const holders = (this.holders.get(last) ?? 0) + change;
    if (holders > 0) this.holders.set(last, holders);
    else this.holders.delete(last);
  }
}

/** True for a group address: the lowest bit of the first byte. */
export function isMulticastMac(text: string): boolean {
  return ((parseMac(text)?.[0] ?? 0) & 1) === 1;
}
