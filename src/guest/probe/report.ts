/** What the probe tells: one step or outcome at a time, for people and for programs. */

/** The steps of coming up, then one for each thing that was asked for. */
export type StepName =
  | 'driver'
  | 'link'
  | 'dhcp'
  | 'link-local'
  | 'ra'
  | 'gateway'
  | 'dns'
  | 'ping'
  | 'get'
  | 'put'
  | 'echo'
  | 'http'
  | 'tx';

export interface Step {
  readonly step: StepName;
  readonly ok: boolean;
  /** One line, such as `DHCP lease 10.0.2.15/24 from 10.0.2.2`. */
  readonly detail: string;
  /** From the step's start to its end, by the loop's clock. */
  readonly elapsedNs: number;
}

export type Reporter = (step: Step) => void;

export interface ProbeResult {
  readonly ok: boolean;
  /** The details of what failed. */
  readonly failures: readonly string[];
}

/** `0.21 ms`, `1.4 s`: three significant digits. */
export function formatNs(ns: number): string {
  if (ns >= 1e9) return `${digits(ns / 1e9)} s`;
  if (ns >= 1e6) return `${digits(ns / 1e6)} ms`;
  return ns >= 1e5 ? `${(ns / 1e6).toFixed(2)} ms` : `${digits(ns / 1e3)} us`;
}

function digits(value: number): string {
  return value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2);
}
