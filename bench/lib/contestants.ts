/** Who forwards frames between two netdevs on a hub: netemu, and the QEMUs of this machine, with the same option lines. */

import { existsSync } from 'node:fs';
import { forkyCommand } from '../../test/peers/lib/forky.ts';
import type { Contestant } from './forwarding.ts';

export function netemu(netdevs: readonly string[], busyPollNs = '0'): Contestant {
  const script = new URL('../peers/netemu-hub.ts', import.meta.url).pathname;
  return {
    name: 'netemu',
    program: process.execPath,
    args: ['--import', 'tsx', script, busyPollNs, ...netdevs],
  };
}

/** `windowFrames`: what its sockets hold. */
export function qemus(netdevs: readonly string[], windowFrames: number): Contestant[] {
  // Its monitor greets when the netdevs are made.
  const args = [
    ...['-M', 'none', '-display', 'none', '-nodefaults', '-no-user-config', '-monitor', 'stdio'],
    ...netdevs.flatMap((netdev) => ['-netdev', netdev]),
    ...netdevs.flatMap((netdev) => {
      const id = /id=(\w+)/.exec(netdev)![1]!;
      return ['-netdev', `hubport,id=p${id},hubid=0,netdev=${id}`];
    }),
  ];
  const list: Contestant[] = [];
  const common = { windowFrames, plainPeers: true };
  if (existsSync('/usr/bin/qemu-system-x86_64'))
    list.push({ name: 'qemu-7.2', program: '/usr/bin/qemu-system-x86_64', args, ...common });
  const forky = forkyCommand('qemu-system-x86_64', args);
  if (existsSync(`${forky.args[6]}/usr/bin/qemu-system-x86_64`))
    list.push({ name: 'qemu-11.1', ...forky, ...common });
  return list;
}

/** The same, in a network namespace. */
export function inNamespace(namespace: string, contestant: Contestant): Contestant {
  return {
    ...contestant,
    program: 'ip',
    args: ['netns', 'exec', namespace, contestant.program, ...contestant.args],
  };
}
