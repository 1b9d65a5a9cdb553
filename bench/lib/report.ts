/** What every bench prints: the machine it ran on, and its figures as one JSON line. */
import { cpus } from 'node:os';

export interface RuntimeFacts {
  cpu: string;
  cores: number;
  node: string;
}

export function runtimeFacts(): RuntimeFacts {
  const list = cpus();
  return { cpu: list[0]?.model ?? 'unknown', cores: list.length, node: process.version };
}

/** Prints one JSON line; floating-point figures keep two decimals. */
export function report(figures: Record<string, unknown>): void {
  const rounded = JSON.stringify(figures, (_key, value) =>
    typeof value === 'number' && !Number.isInteger(value) ? Number(value.toFixed(2)) : value,
  );
  console.log(rounded);
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[sorted.length >> 1] ?? Number.NaN;
}
