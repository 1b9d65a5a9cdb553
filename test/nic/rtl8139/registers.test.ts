/** The register table and what registers do that is not frames: EEPROM, PHY, link, locks, timer, interrupts, tally counters. */
import { readFileSync } from 'node:fs';
import { afterEach, describe, expect, it } from 'vitest';
import { hashOf } from '../../../src/nic/rtl8139/index.ts';
import { REGISTER_BYTES, REGISTERS } from '../../../src/nic/rtl8139/registers.ts';
import { MAC, Rtl8139Rig, testFrame } from '../../lib/rtl8139-rig.ts';

const fixture = JSON.parse(
  readFileSync(new URL('../../../fixtures/registers/rtl8139.json', import.meta.url), 'utf8'),
) as { registers: Record<string, { offset: string; size: number; count?: number; reset: string }> };

describe('the register table', () => {
  it('has no overlap, natural alignment, and says what each register is', () => {
    const owner = new Map<number, string>();
    for (const register of REGISTERS) {
      expect(register.offset % register.size, register.name).toBe(0);
      expect(register.meaning.length, register.name).toBeGreaterThan(5);
      for (let i = 0; i < register.count * register.size; i++) {
        const offset = register.offset + i;
        expect(offset).toBeLessThan(REGISTER_BYTES);
        expect(owner.get(offset), `${register.name} at ${offset}`).toBeUndefined();
        owner.set(offset, register.name);
      }
    }
  });

  it("has the datasheet's offsets, sizes and values after reset", () => {
    for (const [name, { offset, size, count, reset }] of Object.entries(fixture.registers)) {
      const register = REGISTERS.find((candidate) => candidate.name === name);
      expect(register, name).toMatchObject({ offset: Number(offset), size, count: count ?? 1 });
      expect(register!.reset, name).toBe(Number(reset));
    }
  });
});

let rig: Rtl8139Rig;
afterEach(() => {
  (rig as Rtl8139Rig | undefined)?.close();
});

describe('registers', () => {
  it('read their values after reset, by memory and by I/O', () => {
    rig = new Rtl8139Rig({}, false);
    // With the cable out again.
    rig.machine.peer.port.setLink(false);
    rig.put(0x3e, 0xffff, 2);
    for (const register of REGISTERS) {
      for (let i = 0; i < register.count; i++) {
        const offset = register.offset + i * register.size;
        if (/^(IDR|TCTR|9346CR|TSAD$)/.test(register.name)) continue;
        const expected = register.name === 'BMSR' ? 0x7809 : register.reset;
        expect(rig.get(offset, register.size), register.name).toBe(expected);
        expect(rig.nic.readBar(0, offset, register.size), register.name).toBe(expected);
      }
    }
    expect(rig.get(0)).toBe(0x12005452);
    expect(rig.get(4, 2)).toBe(0x5634);
    expect(rig.get(0x60, 2)).toBe(0x000f);
    rig.put(0xe4, 0x12345600);
    expect(rig.nic.readBar(0, 0xe4, 4)).toBe(0x12345600);
  });

  it('keep only their writable bits, the locked ones only while 9346CR says so', () => {
    rig = new Rtl8139Rig({}, false);
    for (const register of REGISTERS) {
      if (/^(TSD0|CR|CAPR|ISR|TCTR|TIMERINT|MPC|9346CR|BMCR|ANAR|TPPOLL|MSR|CPCR)$/.test(register.name))
        continue;
      const ones = 2 ** (8 * register.size) - 1;
      const before = rig.get(register.offset, register.size);
      rig.put(register.offset, ones, register.size);
      const after = rig.get(register.offset, register.size);
      if (register.access === 'rw') {
        const kept = (before & ~register.writable) >>> 0;
        expect(after, register.name).toBe((kept | register.writable) >>> 0);
      } else if (register.access === 'ro' || register.access === 'lk') {
        expect(after, register.name).toBe(before);
      }
    }
    rig.put(0x50, 0xc0, 1);
    rig.put(0x52, 0xff, 1);
    rig.put(0x59, 0xff, 1);
    expect([rig.get(0x52, 1), rig.get(0x59, 1)]).toEqual([0xff & (0xf3 | 0x0c), 0x70]);
    rig.put(0x50, 0, 1);
    rig.put(0x52, 0, 1);
    expect(rig.get(0x52, 1)).toBe(0xff);
  });

  it('CR.RST resets what the datasheet says, and leaves address, hash and configuration', () => {
    rig = new Rtl8139Rig({}, false);
    rig.put(0, 0x11223344);
    rig.put(8, 0xdeadbeef);
    rig.put(0x30, 0x4000);
    rig.put(0x44, 0xf);
    rig.put(0xe0, 3, 2);
    rig.put(0x37, 0x1c, 1);
    expect(rig.get(0x37, 1)).toBe(1);
    expect([rig.get(0), rig.get(8), rig.get(0x30), rig.get(0x44), rig.get(0xe0, 2)]).toEqual([
      0x11223344, 0xdeadbeef, 0, 0, 0,
    ]);
    rig.nic.reset();
    expect([rig.get(0), rig.get(8)]).toEqual([0x12005452, 0]);
  });

  it('the 8139C has no C+ registers and another version', () => {
    rig = new Rtl8139Rig({ chip: '8139c' }, false);
    for (const [offset, size] of [
      [0xd9, 1],
      [0xe0, 2],
      [0xe4, 4],
      [0xec, 1],
      [0xda, 2],
    ]) {
      rig.put(offset!, 2 ** (8 * size!) - 1, size!);
      expect(rig.get(offset!, size!)).toBe(0);
    }
    expect(rig.get(0x40) & 0x7cc00000).toBe(0x74000000);
    expect(rig.get(0x5e, 1)).toBe(0x10);
  });

  it('hardening 21: bytes, halves and unaligned accesses touch what they name and nothing else', () => {
    rig = new Rtl8139Rig({}, false);
    rig.put(0xe4, 0x11223300);
    rig.put(0xe5, 0xaa, 1);
    expect(rig.get(0xe4)).toBe(0x1122aa00);
    rig.put(0xe6, 0xbbcc, 2);
    expect(rig.get(0xe4)).toBe(0xbbccaa00);
    expect(rig.get(0xe5, 2)).toBe(0xccaa);
    // Across two registers, and across a word's end.
    rig.put(0x3b, 0xff34_12ff, 4);
    expect(rig.get(0x3c, 2)).toBe(0x3412 & 0xe1ff);
    expect(rig.get(0x3a, 2)).toBe(0);
    rig.put(0x3c, 0, 2);
    // A write beside ISR does not acknowledge; one of its bytes does its half.
    rig.put(0xd9, 1, 1);
    rig.put(0x3c, 0, 2);
    expect(rig.get(0x3e, 2) & 0x100).toBe(0x100);
    rig.put(0x3e, 0xff, 1);
    expect(rig.get(0x3e, 2)).toBe(0x100);
    rig.put(0x3f, 1, 1);
    expect(rig.get(0x3e, 2)).toBe(0);
    for (let offset = 0x84; offset < 0xd8; offset++) rig.put(offset, 0xff, 1);
    for (let offset = 0x84; offset < 0xd8; offset++) expect(rig.get(offset, 1)).toBe(0);
    expect(rig.get(0xfe, 4)).toBe(0xffff0000);
    expect(rig.nic.readBar(1, 256, 4)).toBe(0xffffffff);
    expect(rig.nic.readBar(1, 4, 8)).toBe(0x5634);
    rig.expectGood();
  });
});

describe('PCI', () => {
  it('has the identity, both BARs and power management that drivers look for', () => {
    rig = new Rtl8139Rig({}, false);
    const { nic } = rig;
    expect([nic.readConfig(0, 4), nic.readConfig(8, 4)]).toEqual([0x813910ec, 0x02000020]);
    nic.writeConfig(0x10, 4, 0xffffffff);
    nic.writeConfig(0x14, 4, 0xffffffff);
    expect([nic.readConfig(0x10, 4), nic.readConfig(0x14, 4)]).toEqual([0xffffff01, 0xffffff00]);
    expect(nic.readConfig(0x34, 1)).toBe(0x50);
    expect(nic.readConfig(0x50, 1)).toBe(1);
    // In D3 there is no DMA.
    nic.writeConfig(4, 2, 7);
    expect(nic.dmaEnabled).toBe(true);
    nic.writeConfig(0x54, 2, 3);
    expect(nic.dmaEnabled).toBe(false);
  });
});

describe('EEPROM', () => {
  const CS = 8;
  const SK = 4;
  const DI = 2;

  function command(bits: number, count: number): void {
    rig.put(0x50, 0x80, 1);
    rig.put(0x50, 0x80 | CS, 1);
    clockIn(bits, count);
  }

  function clockIn(bits: number, count: number): void {
    for (let i = count - 1; i >= 0; i--) {
      const data = ((bits >> i) & 1) !== 0 ? DI : 0;
      rig.put(0x50, 0x80 | CS | data, 1);
      rig.put(0x50, 0x80 | CS | data | SK, 1);
    }
  }

  function clockOut(count: number): number {
    let value = 0;
    for (let i = 0; i < count; i++) {
      rig.put(0x50, 0x80 | CS, 1);
      rig.put(0x50, 0x80 | CS | SK, 1);
      value = (value << 1) | (rig.get(0x50, 1) & 1);
    }
    return value;
  }

  it('tells its signature, identifiers and address bit by bit, and that its addresses have six bits', () => {
    rig = new Rtl8139Rig({}, false);
    const read = (address: number): number => {
      command((6 << 6) | address, 9);
      return clockOut(16);
    };
    expect([0, 1, 2, 7, 8, 9].map(read)).toEqual([0x8129, 0x10ec, 0x8139, 0x5452, 0x1200, 0x5634]);
    // A driver that tries eight address bits sees something else than the signature.
    command(6 << 8, 11);
    expect(clockOut(16)).not.toBe(0x8129);
  });

  it('can be written after EWEN, and its address is loaded by auto-load', () => {
    rig = new Rtl8139Rig({}, false);
    command((5 << 6) | 7, 9);
    clockIn(0xaa02, 16);
    command((4 << 6) | 0x30, 9);
    command((5 << 6) | 7, 9);
    clockIn(0xbb02, 16);
    rig.put(0x50, 0x40, 1);
    expect(rig.get(0x50, 1) & 0xc0).toBe(0);
    expect(rig.get(0)).toBe(0x1200bb02);
    // Pins move only in programming mode.
    rig.put(0x50, CS | SK, 1);
    rig.nic.reset();
    expect(rig.get(0)).toBe(0x1200bb02);
  });
});

describe('PHY and link', () => {
  it('tells the link in BMSR, MSR and CSCR, and interrupts when it changes', () => {
    rig = new Rtl8139Rig({}, false);
    expect(rig.get(0x3e, 2)).toBe(0x20);
    rig.put(0x3e, 0x20, 2);
    expect([rig.get(0x64, 2), rig.get(0x58, 1) & 4, rig.get(0x68, 2)]).toEqual([0x782d, 0, 0x45e1]);
    rig.machine.peer.port.setLink(false);
    expect([rig.get(0x64, 2), rig.get(0x58, 1) & 4, rig.get(0x68, 2)]).toEqual([0x7809, 4, 0]);
    expect(rig.get(0x3e, 2)).toBe(0x20);
    // Link change, LinkOK and Con_status.
    expect(rig.get(0x74, 2) & 0xc08).toBe(0x800);
    rig.machine.peer.port.setLink(true);
    expect(rig.get(0x74, 2) & 0xc08).toBe(0xc08);
    rig.put(0x3e, 0x20, 2);
    expect(rig.get(0x74, 2) & 0xc08).toBe(0x408);
  });

  it('negotiates again when asked to, with speed and duplex behind the lock', () => {
    rig = new Rtl8139Rig({}, false);
    rig.put(0x62, 0x0000, 2);
    expect(rig.get(0x62, 2)).toBe(0x1000);
    rig.put(0x62, 0x1200, 2);
    expect(rig.get(0x64, 2) & 0x24).toBe(0);
    rig.machine.settle(200e6);
    expect(rig.get(0x64, 2) & 0x24).toBe(0x24);
    rig.put(0x50, 0xc0, 1);
    rig.put(0x62, 0, 2);
    expect(rig.get(0x58, 1) & 8).toBe(8);
    rig.put(0x62, 0x2100, 2);
    expect(rig.get(0x58, 1) & 8).toBe(0);
    rig.put(0x62, 0x8000, 2);
    expect(rig.get(0x62, 2)).toBe(0x1000);
    rig.put(0x66, 0x0061, 2);
    expect(rig.get(0x66, 2)).toBe(0x0061);
    rig.put(0x62, 0x1200, 2);
    rig.machine.settle(200e6);
    expect(rig.get(0x58, 1) & 8).toBe(8);
  });
});

describe('interrupts', () => {
  it('follow ISR and IMR, cleared by ones', () => {
    rig = new Rtl8139Rig({}, false);
    rig.machine.onInterrupt = null;
    expect(rig.machine.intx).toBe(false);
    rig.put(0x3c, 0x120, 2);
    expect(rig.machine.intx).toBe(true);
    rig.put(0x3e, 0x20, 2);
    expect(rig.machine.intx).toBe(false);
    rig.put(0xd9, 1, 1);
    expect(rig.get(0x3e, 2)).toBe(0x100);
    expect(rig.machine.intx).toBe(true);
    rig.put(0x3c, 0, 2);
    expect(rig.machine.intx).toBe(false);
  });

  it('the timer counts 33 MHz, and interrupts when it passes TimerInt, again after each lap', () => {
    rig = new Rtl8139Rig({}, false);
    rig.machine.onInterrupt = null;
    rig.put(0x3e, 0xffff, 2);
    rig.put(0x48, 1);
    expect(rig.get(0x48)).toBe(0);
    rig.machine.settle(1e6);
    expect(rig.get(0x48)).toBe(33_000);
    rig.put(0x54, 66_000);
    rig.machine.settle(0.9e6);
    expect(rig.get(0x3e, 2)).toBe(0);
    rig.machine.settle(0.2e6);
    expect(rig.get(0x3e, 2)).toBe(0x4000);
    rig.put(0x3e, 0x4000, 2);
    rig.machine.settle(120e9);
    expect(rig.get(0x3e, 2)).toBe(0);
    rig.machine.settle(11e9);
    expect(rig.get(0x3e, 2)).toBe(0x4000);
    // The value that has passed already is the next lap's.
    rig.put(0x3e, 0x4000, 2);
    rig.put(0x48, 0);
    rig.machine.settle(1e9);
    rig.put(0x54, 1);
    rig.machine.settle(1e9);
    rig.put(0x3e, 0x4000, 2);
    rig.put(0x54, 0);
    rig.machine.settle(200e9);
    expect(rig.get(0x3e, 2)).toBe(0);
  });

  it('hardening 11: the timer at its shortest fires once a lap, not for ever', () => {
    rig = new Rtl8139Rig({}, false);
    for (const value of [1, 2, 0xffffffff]) {
      rig.put(0x54, value);
      rig.put(0x48, 0);
      rig.machine.settle(1e6);
    }
    rig.put(0x54, 0);
    rig.expectGood();
  });
});

describe('tally counters', () => {
  it('are written to RAM by DTCCR, in C+ mode', () => {
    rig = new Rtl8139Rig();
    const toUs = testFrame(100);
    toUs.set(MAC);
    rig.machine.peer.send(toUs);
    rig.machine.peer.send(new Uint8Array(60).fill(0xff));
    rig.machine.settle();
    rig.transmit([rig.whole(rig.packet(60), 60), rig.whole(0xfffff000, 60), rig.whole(rig.packet(60), 60)]);
    rig.machine.settle();
    const at = rig.machine.ram.allocate(64, 64);
    rig.put(0x14, 0);
    rig.put(0x10, at | 8);
    expect(rig.get(0x10)).toBe(at);
    const words = Array.from({ length: 16 }, (_, i) => rig.wordAt(at + 4 * i));
    expect(words).toEqual([2, 0, 2, 0, 1, 0, 0, 0, 0, 0, 1, 0, 1, 0, 0, 0]);
    rig.put(0x10, 0xfff00000 | 8);
    expect(rig.nic.stats.badTallyAddress).toBe(1);
    expect(rig.get(0x3e, 2) & 0x8000).toBe(0x8000);
    rig.expectGood();
  });
});

describe('receive filter', () => {
  it('hashes multicast addresses as drivers do', () => {
    // Upper six bits of zlib's CRC-32 with its bits reversed, before the final inversion.
    expect(hashOf(Uint8Array.of(0x01, 0, 0x5e, 0, 0, 1), 0)).toBe(31);
    expect(hashOf(Uint8Array.of(0xff, 0xff, 0xff, 0xff, 0xff, 0xff), 0)).toBe(63);
    expect(hashOf(Uint8Array.of(0x33, 0x33, 0, 0, 0, 1), 0)).toBe(62);
    expect(hashOf(Uint8Array.of(0x01, 0x80, 0xc2, 0, 0, 0), 0)).toBe(25);
  });

  it('accepts by RCR.AAP, APM, AM with MAR, and AB', () => {
    rig = new Rtl8139Rig();
    const group = Uint8Array.of(0x01, 0, 0x5e, 1, 2, 3);
    const frames = {
      own: MAC,
      other: Uint8Array.of(2, 0, 0, 0, 0, 9),
      group,
      broadcast: new Uint8Array(6).fill(0xff),
    };
    const passes = (): string => {
      const names: string[] = [];
      for (const [name, address] of Object.entries(frames)) {
        const frame = testFrame(60);
        frame.set(address);
        rig.received.length = 0;
        rig.machine.peer.send(frame);
        rig.machine.settle(1e6);
        if (rig.received.length > 0) names.push(name);
      }
      return names.join(' ');
    };
    expect(passes()).toBe('own broadcast');
    rig.put(0x44, 0);
    expect(passes()).toBe('');
    rig.put(0x44, 1);
    expect(passes()).toBe('own other');
    rig.put(0x44, 8);
    expect(passes()).toBe('broadcast');
    rig.put(0x44, 4);
    expect(passes()).toBe('');
    const bit = hashOf(group, 0);
    rig.put(8 + 4 * (bit >> 5), 1 << (bit & 31));
    expect(passes()).toBe('group');
    expect(rig.nic.queryRxFilter('n')).toMatchObject({
      promiscuous: false,
      multicast: 'normal',
      unicast: 'none',
      'broadcast-allowed': false,
      vlan: 'all',
      'main-mac': '52:54:00:12:34:56',
    });
    rig.put(0x44, 0xf);
    rig.put(8, -1);
    rig.put(12, -1);
    expect(passes()).toBe('own other group broadcast');
    expect(rig.nic.queryRxFilter('n')).toMatchObject({ promiscuous: true, multicast: 'all', unicast: 'all' });
    expect(rig.nic.stats).toMatchObject({ rxDropUnicast: 9, rxDropBroadcast: 4 });
  });

  it('tells of a change once until it is asked', () => {
    rig = new Rtl8139Rig();
    let told = 0;
    rig.nic.onRxFilterChanged = () => told++;
    rig.put(0x44, 1);
    rig.put(0x44, 3);
    rig.put(0, 1);
    expect(told).toBe(1);
    rig.nic.queryRxFilter('n');
    rig.put(8, 1);
    expect(told).toBe(2);
  });
});
