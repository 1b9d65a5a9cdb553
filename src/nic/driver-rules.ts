/** All rules of `strict=on`, by model, and the page of documentation that lists them (docs/strict.md). */

import type { DriverRule } from './driver-report.ts';
import { E1000_RULES } from './e1000/strict.ts';
import { RTL8139_RULES } from './rtl8139/strict.ts';
import { VIRTIO_NET_RULES } from './virtio-net/strict.ts';

export const DRIVER_RULES: Readonly<Record<string, Readonly<Record<string, DriverRule>>>> = {
  e1000: E1000_RULES,
  rtl8139: RTL8139_RULES,
  'virtio-net': VIRTIO_NET_RULES,
};

const HEAD = `# What a driver does against the manual

<!-- Written by \`npm run docs\`. -->

\`strict=on\` makes a NIC look at what its driver does and tell what the chip's manual forbids:

\`\`\`
netemu --netdev user,id=n0 --device e1000,netdev=n0,id=nic0,vfio-user=/run/nic0.sock,strict=on
\`\`\`

Each kind of fault is logged once, with register and section, and counted; \`query-driver-complaints\` tells all of them with their counts and what was seen the first time. The
NIC behaves as without it. Register writes are looked at before they are carried out, descriptors when they are handed over; a NIC without \`strict\` has no checker.
Where queues are served outside this process (the \`vhost-user\` netdev) only the registers are looked at, as a VMM on our vhost-user back-end keeps the registers to itself and
only the rings are.

What Linux 6.1's drivers do, under QEMU: \`virtio_net\` (split, packed, several queues), \`8139cp\` and \`8139too\` break no rule. \`e1000\` may queue a packet before it
sets TCTL.EN, which it does when it sees the link (\`doorbell-before-enable\`); its off-line self-test writes patterns into all registers, reserved bits and ring lengths among them.
`;

function cell(text: string): string {
  return text.replaceAll('|', '\\|');
}

export function driverRulesPage(): string {
  const models = Object.entries(DRIVER_RULES).map(([model, rules]) => {
    const rows = Object.entries(rules).map(
      ([rule, [register, section, message]]) =>
        `| \`${rule}\` | ${cell(register)} | ${cell(section)} | ${cell(message)} |`,
    );
    return [
      `## ${model}`,
      '',
      '| rule | register | section | what the driver did |',
      '| --- | --- | --- | --- |',
      ...rows,
    ].join('\n');
  });
  return `${[HEAD, ...models].join('\n')}\n`.replaceAll(/\|\n## /g, '|\n\n## ');
}
