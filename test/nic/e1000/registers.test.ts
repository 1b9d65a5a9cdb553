/** The register table and what registers do that is not frames: EEPROM, PHY, link, interrupts, counters. */
import { readFileSync } from 'node:fs';
import { afterEach, describe, expect, it } from 'vitest';
import { KIND_NONE, REGISTER_BYTES, REGISTER_MAP, REGISTERS } from '../../../src/nic/e1000/registers.ts';
import { E1000Rig, MAC, testFrame } from '../../lib/e1000-rig.ts';

const fixture = JSON.parse(
  readFileSync(new URL('../../../fixtures/registers/e1000.json', import.meta.url), 'utf8'),
) as { registers: Record<string, { offset: string; count?: number; reset: string }> };

describe('the register table', () => {
  it('has no overlap, and every alias leads to a register of the same shape', () => {
    const owner = new Map<number, string>();
    for (const register of REGISTERS) {
      for (let i = 0; i < register.count; i++) {
        const offset = register.offset + i * register.stride;
        expect(offset % 4 === 0 && offset < REGISTER_BYTES, register.name).toBe(true);
        expect(owner.get(offset), `${register.name} at ${offset}`).toBeUndefined();
        owner.set(offset, register.name);
      }
      if (register.access !== 'alias') continue;
      const original = REGISTERS.find(({ name }) => name === register.aliasOf);
      expect(original?.count, register.name).toBe(register.count);
      expect(original?.stride).toBe(register.stride);
    }
  });

  it('says what each register is', () => {
    for (const register of REGISTERS) expect(register.meaning.length, register.name).toBeGreaterThan(5);
  });

  it("has the manual's offsets and values after reset", () => {
    for (const [name, { offset, count, reset }] of Object.entries(fixture.registers)) {
      const register = REGISTERS.find((candidate) => candidate.name === name);
      expect(register?.offset, name).toBe(Number(offset));
      expect(register?.count, name).toBe(count ?? 1);
      expect(register!.reset >>> 0, name).toBe(Number(reset));
    }
  });
});

let rig: E1000Rig;
afterEach(() => {
  (rig as E1000Rig | undefined)?.close();
});

describe('registers', () => {
  it('read their values after reset, also by the I/O window and by the old addresses', () => {
    rig = new E1000Rig({ initVet: false }, false);
    // Plugging the cable in was a link change.
    expect(rig.get(0xc0)).toBe(4);
    for (const register of REGISTERS) {
      if (
        register.access === 'alias' ||
        register.name === 'RAL' ||
        register.name === 'RAH' ||
        register.name === 'EECD'
      )
        continue;
      expect(rig.get(register.offset), register.name).toBe(
        register.access === 'wo' ? 0 : register.reset >>> 0,
      );
    }
    expect(rig.get(0x5400)).toBe(0x12005452);
    expect(rig.get(0x5404)).toBe(0x80005634);
    expect(rig.get(0x0040)).toBe(0x12005452);
    rig.put(0x0110, 0x12345670);
    expect(rig.get(0x2800)).toBe(0x12345670);
    rig.nic.writeBar(1, 0, 4, 0x2800);
    expect(rig.nic.readBar(1, 0, 4)).toBe(0x2800);
    expect(rig.nic.readBar(1, 4, 4)).toBe(0x12345670);
    rig.nic.writeBar(1, 4, 4, 0xabcdef10);
    expect(rig.get(0x2800)).toBe(0xabcdef10);
    expect(rig.nic.readBar(1, 8, 4)).toBe(0);
  });

  it('keep only their writable bits, and reset again by CTRL.RST', () => {
    rig = new E1000Rig({}, false);
    for (const register of REGISTERS) {
      // Registers that act have tests of their own.
      if (
        register.access !== 'rw' ||
        /^(CTRL|EECD|EERD|MDIC|ICR|IMS|WUS|TDH|TDT|RDT|CTRL_EXT|RCTL|TCTL)$/.test(register.name)
      )
        continue;
      rig.put(register.offset, 0xffffffff);
      expect(rig.get(register.offset), register.name).toBe((register.reset | register.writable) >>> 0);
    }
    rig.put(0, 0x04000000);
    expect(rig.get(0x5800)).toBe(0);
    expect(rig.get(0x38)).toBe(0x8100);
    expect(rig.get(0)).toBe(0x00140241);
  });

  it('hold the software semaphore of later chips, which U-Boot takes before it reads the EEPROM', () => {
    rig = new E1000Rig({}, false);
    rig.put(0x5b50, rig.get(0x5b50) | 2);
    expect(rig.get(0x5b50)).toBe(2);
    rig.put(0x5b50, 0);
    expect(rig.get(0x5b50)).toBe(0);
  });

  it('hardening 21: bytes, halves and unaligned accesses have no side effects on neighbours', () => {
    rig = new E1000Rig({}, false);
    rig.put(0x2800, 0x11223340);
    rig.nic.writeBar(0, 0x2801, 1, 0xaa);
    expect(rig.get(0x2800)).toBe(0x1122aa40);
    rig.nic.writeBar(0, 0x2802, 2, 0xbbcc);
    expect(rig.get(0x2800)).toBe(0xbbccaa40);
    expect(rig.nic.readBar(0, 0x2801, 2)).toBe(0xccaa);
    // A narrow write beside ICR must not clear causes.
    rig.put(0xd0, 0);
    rig.put(0xc8, 4);
    rig.nic.writeBar(0, 0xc5, 1, 0);
    expect(rig.get(0xc0)).toBe(4);
    expect(rig.nic.stats.oddAccess).toBeGreaterThan(2);
    for (let word = 0; word < REGISTER_BYTES / 4; word++) {
      if (REGISTER_MAP.kind[word] === KIND_NONE && REGISTER_MAP.target[word] === 4 * word)
        rig.put(4 * word, 0xffffffff);
    }
    expect(rig.get(0x1fffc)).toBe(0);
    expect(rig.nic.readBar(0, 0x20000, 4)).toBe(0xffffffff);
  });
});

describe('EEPROM', () => {
  /** Moves the pins as a driver does: chip select, then bits with a clock each. */
  class Pins {
    readonly #rig: E1000Rig;

    constructor(target: E1000Rig) {
      this.#rig = target;
    }

    begin(): void {
      this.#rig.put(0x10, 0x40);
      expect(this.#rig.get(0x10) & 0x80).toBe(0x80);
      this.#rig.put(0x10, 0x42);
    }

    out(value: number, bits: number): void {
      for (let bit = bits - 1; bit >= 0; bit--) {
        const data = (value >> bit) & 1 ? 4 : 0;
        this.#rig.put(0x10, 0x42 | data);
        this.#rig.put(0x10, 0x43 | data);
        this.#rig.put(0x10, 0x42 | data);
      }
    }

    in(bits: number): number {
      let value = 0;
      for (let bit = 0; bit < bits; bit++) {
        this.#rig.put(0x10, 0x43);
        value = (value << 1) | ((this.#rig.get(0x10) >> 3) & 1);
        this.#rig.put(0x10, 0x42);
      }
      return value;
    }

    end(): void {
      this.#rig.put(0x10, 0x40);
      this.#rig.put(0x10, 0);
    }
  }

  it('reads by pins what it reads by EERD, one word or on and on', () => {
    rig = new E1000Rig({}, false);
    const pins = new Pins(rig);
    const byEerd: number[] = [];
    for (let word = 0; word < 64; word++) {
      rig.put(0x14, (word << 8) | 1);
      byEerd.push(rig.get(0x14) >>> 16);
      expect(rig.get(0x14) & 0x10).toBe(0x10);
    }
    expect(byEerd.slice(0, 3)).toEqual([0x5452, 0x1200, 0x5634]);
    expect(byEerd.reduce((sum, word) => (sum + word) & 0xffff, 0)).toBe(0xbaba);
    for (const word of [0, 1, 2, 13, 63]) {
      pins.begin();
      pins.out(0b110, 3);
      pins.out(word, 6);
      expect(pins.in(16)).toBe(byEerd[word]);
      pins.end();
    }
    pins.begin();
    pins.out(0b110, 3);
    pins.out(0, 6);
    expect([pins.in(16), pins.in(16), pins.in(16)]).toEqual(byEerd.slice(0, 3));
    pins.end();
  });

  it('writes only after write enable', () => {
    rig = new E1000Rig({}, false);
    const pins = new Pins(rig);
    const write = (word: number, value: number): void => {
      pins.begin();
      pins.out(0b101, 3);
      pins.out(word, 6);
      pins.out(value, 16);
      pins.end();
    };
    const read = (word: number): number => {
      rig.put(0x14, (word << 8) | 1);
      return rig.get(0x14) >>> 16;
    };
    const command = (bits: number): void => {
      pins.begin();
      pins.out(0b100, 3);
      pins.out(bits, 6);
      pins.end();
    };
    write(20, 0x1234);
    expect(read(20)).toBe(0xffff);
    command(0b110000);
    write(20, 0x1234);
    expect(read(20)).toBe(0x1234);
    pins.begin();
    pins.out(0b111, 3);
    pins.out(20, 6);
    pins.end();
    expect(read(20)).toBe(0xffff);
    command(0b000000);
    write(20, 0x4321);
    expect(read(20)).toBe(0xffff);
  });
});

describe('PHY', () => {
  const read = (register: number, phy = 1): number => {
    rig.put(0x20, (2 << 26) | (phy << 21) | (register << 16));
    return rig.get(0x20);
  };
  const write = (register: number, value: number): void =>
    rig.put(0x20, (1 << 26) | (1 << 21) | (register << 16) | value);

  it('is an 88E1011 at address 1', () => {
    rig = new E1000Rig({}, false);
    expect(read(2) & 0xffff).toBe(0x0141);
    expect(read(3) & 0xffff).toBe(0x0c20);
    expect(read(2, 2) & 0x40000000).toBe(0x40000000);
    expect(read(2) & 0x10000000).toBe(0x10000000);
    expect(read(1) & 0x24).toBe(0x24);
    write(2, 0xffff);
    expect(read(2) & 0xffff).toBe(0x0141);
    write(9, 0x0300);
    expect(read(9) & 0xffff).toBe(0x0300);
    rig.put(0xd0, 0x200);
    rig.put(0x20, (2 << 26) | (1 << 21) | (1 << 29));
    expect(rig.get(0xc0) & 0x200).toBe(0x200);
  });

  it('takes the link down while it negotiates, and raises LSC both times', () => {
    rig = new E1000Rig();
    expect(rig.driver.linkUp).toBe(true);
    write(0, 0x1340);
    rig.machine.settle(1e6);
    expect(rig.driver.linkUp).toBe(false);
    expect(read(1) & 0x24).toBe(0);
    rig.machine.settle(200e6);
    expect(rig.driver.linkUp).toBe(true);
    expect(read(1) & 0x24).toBe(0x24);
    expect(read(5) & 0xffff).not.toBe(0);
  });

  it('shows forced speeds, power down and the cable in STATUS', () => {
    rig = new E1000Rig();
    write(0, 0x2100);
    expect(rig.get(8) & 0xc3).toBe(0x43);
    write(0, 0x0000);
    expect(rig.get(8) & 0xc3).toBe(0x02);
    rig.put(0, 0x40 | 0x800 | 0x1000 | 0x200 | 1);
    expect(rig.get(8) & 0xc3).toBe(0x83);
    write(0, 0x0800);
    expect(rig.get(8) & 2).toBe(0);
    write(0, 0x9140);
    expect(rig.get(8) & 2).toBe(2);
    rig.machine.peer.port.setLink(false);
    expect(rig.get(8) & 2).toBe(0);
    expect(read(17) & 0x400).toBe(0);
    rig.machine.peer.port.setLink(true);
    expect(read(17) & 0xffff).toBe(0xac00);
  });
});

describe('interrupts', () => {
  const frame = testFrame(60);
  frame.set(MAC, 0);

  it('are causes under a mask; reading ICR clears them and drops the pin', () => {
    rig = new E1000Rig();
    rig.machine.onInterrupt = null;
    rig.put(0xd8, 0xffffffff);
    rig.get(0xc0);
    rig.put(0xc8, 0x14);
    expect(rig.machine.intx).toBe(false);
    rig.put(0xd0, 0x10);
    expect(rig.machine.intx).toBe(true);
    expect(rig.get(0xd0)).toBe(0x10);
    rig.put(0xc0, 0x10);
    expect(rig.machine.intx).toBe(false);
    rig.put(0xd0, 0x4);
    expect(rig.machine.intx).toBe(true);
    expect(rig.get(0xc0)).toBe(4);
    expect(rig.machine.intx).toBe(false);
    rig.put(0xd8, 0x14);
    expect(rig.get(0xd0)).toBe(0);
  });

  it('ITR keeps assertions apart', () => {
    rig = new E1000Rig();
    rig.machine.onInterrupt = null;
    rig.put(0xc4, 1000);
    rig.machine.peer.send(frame);
    expect(rig.machine.interrupts).toBe(1);
    rig.get(0xc0);
    rig.machine.peer.send(frame);
    expect(rig.machine.intx).toBe(false);
    rig.machine.settle(255_000);
    expect(rig.machine.intx).toBe(false);
    rig.machine.settle(2_000);
    expect(rig.machine.intx).toBe(true);
    rig.driver.interrupt();
    expect(rig.received.length).toBe(2);
  });

  it('RDTR waits for quiet, RADV not longer than that; FPD tells at once', () => {
    rig = new E1000Rig();
    rig.machine.onInterrupt = null;
    rig.put(0x2820, 100);
    rig.put(0x282c, 150);
    rig.machine.peer.send(frame);
    rig.machine.settle(90_000);
    rig.machine.peer.send(frame);
    rig.machine.settle(60_000);
    expect(rig.machine.interrupts).toBe(0);
    rig.machine.settle(4_000);
    expect(rig.machine.interrupts).toBe(1);
    rig.get(0xc0);
    rig.machine.peer.send(frame);
    expect(rig.machine.intx).toBe(false);
    rig.put(0x2820, 0x80000064);
    expect(rig.machine.intx).toBe(true);
  });

  it('TIDV delays reports of descriptors with IDE only', () => {
    rig = new E1000Rig();
    rig.machine.onInterrupt = null;
    rig.put(0x3820, 50);
    const address = rig.packet(60);
    rig.transmit([[address, 0, 0x8b000000 | 60, 0]]);
    rig.get(0xc0);
    expect(rig.machine.intx).toBe(false);
    rig.machine.settle(52_000);
    expect(rig.machine.intx).toBe(true);
    expect(rig.get(0xc0) & 1).toBe(1);
    rig.transmit([[address, 0, 0x0b000000 | 60, 0]]);
    expect(rig.get(0xc0) & 1).toBe(1);
  });

  it('mitigation=off tells everything at once', () => {
    rig = new E1000Rig({ mitigation: false });
    rig.machine.onInterrupt = null;
    rig.put(0xc4, 1000);
    rig.put(0x2820, 1000);
    rig.machine.peer.send(frame);
    rig.get(0xc0);
    rig.machine.peer.send(frame);
    expect(rig.machine.interrupts).toBe(2);
  });
});

describe('statistics registers', () => {
  it('count by size and kind, and clear when read', () => {
    rig = new E1000Rig({ ringSize: 64 });
    for (const length of [60, 64, 200, 400, 1000, 1514]) {
      const frame = testFrame(length);
      frame.set(MAC, 0);
      rig.machine.peer.send(frame);
    }
    const broadcast = testFrame(60);
    broadcast.fill(255, 0, 6);
    rig.machine.peer.send(broadcast);
    const octets = 60 + 64 + 200 + 400 + 1000 + 1514 + 60 + 7 * 4;
    const bins = [0x405c, 0x4060, 0x4064, 0x4068, 0x406c, 0x4070].map((at) => rig.get(at));
    expect(bins).toEqual([2, 1, 1, 1, 1, 1]);
    expect(rig.get(0x405c)).toBe(0);
    expect(rig.get(0x4074)).toBe(7);
    expect(rig.get(0x4078)).toBe(1);
    expect(rig.get(0x40d0)).toBe(7);
    expect(rig.get(0x4088)).toBe(octets);
    expect(rig.get(0x4088)).toBe(octets);
    expect(rig.get(0x408c)).toBe(0);
    expect(rig.get(0x4088)).toBe(0);
    expect(rig.get(0x40c0)).toBe(octets);
    rig.transmit([
      [rig.packet(60), 0, 0x0b000000 | 60, 0],
      [rig.packet(900), 0, 0x0b000000 | 900, 0],
    ]);
    expect(rig.get(0x40d8)).toBe(1);
    expect(rig.get(0x40e8)).toBe(1);
    expect(rig.get(0x4080)).toBe(2);
    expect(rig.get(0x4090)).toBe(968);
  });
});
