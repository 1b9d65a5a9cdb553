/**
 * What does a guest get through a NIC of another process? One QEMU 11.1 guest (TCG) holds two e1000 with a user network each: QEMU's own, and netemu's over vfio-user.
 * In turns, for each: round trips to the gateway (median of ping), and iperf3 to a server on the host, up and down. Medians of the rounds, and the ratios.
 * A TCG guest is slow (its CPU is the limit, not the NIC): the figures compare the two, and are no measure of either.
 */

import { runGuest } from '../test/peers/lib/guest.ts';
import { Iperf } from '../test/peers/lib/iperf.ts';
import { prepare } from '../test/peers/lib/prepare.ts';
import { Rig } from '../test/peers/vfio-user/rig.ts';
import { median, report, runtimeFacts } from './lib/report.ts';

const ROUNDS = 5;
const PINGS = 200;
const SECONDS = 3;
/** Adaptive polling of the host I/O; 0: the command as it is by default. */
const BUSY_POLL_NS = Number(process.env.BUSY_POLL_NS ?? 0);

await prepare(['tools']);
const iperf = await Iperf.start();
const bits = `sed -n 's/.*"bits_per_second":[^0-9]*\\([0-9.e+]*\\).*/\\1/p' | tail -1`;
const script = `
modprobe e1000
for round in $(seq ${ROUNDS}); do
  for pair in "qemu eth0 10.0.3.2" "netemu eth1 10.0.2.2"; do
    set -- $pair
    ip link set $2 up; udhcpc -n -q -t 10 -T 1 -i $2 >/dev/null 2>&1
    ping -A -c ${PINGS} $3 | sed -n "s/.*time=\\([0-9.]*\\) ms/$1 ping \\1/p"
    echo $1 up $(iperf3 -c $3 -p ${iperf.port} -t ${SECONDS} -J | ${bits})
    echo $1 down $(iperf3 -c $3 -p ${iperf.port} -t ${SECONDS} -R -J | ${bits})
    ip link set $2 down
  done
done
`;

const rig = await Rig.make({
  netdev: { type: 'user', id: 'n0' },
  device: { driver: 'e1000', netdev: 'n0' },
  busyPollNs: BUSY_POLL_NS,
});
try {
  const result = await runGuest({
    qemu: '11.1',
    args: [
      ...['-device', 'e1000,addr=2,netdev=q0', '-netdev', 'user,id=q0,net=10.0.3.0/24'],
      ...rig.qemuArgs({ addr: '3' }),
    ],
    sharedMemory: true,
    script,
    timeoutMs: 400_000,
  });
  const lines = result
    .ok('main')
    .trim()
    .split('\n')
    .map((line) => line.split(' '));
  const figure = (who: string, what: string): number => {
    const values = lines
      .filter((words) => words[0] === who && words[1] === what)
      .map((words) => Number(words[2]));
    if (values.length < ROUNDS || values.some((value) => !(value > 0)))
      throw new Error(`no ${what} for ${who}:\n${result.ok('main')}`);
    return median(values);
  };
  const of = (who: string) => ({
    pingMs: figure(who, 'ping'),
    upBps: figure(who, 'up'),
    downBps: figure(who, 'down'),
  });
  const [netemu, qemu] = [of('netemu'), of('qemu')];
  report({
    bench: 'vfio-user-guest',
    ...runtimeFacts(),
    rounds: ROUNDS,
    busyPollNs: BUSY_POLL_NS,
    netemu,
    qemu,
    pingRatio: netemu.pingMs / qemu.pingMs,
    upRatio: netemu.upBps / qemu.upBps,
    downRatio: netemu.downBps / qemu.downBps,
  });
} finally {
  await iperf.close();
  rig.close();
}
