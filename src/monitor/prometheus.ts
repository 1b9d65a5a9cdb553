/**
 * All counters as Prometheus text (exposition format 0.0.4), written when somebody asks: counting itself costs nothing more for it.
 *
 *     netemu_<kind>_<counter>_total{id="e0",type="e1000",queue="0"} 17        things that only rise
 *     netemu_<kind>_<gauge>{…} 4096                                           things that rise and fall
 */

import { type Counted, countedThings, GAUGES } from '../network/describe.ts';
import type { Network } from '../network/network.ts';

/** Facts of the process around the network, each a gauge without labels. */
export type ProcessGauges = Readonly<Record<string, number>>;

export function prometheusText(network: Network, version: string, process: ProcessGauges = {}): string {
  const families = new Map<string, { type: 'counter' | 'gauge'; lines: string[] }>();
  const add = (name: string, type: 'counter' | 'gauge', labels: Counted['labels'], value: number): void => {
    let family = families.get(name);
    if (family === undefined) {
      family = { type, lines: [] };
      families.set(name, family);
    }
    family.lines.push(`${name}${labelText(labels)} ${value}`);
  };
  add('netemu_build_info', 'gauge', { version }, 1);
  add('netemu_running', 'gauge', {}, network.running ? 1 : 0);
  for (const [name, value] of Object.entries(process)) add(`netemu_${snake(name)}`, 'gauge', {}, value);
  for (const { id, config, nic } of network.devices.values()) {
    for (const [queue, port] of nic.ports.entries()) {
      add('netemu_link_up', 'gauge', { id, type: config.model, queue: String(queue) }, port.up ? 1 : 0);
    }
  }
  for (const { kind, labels, counters } of countedThings(network)) {
    for (const [counter, value] of Object.entries(counters)) {
      const name = `netemu_${snake(kind)}_${snake(counter)}`;
      if (GAUGES.has(counter)) add(name, 'gauge', labels, value);
      else add(`${name}_total`, 'counter', labels, value);
    }
  }
  const out: string[] = [];
  for (const [name, { type, lines }] of families) out.push(`# TYPE ${name} ${type}`, ...lines);
  return `${out.join('\n')}\n`;
}

/** `rxDropNoDescriptor` and `hub-port` as `rx_drop_no_descriptor` and `hub_port`. */
function snake(name: string): string {
  return name.replaceAll(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`).replaceAll(/[^a-z0-9_]/g, '_');
}

function labelText(labels: Counted['labels']): string {
  const parts = Object.entries(labels).map(([name, value]) => {
    const escaped = value.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n');
    return `${name}="${escaped}"`;
  });
  return parts.length === 0 ? '' : `{${parts.join(',')}}`;
}
