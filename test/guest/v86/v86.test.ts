/** A NIC on the bus of a real v86 machine that never runs: what its CPU would do is done through v86's own ports and memory map. */
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { V86 } from 'v86';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { seededRandom, VirtualClock } from '../../../src/core/clock.ts';
import { UnsupportedError } from '../../../src/core/errors.ts';
import { silentLogger } from '../../../src/core/log.ts';
import { Loop } from '../../../src/core/loop.ts';
import { attachNet, attachNic, type V86Machine } from '../../../src/guest/v86/index.ts';
import { InterruptPin } from '../../../src/guest/v86/interrupt-pin.ts';
import { Network } from '../../../src/network/network.ts';
import { nics } from '../../../src/nic/index.ts';
import { expectNothingHeld, RecordingClient, testContext } from '../../lib/context.ts';

interface Ports {
  port_write32(port: number, value: number): void;
  port_write16(port: number, value: number): void;
  port_read32(port: number): number;
}

let emulator: V86;
let io: Ports;
beforeAll(async () => {
  const wasm = join(dirname(fileURLToPath(import.meta.resolve('v86'))), 'v86.wasm');
  emulator = new V86({ wasm_path: wasm, memory_size: 4 << 20, vga_memory_size: 1 << 20, autostart: false });
  await new Promise<void>((resolve) => emulator.add_listener('emulator-ready', () => resolve()));
  io = (emulator as unknown as V86Machine).v86.cpu.io as unknown as Ports;
});
afterAll(() => emulator.destroy());

function config(bdf: number, offset: number): number {
  io.port_write32(0xcf8, (0x80000000 | (bdf << 8) | offset) >>> 0);
  return io.port_read32(0xcfc) >>> 0;
}

function setConfig(bdf: number, offset: number, value: number): void {
  config(bdf, offset);
  io.port_write32(0xcfc, value | 0);
}

it('a NIC answers on the bus: identity, BAR sizes, a moved I/O BAR, a memory BAR that stays, DMA', () => {
  const network = new Network({
    clock: new VirtualClock(),
    random: seededRandom(1),
    backends: {},
    nics,
    pool: { smallSlots: 64, largeSlots: 4, bareRecords: 64, debug: true },
  });
  const { loop, pool } = network;
  const site = { loop, pool, random: seededRandom(2), log: silentLogger };
  const attached = attachNic(emulator, site, (host) => network.addDevice({ driver: 'e1000', host }).nic);
  const { bdf, nic } = attached;
  expect(config(bdf, 0)).toBe(0x100e8086);
  const memoryBar = config(bdf, 0x10);
  setConfig(bdf, 0x10, 0xffffffff);
  expect(config(bdf, 0x10)).toBe(0xfffe0000);
  setConfig(bdf, 0x10, 0xe8000000);
  expect(config(bdf, 0x10)).toBe(memoryBar);
  setConfig(bdf, 0x14, 0xffffffff);
  expect(config(bdf, 0x14)).toBe(0xffffffc1);
  setConfig(bdf, 0x14, 0xd000);
  expect(config(bdf, 0x14)).toBe(0xd001);
  setConfig(bdf, 4, 7);
  expect(nic.dmaEnabled).toBe(true);
  io.port_write32(0xd000, 8);
  expect(io.port_read32(0xd004)).toBe(nic.readBar(0, 8, 4) | 0);
  // Nothing else on the bus noticed.
  expect(config(0, 0)).toBe(0x12378086);

  emulator.write_memory(Uint8Array.of(1, 2, 3, 4), 0x1000);
  expect(nic.host.memory.u32(0x1000)).toBe(0x04030201);
  nic.host.memory.putU32(0x2000, 0x0a0b0c0d);
  expect([...emulator.read_memory(0x2000, 4)]).toEqual([0x0d, 0x0c, 0x0b, 0x0a]);
  expect(nic.host.memory.u32(4 << 20)).toBe(-1);

  attached.detach();
  expect(io.port_read32(0xd004)).toBe(-1);
  network.close();
  loop.runUntil(0);
  expect(pool.free).toBe(pool.capacity);
});

it('virtio-net: 16-bit stores reach it whole, software sees no MSI-X, a reset of the machine resets it and leaves its BARs', () => {
  const network = new Network({
    clock: new VirtualClock(),
    random: seededRandom(1),
    backends: {},
    nics,
    pool: { smallSlots: 64, largeSlots: 4, bareRecords: 64, debug: true },
  });
  const { loop, pool } = network;
  const site = { loop, pool, random: seededRandom(2), log: silentLogger };
  const attached = attachNic(
    emulator,
    site,
    (host) => network.addDevice({ driver: 'virtio-net-pci', host }).nic,
  );
  const { bdf, nic } = attached;
  const capabilities: number[] = [];
  for (let at = config(bdf, 0x34) & 0xff; at !== 0; at = (config(bdf, at) >> 8) & 0xff)
    capabilities.push(config(bdf, at) & 0xff);
  expect(capabilities).toContain(0x09);
  expect(capabilities).not.toContain(0x05);
  expect(capabilities).not.toContain(0x11);

  const { cpu } = (emulator as unknown as V86Machine).v86;
  const { index } = nic.bars.findLast(({ kind }) => kind !== 'io')!;
  const base = config(bdf, 0x10 + 4 * index) & ~15;
  setConfig(bdf, 4, 7);
  const stores: number[][] = [];
  const writeBar = nic.writeBar.bind(nic);
  nic.writeBar = (bar, offset, size, value) => {
    stores.push([bar, offset, size, value]);
    writeBar(bar, offset, size, value);
  };
  cpu.mmap_write16(base + 0x16, 1);
  expect(stores).toEqual([[index, 0x16, 2, 1]]);

  const places = nic.bars.map((bar) => config(bdf, 0x10 + 4 * bar.index));
  expect(nic.dmaEnabled).toBe(true);
  cpu.reboot_internal();
  expect(nic.dmaEnabled).toBe(false);
  expect(nic.bars.map((bar) => config(bdf, 0x10 + 4 * bar.index))).toEqual(places);
  attached.detach();
  network.close();
  loop.runUntil(0);
  expect(pool.free).toBe(pool.capacity);
});

it('a pin goes up in the next turn of the loop, falls at once, and one that falls on a shared line does not take another one with it', () => {
  const loop = new Loop(new VirtualClock());
  const told: string[] = [];
  const pci = {
    raise_irq: (bdf: number) => told.push(`up ${bdf}`),
    lower_irq: (bdf: number) => told.push(`down ${bdf}`),
  } as unknown as V86Machine['v86']['cpu']['devices']['pci'];
  const pins: InterruptPin[] = [];
  for (const bdf of [1, 2])
    pins.push(new InterruptPin(pci, bdf, loop, () => pins.filter((pin) => pin !== pins[bdf - 1])));
  const [one, two] = pins as [InterruptPin, InterruptPin];
  const turn = () => {
    loop.run();
    return told.splice(0).join();
  };
  one.set(true);
  expect(told).toEqual([]);
  expect(turn()).toBe('up 1');
  one.set(false);
  expect(turn()).toBe('down 1');
  // Up and down within an instruction: nothing happened.
  one.set(true);
  one.set(false);
  expect(turn()).toBe('');
  one.set(true);
  two.set(true);
  expect(turn()).toBe('up 1,up 2');
  one.set(false);
  expect(turn()).toBe('down 1,up 2');
  two.close();
  expect(turn()).toBe('down 2');
});

it("v86's own NIC and a port exchange frames", () => {
  const context = testContext();
  const far = new RecordingClient(context);
  const net = attachNet(emulator, context, far.port);
  // The end of the machine's bus where its devices are.
  const { bus } = (emulator as unknown as { v86: { bus: V86Machine['bus'] } }).v86;
  const heard: Uint8Array[] = [];
  const listen = (bytes: Uint8Array): void => {
    heard.push(bytes);
  };
  bus.register('net0-receive', listen, {});
  const frame = Uint8Array.from({ length: 60 }, (_, i) => i);
  bus.send('net0-send', frame);
  expect(far.received).toEqual([frame]);
  expect(far.send(frame)).toBe(1);
  expect(heard).toEqual([frame]);
  far.room = 0;
  bus.send('net0-send', frame);
  expect(net.stats).toMatchObject({ txFrames: 1, rxFrames: 1, dropPeerBusy: 1, dropNoBuffer: 0 });
  net.close();
  far.close();
  bus.unregister('net0-receive', listen);
  expectNothingHeld(context);
});

it('what is no v86 machine is refused', () => {
  const context = testContext();
  expect(() => attachNet({}, context, new RecordingClient(context).port)).toThrow(UnsupportedError);
});
