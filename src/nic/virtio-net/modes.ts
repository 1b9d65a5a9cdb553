/**
 * The receive modes and tables that the driver sets by commands (virtio 1.3, section 5.1.6.5.1 to 5.1.6.5.3), written into the shared filter, and what
 * query-rx-filter shows of them. A device is promiscuous until its driver says otherwise.
 *
 * The table holds 64 addresses, unicast first. A kind that does not fit is not kept at all: its overflow flag is set and every address of the kind is let in.
 */

import { formatMac } from '../../wire/bytes.ts';
import { RxFilter, type RxFilterInfo } from '../rx-filter.ts';

export const MAC_TABLE_ENTRIES = 64;
const VLAN_IDS = 4096;
const PROMISC = 0;
const ALLMULTI = 1;
const ALLUNI = 2;
const NOMULTI = 3;
const NOUNI = 4;
const NOBCAST = 5;
const MODES = 6;

export interface SavedModes {
  modes: boolean[];
  mac: number[];
  unicast: string[];
  multicast: string[];
  unicastOverflow: boolean;
  multicastOverflow: boolean;
  vlans: number[];
}

export class Modes {
  readonly filter = new RxFilter(1 + MAC_TABLE_ENTRIES);
  readonly mac = new Uint8Array(6);
  readonly #modes: boolean[] = new Array<boolean>(MODES).fill(false);
  /** Addresses of the table, six bytes each. */
  readonly #table = new Uint8Array(6 * MAC_TABLE_ENTRIES);
  #unicast = 0;
  #multicast = 0;

  /** As after a reset; `mac` is the permanent address. */
  reset(mac: Uint8Array): void {
    this.mac.set(mac.subarray(0, 6));
    this.#modes.fill(false);
    this.#modes[PROMISC] = true;
    this.filter.clear();
    this.#unicast = 0;
    this.#multicast = 0;
    this.filter.setAddress(0, this.mac);
    this.#apply();
  }

  /** Command 0 to 5 of class RX. */
  set(mode: number, on: boolean): void {
    this.#modes[mode] = on;
    this.#apply();
    this.filter.changed();
  }

  setMac(bytes: Uint8Array): void {
    this.mac.set(bytes.subarray(0, 6));
    this.filter.setAddress(0, this.mac);
    this.filter.changed();
  }

  setVlan(id: number, on: boolean): void {
    const { vlans } = this.filter;
    if (on) vlans[id >> 5] |= 1 << (id & 31);
    else vlans[id >> 5] &= ~(1 << (id & 31));
    this.filter.changed();
  }

  /** Whether untagged frames and those with an id of the table alone come in. */
  set vlanFilter(on: boolean) {
    this.filter.vlanFilter = on;
  }

  /** Tables of `unicast` and `multicast` addresses at their offsets in `data`, which holds them. */
  setTable(
    data: Uint8Array,
    unicastAt: number,
    unicast: number,
    multicastAt: number,
    multicast: number,
  ): void {
    const { filter } = this;
    filter.unicastOverflow = unicast > MAC_TABLE_ENTRIES;
    this.#unicast = filter.unicastOverflow ? 0 : unicast;
    filter.multicastOverflow = multicast > MAC_TABLE_ENTRIES - this.#unicast;
    this.#multicast = filter.multicastOverflow ? 0 : multicast;
    this.#table.set(data.subarray(unicastAt, unicastAt + 6 * this.#unicast));
    this.#table.set(data.subarray(multicastAt, multicastAt + 6 * this.#multicast), 6 * this.#unicast);
    const used = this.#unicast + this.#multicast;
    for (let i = 0; i < MAC_TABLE_ENTRIES; i++) {
      filter.setAddress(1 + i, i < used ? this.#table : null, 6 * i);
    }
    this.#apply();
    filter.changed();
  }

  #apply(): void {
    const { filter } = this;
    filter.promiscuous = this.#modes[PROMISC];
    filter.allMulticast = this.#modes[ALLMULTI] || filter.multicastOverflow;
    filter.allUnicast = this.#modes[ALLUNI] || filter.unicastOverflow;
    filter.noMulticast = this.#modes[NOMULTI];
    filter.noUnicast = this.#modes[NOUNI];
    filter.broadcast = !this.#modes[NOBCAST];
  }

  /**
   * QMP's view, as QEMU's virtio-net gives it, so that those who compare find no difference: the modes as the driver set them, tables with the last entry first, every id in the
   * VLAN table while there is no VLAN filter, and `broadcast-allowed` true when the driver asked for no broadcast.
   */
  query(name: string): RxFilterInfo {
    const info = this.filter.query(name);
    const state = (none: boolean, all: boolean): 'none' | 'all' | 'normal' =>
      none ? 'none' : all ? 'all' : 'normal';
    const vlans = this.filter.vlanFilter
      ? info['vlan-table']
      : Array.from({ length: VLAN_IDS }, (_, id) => id);
    return {
      ...info,
      promiscuous: this.#modes[PROMISC],
      multicast: state(this.#modes[NOMULTI], this.#modes[ALLMULTI]),
      unicast: state(this.#modes[NOUNI], this.#modes[ALLUNI]),
      'broadcast-allowed': this.#modes[NOBCAST],
      'main-mac': formatMac(this.mac),
      'vlan-table': vlans.reverse(),
      'unicast-table': this.#addresses(0, this.#unicast).reverse(),
      'multicast-table': this.#addresses(this.#unicast, this.#unicast + this.#multicast).reverse(),
    };
  }

  #addresses(from: number, to: number): string[] {
    const list: string[] = [];
    for (let i = from; i < to; i++) list.push(formatMac(this.#table.subarray(6 * i, 6 * i + 6)));
    return list;
  }

  save(): SavedModes {
    const { filter } = this;
    const vlans: number[] = [];
    for (let id = 0; id < 4096; id++) if (((filter.vlans[id >> 5] >>> (id & 31)) & 1) !== 0) vlans.push(id);
    const hex = (from: number, to: number): string[] => this.#addresses(from, to);
    return {
      modes: [...this.#modes],
      mac: [...this.mac],
      unicast: hex(0, this.#unicast),
      multicast: hex(this.#unicast, this.#unicast + this.#multicast),
      unicastOverflow: filter.unicastOverflow,
      multicastOverflow: filter.multicastOverflow,
      vlans,
    };
  }

  /** Takes a state whose shape was checked. */
  load(state: SavedModes): void {
    const { filter } = this;
    this.setMac(Uint8Array.from(state.mac));
    for (const [mode, on] of state.modes.entries()) this.#modes[mode] = on;
    const addresses = [...state.unicast, ...state.multicast].map((text) =>
      text.split(':').map((part) => Number.parseInt(part, 16)),
    );
    const data = Uint8Array.from(addresses.flat());
    this.setTable(data, 0, state.unicast.length, 6 * state.unicast.length, state.multicast.length);
    filter.unicastOverflow = state.unicastOverflow;
    filter.multicastOverflow = state.multicastOverflow;
    filter.vlans.fill(0);
    for (const id of state.vlans) this.setVlan(id, true);
    this.#apply();
  }
}
