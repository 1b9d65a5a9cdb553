/** The shared receive filter: its order, its answer to query-rx-filter, and the rule of the changed event. */
import { describe, expect, it } from 'vitest';
import {
  RX_ACCEPT,
  RX_ACCEPT_INEXACT,
  RX_DROP_BROADCAST,
  RX_DROP_MULTICAST,
  RX_DROP_RUNT,
  RX_DROP_UNICAST,
  RX_DROP_VLAN,
  RxFilter,
} from '../../src/nic/rx-filter.ts';

const OWN = Uint8Array.of(0x52, 0x54, 0, 0x12, 0x34, 0x56);
const OTHER = Uint8Array.of(0x52, 0x54, 0, 0x12, 0x34, 0x57);
const GROUP = Uint8Array.of(0x01, 0, 0x5e, 0, 0, 0xfb);
const ALL = new Uint8Array(6).fill(255);

function frame(destination: Uint8Array, tci = -1, length = 60): Uint8Array {
  const bytes = new Uint8Array(length);
  bytes.set(destination.subarray(0, Math.min(6, length)));
  if (tci >= 0) bytes.set([0x81, 0, tci >> 8, tci & 255], 12);
  else if (length >= 14) bytes.set([8, 0], 12);
  return bytes;
}

function filter(): RxFilter {
  const made = new RxFilter(16, (bytes, at) => ((bytes[at + 5]! << 8) | bytes[at + 4]!) & 0xfff, 4096);
  made.setAddress(0, OWN);
  return made;
}

function decide(f: RxFilter, bytes: Uint8Array): number {
  const padded = new Uint8Array(100);
  padded.set(bytes, 7);
  return f.decide(padded, 7, bytes.length);
}

describe('the receive filter', () => {
  it('takes own, broadcast and listed addresses, and names why it refuses', () => {
    const f = filter();
    expect(decide(f, frame(OWN))).toBe(RX_ACCEPT);
    expect(decide(f, frame(OTHER))).toBe(RX_DROP_UNICAST);
    expect(decide(f, frame(ALL))).toBe(RX_ACCEPT);
    expect(decide(f, frame(GROUP))).toBe(RX_DROP_MULTICAST);
    f.setAddress(5, GROUP);
    f.setAddress(6, OTHER);
    expect(decide(f, frame(GROUP))).toBe(RX_ACCEPT);
    expect(decide(f, frame(OTHER))).toBe(RX_ACCEPT);
    f.setAddress(6, null);
    expect(decide(f, frame(OTHER))).toBe(RX_DROP_UNICAST);
    f.broadcast = false;
    expect(decide(f, frame(ALL))).toBe(RX_DROP_BROADCAST);
    f.promiscuous = true;
    expect(decide(f, frame(ALL))).toBe(RX_ACCEPT_INEXACT);
    expect(decide(f, frame(OTHER))).toBe(RX_ACCEPT_INEXACT);
    f.promiscuous = false;
    f.noMulticast = true;
    f.noUnicast = true;
    expect(decide(f, frame(GROUP))).toBe(RX_DROP_MULTICAST);
    // virtio's NOUNI: no unicast at all, the own address included.
    expect(decide(f, frame(OWN))).toBe(RX_DROP_UNICAST);
    expect(decide(f, frame(OTHER))).toBe(RX_DROP_UNICAST);
  });

  it('looks groups up in the hash, unicast only where the model does', () => {
    const f = filter();
    const bit = ((0xfb << 8) | 0) & 0xfff;
    f.hashBits[bit >> 5]! |= 1 << (bit & 31);
    expect(decide(f, frame(GROUP))).toBe(RX_ACCEPT_INEXACT);
    const bitOther = ((0x57 << 8) | 0x34) & 0xfff;
    f.hashBits[bitOther >> 5]! |= 1 << (bitOther & 31);
    expect(decide(f, frame(OTHER))).toBe(RX_DROP_UNICAST);
    f.hashUnicast = true;
    expect(decide(f, frame(OTHER))).toBe(RX_ACCEPT_INEXACT);
  });

  it('asks the VLAN table first', () => {
    const f = filter();
    f.promiscuous = true;
    f.vlanFilter = true;
    f.vlans[100 >> 5]! |= 1 << (100 & 31);
    expect(decide(f, frame(OWN, 100))).not.toBe(RX_DROP_VLAN);
    expect(decide(f, frame(OWN, 101))).toBe(RX_DROP_VLAN);
    expect(decide(f, frame(OWN))).not.toBe(RX_DROP_VLAN);
    f.cfi = 0;
    expect(decide(f, frame(OWN, 0x1000 | 100))).toBe(RX_DROP_VLAN);
    f.cfi = 1;
    expect(decide(f, frame(OWN, 0x1000 | 100))).not.toBe(RX_DROP_VLAN);
  });

  it('hardening 35: lengths come before fields; a tag in a runt frame is not read, and an id has 12 bits', () => {
    const f = filter();
    f.vlanFilter = true;
    for (let length = 0; length < 14; length++) expect(decide(f, frame(OWN, -1, length))).toBe(RX_DROP_RUNT);
    for (let length = 14; length < 18; length++) {
      expect(decide(f, frame(OWN, 5, Math.max(length, 16)).subarray(0, length))).toBe(RX_DROP_RUNT);
    }
    f.vlans[0xfff >> 5]! |= 1 << (0xfff & 31);
    expect(decide(f, frame(OWN, 0xffff))).toBe(RX_ACCEPT);
  });

  it('answers query-rx-filter from what it filters by', () => {
    const f = filter();
    expect(f.query('n')).toEqual({
      name: 'n',
      promiscuous: false,
      multicast: 'none',
      unicast: 'normal',
      vlan: 'all',
      'broadcast-allowed': true,
      'multicast-overflow': false,
      'unicast-overflow': false,
      'main-mac': '52:54:00:12:34:56',
      'vlan-table': [],
      'unicast-table': [],
      'multicast-table': [],
    });
    f.setAddress(1, GROUP);
    f.setAddress(3, OTHER);
    f.vlanFilter = true;
    f.vlans[0] = 1;
    f.vlans[127] = 1 << 31;
    f.hashBits[3] = 4;
    f.broadcast = false;
    expect(f.query('n')).toMatchObject({
      multicast: 'normal',
      vlan: 'normal',
      'vlan-table': [0, 4095],
      'unicast-table': ['52:54:00:12:34:57'],
      'multicast-table': ['01:00:5e:00:00:fb'],
      'multicast-overflow': true,
      'broadcast-allowed': false,
    });
    f.promiscuous = true;
    expect(f.query('n')).toMatchObject({ promiscuous: true, multicast: 'all', unicast: 'all' });
    f.clear();
    expect(f.query('n')).toMatchObject({
      promiscuous: false,
      vlan: 'all',
      'main-mac': '52:54:00:12:34:56',
      'multicast-table': [],
    });
  });

  it('tells of the first change, then of none until the next query', () => {
    const f = filter();
    let told = 0;
    f.changed();
    f.onChanged = () => {
      told++;
    };
    f.changed();
    f.changed();
    expect(told).toBe(1);
    f.query('n');
    expect(told).toBe(1);
    f.changed();
    f.changed();
    expect(told).toBe(2);
  });
});
