/**
 * How long does a guest's virtual CPU stand still for a register read over vfio-user, and how many interrupts a second can it take? One guest (QEMU 11.1, TCG) holds two
 * e1000: QEMU's own and netemu's. In turns, for each: reads of STATUS one after the other (median and 99th percentile over all rounds), and interrupts from
 * raising (ICS) over taking (UIO) to acknowledging (ICR) and unmasking. Medians of the rounds, and the ratio to QEMU's own.
 */

import { runGuest } from '../test/peers/lib/guest.ts';
import { guestProgram } from '../test/peers/lib/guest-program.ts';
import { Rig } from '../test/peers/vfio-user/rig.ts';
import { median, report, runtimeFacts } from './lib/report.ts';

const ROUNDS = 5;
const READS = 5000;
const INTERRUPTS = 500;
/** Adaptive polling of the host I/O; 0: the command as it is by default. */
const BUSY_POLL_NS = Number(process.env.BUSY_POLL_NS ?? 0);

// On QEMU's pc machine, in the order of the command line.
const QEMU_SLOT = '0000:00:02.0';
const NETEMU_SLOT = '0000:00:03.0';

const script = `
modprobe uio_pci_generic
echo 8086 100e >/sys/bus/pci/drivers/uio_pci_generic/new_id
for round in $(seq ${ROUNDS}); do
  for slot in ${QEMU_SLOT} ${NETEMU_SLOT}; do
    for other in ${QEMU_SLOT} ${NETEMU_SLOT}; do
      [ -e /sys/bus/pci/drivers/uio_pci_generic/$other ] && echo $other >/sys/bus/pci/drivers/uio_pci_generic/unbind
    done
    echo $slot >/sys/bus/pci/drivers/uio_pci_generic/bind
    echo "$slot $(nic-latency $slot ${READS} ${INTERRUPTS})"
  done
done
`;

const rig = await Rig.make({ device: { driver: 'e1000' }, busyPollNs: BUSY_POLL_NS });
try {
  const result = await runGuest({
    qemu: '11.1',
    args: ['-device', 'e1000,addr=2', ...rig.qemuArgs({ addr: '3' })],
    sharedMemory: true,
    files: { '/bin/nic-latency': await guestProgram('nic-latency') },
    script,
    timeoutMs: 180_000,
  });
  const lines = result
    .ok('main')
    .trim()
    .split('\n')
    .map((line) => line.split(' '));
  const column = (slot: string, index: number): number => {
    const values = lines.filter(([name]) => name === slot).map((words) => Number(words[index]));
    if (values.length !== ROUNDS || values.some((value) => !(value > 0)))
      throw new Error(`no figures for ${slot}:\n${result.ok('main')}`);
    return median(values);
  };
  const netemu = {
    readMedianNs: column(NETEMU_SLOT, 1),
    readP99Ns: column(NETEMU_SLOT, 2),
    interruptsPerSecond: column(NETEMU_SLOT, 3),
  };
  const qemu = {
    readMedianNs: column(QEMU_SLOT, 1),
    readP99Ns: column(QEMU_SLOT, 2),
    interruptsPerSecond: column(QEMU_SLOT, 3),
  };
  report({
    bench: 'vfio-user-latency',
    ...runtimeFacts(),
    rounds: ROUNDS,
    reads: READS,
    interrupts: INTERRUPTS,
    busyPollNs: BUSY_POLL_NS,
    netemu,
    qemu,
    readRatio: netemu.readMedianNs / qemu.readMedianNs,
    interruptRatio: netemu.interruptsPerSecond / qemu.interruptsPerSecond,
  });
} finally {
  rig.close();
}
