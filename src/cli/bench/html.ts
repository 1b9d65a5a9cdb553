/** Measurements as one HTML file: a table, a bar for each run and its rate over time, all inline; it opens without a network. */

import { scaled } from '../status.ts';
import type { Measurement } from './measure.ts';

const WIDTH = 640;
const BAR = 22;
const CURVE = 120;

export interface ReportFacts {
  readonly version: string;
  readonly node: string;
  readonly machine: string;
  readonly when: string;
}

export function benchHtml(rows: readonly Measurement[], facts: ReportFacts): string {
  const title = `netemu bench: ${rows.map((row) => row.name)[0] ?? ''}`;
  return `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>${escapeHtml(title)}</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; color: #1b1f24; background: #fff; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.05rem; margin-top: 2rem; }
table { border-collapse: collapse; } th, td { padding: .25rem .75rem; text-align: right; border-bottom: 1px solid #d8dee4; }
th:first-child, td:first-child { text-align: left; } svg { max-width: 100%; height: auto; } p { color: #57606a; }
.bar { fill: #2f6f9f; } .curve { fill: none; stroke: #2f6f9f; stroke-width: 2; } .axis { stroke: #d8dee4; } text { font: 12px system-ui, sans-serif; fill: #1b1f24; }
@media (prefers-color-scheme: dark) { body { background: #0d1117; color: #e6edf3; } text { fill: #e6edf3; } th, td { border-color: #30363d; } .axis { stroke: #30363d; } .bar { fill: #58a6ff; } .curve { stroke: #58a6ff; } p { color: #8d96a0; } }
</style>
<h1>${escapeHtml(title)}</h1>
<p>netemu ${escapeHtml(facts.version)}, Node ${escapeHtml(facts.node)}, ${escapeHtml(facts.machine)}, ${escapeHtml(facts.when)}</p>
${table(rows)}
<h2>Frames per second</h2>
${bars(rows)}
${rows.map(curve).join('\n')}
</html>
`;
}

const label = (row: Measurement): string => `${row.direction}, ${row.frameBytes} bytes`;

function table(rows: readonly Measurement[]): string {
  const head = ['run', 'frames', 'frame/s', 'bit/s', 'ns/frame', 'cpu ns/frame', 'dropped'];
  const body = rows.map((row) => [
    label(row),
    String(row.frames),
    scaled(row.framesPerSecond),
    scaled(row.bitsPerSecond),
    row.nsPerFrame.toFixed(1),
    row.cpuNsPerFrame.toFixed(1),
    Object.entries(row.drops)
      .map(([cause, count]) => `${cause} ${count}`)
      .join(', ') || '0',
  ]);
  const line = (tag: string, cells: readonly string[]): string =>
    `<tr>${cells.map((cell) => `<${tag}>${escapeHtml(cell)}</${tag}>`).join('')}</tr>`;
  return `<table>${line('th', head)}${body.map((cells) => line('td', cells)).join('')}</table>`;
}

function bars(rows: readonly Measurement[]): string {
  const most = Math.max(1, ...rows.map((row) => row.framesPerSecond));
  const parts = rows.map((row, i) => {
    const y = i * (BAR + 8);
    const width = (row.framesPerSecond / most) * (WIDTH - 260);
    return `<text x="0" y="${y + 15}">${escapeHtml(label(row))}</text><rect class="bar" x="140" y="${y}" width="${width.toFixed(1)}" height="${BAR}"/><text x="${(148 + width).toFixed(1)}" y="${y + 15}">${scaled(row.framesPerSecond)}</text>`;
  });
  return `<svg viewBox="0 0 ${WIDTH} ${rows.length * (BAR + 8)}" role="img" aria-label="Frames per second of each run">${parts.join('')}</svg>`;
}

function curve(row: Measurement): string {
  if (row.samples.length < 2) return '';
  const most = Math.max(...row.samples.map((sample) => sample.framesPerSecond), 1);
  const last = row.samples.at(-1)!.seconds;
  const points = row.samples
    .map(({ seconds, framesPerSecond }) => {
      const x = 60 + (seconds / last) * (WIDTH - 70);
      const y = 10 + (1 - framesPerSecond / most) * (CURVE - 30);
      return `${x.toFixed(1)},${y.toFixed(1)}`;
    })
    .join(' ');
  const base = CURVE - 20;
  return `<h2>${escapeHtml(label(row))}</h2><svg viewBox="0 0 ${WIDTH} ${CURVE}" role="img" aria-label="Rate over time"><line class="axis" x1="60" y1="${base}" x2="${WIDTH - 10}" y2="${base}"/><text x="0" y="16">${scaled(most)}</text><text x="0" y="${base}">0</text><text x="${WIDTH - 50}" y="${CURVE - 4}">${last.toFixed(1)} s</text><polyline class="curve" points="${points}"/></svg>`;
}

function escapeHtml(text: string): string {
  const names: Record<string, string> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' };
  return text.replace(/[&<>"]/g, (char) => names[char]!);
}
