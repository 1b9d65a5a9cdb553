/** `--guest v86`: a PC in this process, with the NICs of the line on its PCI bus and its serial console on the terminal. Needs the npm package v86 and SeaBIOS. */

import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { DeviceConfig } from '../config/devices/index.ts';
import type { V86Config } from '../config/guest.ts';
import { HostIoError, UnsupportedError } from '../core/errors.ts';
import { machineOf } from '../guest/v86/machine.ts';
import { type AttachedNic, attachNic } from '../guest/v86/nic.ts';
import type { Device, Network } from '../network/network.ts';
import type { Nic } from '../nic/nic.ts';

/** Where Debian's seabios package, and other systems, put the images. */
const BIOS_PLACES = ['/usr/share/seabios', '/usr/share/qemu'];

export interface RunningV86 {
  addDevice(config: DeviceConfig): { readonly device: Device; start(): void; close(): void };
  /** Switches the machine on; once. */
  start(): void;
  close(): Promise<void>;
}

export interface V86Terminal {
  /** A byte that serial port 0 or 1 (ttyS0, ttyS1) sent. */
  output(port: 0 | 1, byte: number): void;
  /** The guest's CPU has halted for good, its interrupts off. */
  halted?(): void;
  /** v86 cannot go on with what the guest did; absent: an error that nobody catches. */
  failed?(): void;
  /** Hands over what types into ttyS0. */
  input?(type: (text: string) => void): void;
}

const CTRL_A = '\x01';

/**
 * The console on the process's terminal, key by key when it is one: Ctrl-C is the guest's, Ctrl-A x ends the program, and so do a CPU that halts for good and a machine that
 * cannot go on.
 */
export function processTerminal(quit: () => void, failed: () => void): V86Terminal {
  const { stdin, stdout } = process;
  return {
    output(port, byte) {
      if (port === 0) stdout.write(Uint8Array.of(byte));
    },
    halted: quit,
    failed,
    input(type) {
      const isTerminal = stdin.isTTY === true;
      if (isTerminal) {
        stdin.setRawMode(true);
        process.on('exit', () => stdin.setRawMode(false));
      }
      let escaped = false;
      stdin.setEncoding('latin1').on('data', (chunk: string) => {
        let text = '';
        for (const key of chunk) {
          if (isTerminal && !escaped && key === CTRL_A) escaped = true;
          else if (escaped && key === 'x') quit();
          else {
            escaped = false;
            text += key;
          }
        }
        if (text !== '') type(text);
      });
    },
  };
}

/** Builds the machine; resolves when NICs can be put on its bus. Rejects with UnsupportedError when v86 or a BIOS is not installed, with HostIoError for a file. */
export async function startV86(
  network: Network,
  config: V86Config,
  terminal: V86Terminal,
): Promise<RunningV86> {
  const { V86 } = await import('v86').catch(() => {
    throw new UnsupportedError('--guest v86 needs the npm package v86 (npm install v86@0.5.462)');
  });
  const wasm = join(dirname(fileURLToPath(import.meta.resolve('v86'))), 'v86.wasm');
  const emulator = new V86({
    wasm_path: wasm,
    memory_size: config.memoryBytes,
    vga_memory_size: 2 << 20,
    bios: image(config.bios ?? installed('bios.bin')),
    vga_bios: image(config.vgaBios ?? installed('vgabios-stdvga.bin')),
    ...(config.kernel !== undefined && { bzimage: image(config.kernel) }),
    ...(config.initrd !== undefined && { initrd: image(config.initrd) }),
    cmdline: config.append,
    uart1: true,
    disable_keyboard: true,
    disable_mouse: true,
    disable_speaker: true,
    autostart: false,
  });
  await new Promise<void>((resolve) => emulator.add_listener('emulator-ready', () => resolve()));
  const machine = machineOf(emulator);
  for (const port of [0, 1] as const)
    machine.bus.register(`serial${port}-output-byte`, (byte: number) => terminal.output(port, byte), machine);
  machine.bus.register('cpu-event-halt', () => terminal.halted?.(), machine);
  const { failed } = terminal;
  if (failed !== undefined) {
    const slice = machine.v86.do_tick.bind(machine.v86);
    machine.v86.do_tick = () => {
      try {
        slice();
      } catch (error) {
        if (!(error instanceof Error && error.name === 'RuntimeError')) throw error;
        failed();
      }
    };
  }
  terminal.input?.((text) => {
    for (let i = 0; i < text.length; i++) machine.bus.send('serial0-input', text.charCodeAt(i));
  });
  let running = false;
  return {
    addDevice(deviceConfig) {
      if (running) throw new UnsupportedError('a v86 machine cannot take a NIC while it runs');
      let device: Device | undefined;
      const attached: AttachedNic<Nic> = attachNic(
        machine,
        { loop: network.loop, pool: network.pool, random: network.context.random, log: network.context.log },
        (host) => {
          device = network.makeDevice(deviceConfig, host);
          return device.nic;
        },
      );
      return { device: device!, start() {}, close: () => attached.detach() };
    },
    start() {
      if (running) return;
      running = true;
      void emulator.run();
    },
    async close() {
      if (running) await emulator.stop();
      await emulator.destroy();
    },
  };
}

function installed(name: string): string {
  const place = BIOS_PLACES.find((folder) => existsSync(join(folder, name)));
  if (place === undefined)
    throw new UnsupportedError(
      `there is no ${name} here: install the seabios package, or give bios= and vga-bios=`,
    );
  return join(place, name);
}

function image(path: string): { buffer: ArrayBuffer } {
  try {
    const bytes = readFileSync(path);
    return { buffer: bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length) as ArrayBuffer };
  } catch (error) {
    const { code = 'EIO' } = error as NodeJS.ErrnoException;
    throw new HostIoError('open', code, `could not open '${path}': ${code}`);
  }
}
