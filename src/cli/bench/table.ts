/** Measurements as an aligned table for people. */

import { scaled } from '../status.ts';
import type { Measurement } from './measure.ts';

export function benchTable(rows: readonly Measurement[]): string {
  const cells = [
    ['', 'way', 'bytes', 'frames', 'frame/s', 'bit/s', 'ns/frame', 'cpu ns/frame', 'cpu', 'dropped'],
    ...rows.map((row) => [
      row.name,
      row.direction,
      String(row.frameBytes),
      String(row.frames),
      scaled(row.framesPerSecond),
      scaled(row.bitsPerSecond),
      figure(row.nsPerFrame),
      figure(row.cpuNsPerFrame),
      `${((100 * row.cpuSeconds) / row.seconds).toFixed(0)} %`,
      String(Object.values(row.drops).reduce((sum, value) => sum + value, 0)),
    ]),
  ];
  const widths = cells[0]!.map((_, column) => Math.max(...cells.map((line) => line[column]!.length)));
  const lines = cells.map((line) =>
    line
      .map((cell, column) => (column < 2 ? cell.padEnd(widths[column]!) : cell.padStart(widths[column]!)))
      .join('  '),
  );
  for (const row of rows) {
    for (const [cause, count] of Object.entries(row.drops)) {
      lines.push(`dropped (${row.direction}, ${row.frameBytes} bytes): ${cause} ${count}`);
    }
  }
  return `${lines.join('\n')}\n`;
}

function figure(value: number): string {
  if (Number.isNaN(value)) return '-';
  return value >= 100 ? value.toFixed(0) : value.toFixed(1);
}
