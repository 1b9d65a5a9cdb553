/** `--sandbox`: what the process gives up once everything is open. `src/cli/sandbox.ts` knows which files a command line needs. */
import { splitKeyval } from './keyval.ts';
import { expects } from './kinds.ts';
import { readKeyval } from './read.ts';
import { defineOptions } from './schema.ts';

export interface SandboxConfig {
  readonly on: boolean;
  /** auto: where the kernel can. on: the start fails where it cannot. */
  readonly files: 'auto' | 'on' | 'off';
  /** Folders or files beside those that the command line names. */
  readonly read: readonly string[];
  readonly write: readonly string[];
}

export const sandboxOptions = defineOptions({
  files: {
    kind: 'enum',
    values: ['auto', 'on', 'off'],
    default: 'auto',
    beyond: true,
    doc: 'Whether files elsewhere than what the line names are out of reach (Landlock): auto is where the kernel can, on fails the start where it cannot.',
  },
  read: {
    kind: 'list',
    metavar: 'path',
    beyond: true,
    doc: 'A folder or file that may still be read, for what a monitor will ask for later. Repeats.',
  },
  write: {
    kind: 'list',
    metavar: 'path',
    beyond: true,
    doc: 'A folder or file that may still be read and written, and a folder to make files and sockets in. Repeats.',
  },
});

/** Parses `on`, `off` or `on,files=…,read=…,write=…`. Throws OptionError. */
export function parseSandbox(argument: string): SandboxConfig {
  const comma = argument.indexOf(',');
  const mode = comma < 0 ? argument : argument.slice(0, comma);
  if (mode !== 'on' && (mode !== 'off' || comma >= 0)) throw expects('sandbox', "'on' or 'off'");
  const entries = comma < 0 ? [] : splitKeyval(argument.slice(comma + 1));
  const o = readKeyval(sandboxOptions, entries, { source: 'command-line', voice: 'options' });
  return { on: mode === 'on', files: o.files, read: o.read ?? [], write: o.write ?? [] };
}
