/**
 * The live status: a block of lines with each client's link, rates and drops. On a terminal it is redrawn in place below what has been
 * printed; elsewhere a plain line appears now and then while traffic flows.
 */

import type { Port } from '../core/port.ts';
import { readCounters, sumDrops } from '../core/stats.ts';
import type { Network } from '../network/network.ts';

interface Totals {
  /** Guest's view for a NIC, the netdev's own for a netdev: frames and bytes that it sent and was sent. */
  outFrames: number;
  outBytes: number;
  inFrames: number;
  inBytes: number;
  drops: number;
}

export interface StatusRow extends Totals {
  name: string;
  kind: string;
  up: boolean;
}

/** What every NIC and netdev has moved so far. */
export function statusRows(network: Network): StatusRow[] {
  const rows: StatusRow[] = [];
  for (const { id, nic, config } of network.devices.values()) {
    rows.push({ name: id, kind: config.model, ...totalsOf(nic.ports, nic.stats) });
  }
  for (const { id, config, ports, stats } of network.netdevs.values()) {
    rows.push({ name: id, kind: config.type, ...totalsOf(ports, stats) });
  }
  return rows;
}

function totalsOf(ports: readonly Port[], stats: object): Totals & { up: boolean } {
  const totals = {
    outFrames: 0,
    outBytes: 0,
    inFrames: 0,
    inBytes: 0,
    drops: sumDrops(readCounters(stats)),
    up: false,
  };
  for (const port of ports) {
    totals.outFrames += port.stats.sentFrames;
    totals.outBytes += port.stats.sentBytes;
    totals.inFrames += port.peer?.stats.sentFrames ?? 0;
    totals.inBytes += port.peer?.stats.sentBytes ?? 0;
    totals.drops += sumDrops(readCounters(port.stats));
    totals.up ||= port.up;
  }
  return totals;
}

/** Aligned lines; rates are against `before`, the rows of `seconds` ago. */
export function statusLines(
  rows: readonly StatusRow[],
  before: readonly StatusRow[],
  seconds: number,
): string[] {
  const table = [['', '', 'link', 'out frame/s', 'out bit/s', 'in frame/s', 'in bit/s', 'drops']];
  for (const row of rows) {
    const old = before.find((candidate) => candidate.name === row.name);
    const rate = (key: keyof Totals): number =>
      old === undefined ? 0 : Math.max(0, row[key] - old[key]) / seconds;
    table.push([
      row.name,
      row.kind,
      row.up ? 'up' : 'down',
      scaled(rate('outFrames')),
      scaled(8 * rate('outBytes')),
      scaled(rate('inFrames')),
      scaled(8 * rate('inBytes')),
      String(row.drops),
    ]);
  }
  const widths = table[0]!.map((_, column) => Math.max(...table.map((cells) => cells[column]!.length)));
  return table.map((cells) =>
    cells
      .map((cell, column) => (column < 3 ? cell.padEnd(widths[column]!) : cell.padStart(widths[column]!)))
      .join('  ')
      .trimEnd(),
  );
}

/** Three digits and a decimal prefix: 1234567 is `1.23 M`. */
export function scaled(value: number): string {
  const prefixes = ['', ' k', ' M', ' G', ' T'];
  let step = 0;
  while (value >= 999.5 && step < prefixes.length - 1) {
    value /= 1000;
    step++;
  }
  const digits = step === 0 || value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2;
  return `${value.toFixed(digits)}${prefixes[step]}`;
}

/** A stream to print on; `process.stdout` is one. */
export interface Screen {
  write(text: string): unknown;
  readonly isTTY?: boolean;
  readonly columns?: number;
}

/** Prints lines, and on a terminal keeps the status block under them. */
export class LiveStatus {
  readonly #screen: Screen;
  #block: readonly string[] = [];

  constructor(screen: Screen) {
    this.#screen = screen;
  }

  /** Prints one line for good. */
  print(line: string): void {
    this.#screen.write(`${this.#erase()}${line}\n${this.#blockText()}`);
  }

  /** Replaces the block; without a terminal nothing is shown. */
  show(lines: readonly string[]): void {
    if (this.#screen.isTTY !== true) return;
    const erase = this.#erase();
    const width = this.#screen.columns ?? 80;
    this.#block = lines.map((line) => line.slice(0, width - 1));
    this.#screen.write(erase + this.#blockText());
  }

  /** Leaves the block where it is and starts a new line under it. */
  end(): void {
    this.#block = [];
  }

  #erase(): string {
    return this.#block.length === 0 ? '' : `\x1b[${this.#block.length}A\x1b[J`;
  }

  #blockText(): string {
    return this.#block.map((line) => `${line}\n`).join('');
  }
}
