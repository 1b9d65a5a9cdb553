/** The probe guest as the command line runs it: its machine, its driver, its steps as lines. */

import { createHash } from 'node:crypto';
import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import type { DeviceConfig } from '../config/devices/index.ts';
import type { ProbeConfig } from '../config/guest.ts';
import { HostIoError } from '../core/errors.ts';
import { ProbeMachine } from '../guest/probe/machine.ts';
import { ProbeGuest } from '../guest/probe/probe.ts';
import { formatNs } from '../guest/probe/report.ts';
import type { ByteSource } from '../guest/probe/source.ts';
import { openRamFile } from '../host-io/ram-file.ts';
import type { Device, Network } from '../network/network.ts';

export interface RunningProbe {
  readonly device: Device;
  /** Begins, if it has not: the machine is switched on. */
  start(): void;
  close(): void;
}

interface ProbeOutput {
  print(line: string): void;
  done(ok: boolean): void;
}

/** Makes the device on a machine of its own; with a config, a probe guest drives it, from now on or, while the network stands still, from `start` on. Throws like `Network.makeDevice`. */
export function startProbe(
  network: Network,
  deviceConfig: DeviceConfig,
  config: ProbeConfig | null,
  output: ProbeOutput,
): RunningProbe {
  const { loop, pool, context } = network;
  const { hostIo, random, log } = context;
  // A program that serves the NIC's queues must be able to reach the guest's RAM.
  const isServed = network.netdevs.get(deviceConfig.netdev ?? '')?.backend?.queueServer !== undefined;
  const machine = new ProbeMachine({
    loop,
    pool,
    random,
    log,
    ...(isServed && hostIo && { ramFile: (lengthBytes) => openRamFile(hostIo, lengthBytes) }),
  });
  let device: Device;
  try {
    device = network.makeDevice(deviceConfig, machine);
  } catch (error) {
    machine.close();
    throw error;
  }
  if (config === null) return { device, start() {}, close: () => machine.close() };
  const guest = ProbeGuest.onNic(machine, device.nic, {
    config,
    loop,
    random: context.random,
    log: context.log,
    hostName: 'netemu-probe',
    createSha256: () => createHash('sha256'),
    openFile: openSource,
    report: ({ ok, detail, elapsedNs }) =>
      output.print(`${device.id}: ${ok ? '' : 'failed: '}${detail} (${formatNs(elapsedNs)})`),
    onDone: ({ ok }) => output.done(ok),
  });
  let started = false;
  const start = (): void => {
    if (started) return;
    started = true;
    guest.start();
  };
  if (network.running) start();
  return {
    device,
    start,
    close() {
      guest.close();
      machine.close();
    },
  };
}

/** A regular file to upload. Throws HostIoError. */
function openSource(path: string): ByteSource {
  let fd = -1;
  try {
    fd = openSync(path, 'r');
    const sizeBytes = fstatSync(fd).size;
    return {
      sizeBytes,
      read: (offset, target, from, to) => readSync(fd, target, from, to - from, offset),
      close: () => closeSync(fd),
    };
  } catch (error) {
    if (fd >= 0) closeSync(fd);
    const { code = 'EIO', syscall = 'open' } = error as NodeJS.ErrnoException;
    throw new HostIoError(syscall, code, `could not open '${path}': ${code}`);
  }
}
