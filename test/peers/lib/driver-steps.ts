/** What a guest of v86 does with one NIC after another, as steps of its init, and what it printed. */

import { uploadCommand } from '../vfio-user/services.ts';
import { MARK } from './initramfs.ts';

export interface StepServers {
  httpPort: number;
  /** Where an iperf3 server listens, and for how long it is used in each direction; absent: not at all. */
  iperf?: { port: number; seconds: number };
}

/** Loads a driver and uses the NIC it bound: a lease, pings, a file down and up again, iperf3. The NIC is down afterwards, so that the next may have the same network. */
export function driverStep(
  driver: string,
  modules: readonly string[],
  { httpPort, iperf }: StepServers,
): string {
  // The server may still be busy with the run before.
  const iperf3 = (way: string): string =>
    iperf === undefined
      ? ''
      : `n=0; until iperf3 -c 10.0.2.2 -p ${iperf.port} -t ${iperf.seconds} -f k ${way}; do n=$((n+1)); [ $n -lt 10 ]; sleep 1; done`;
  return `set -e
${modules.map((name) => `modprobe ${name}`).join('\n')}
for path in /sys/class/net/*; do
  bound=$(readlink $path/device/driver) && [ "\${bound##*/}" = ${driver} ] && nic=\${path##*/}
done
ip link set $nic up
udhcpc -i $nic -n -q -t 20
ip addr show $nic
ping -c 3 10.0.2.2
wget -q -O /tmp/file http://10.0.2.2:${httpPort}/file
sha256sum </tmp/file
${uploadCommand('/tmp/file', '10.0.2.2', httpPort)}
rm /tmp/file
${iperf3('')}
${iperf3('-R')}
ip addr flush dev $nic
ip link set $nic down
`;
}

export interface Step {
  output: string;
  status: string;
}

/** The steps that ended, by name, from all that came on the second serial line. */
export function readSteps(serial: string): Map<string, Step> {
  const steps = new Map<string, Step>();
  const marked = new RegExp(`${MARK}begin (\\S+)\n(.*?)${MARK}end \\1 (\\d+)`, 'gs');
  for (const [, name, output, status] of serial.replaceAll('\r', '').matchAll(marked))
    steps.set(name!, { output: output!, status: status! });
  return steps;
}

/** Whether the step of this name has ended. */
export function hasEnded(serial: string, name: string): boolean {
  return serial.includes(`${MARK}end ${name} `);
}
