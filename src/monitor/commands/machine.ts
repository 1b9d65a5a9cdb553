/** The program and its guests as a whole: versions, run state, reset, the end; and the prompt's commands for QMP clients. */

import { type Command, command } from '../command.ts';
import { runHmp } from '../hmp/run.ts';
import { bool, int, nothing, oneOf, optional, str, struct } from '../shape.ts';

const RUN_STATES = ['prelaunch', 'running', 'paused'] as const;
export type RunState = (typeof RUN_STATES)[number];
const versionInfo = struct('VersionInfo', {
  qemu: struct('VersionTriple', { major: int, minor: int, micro: int }),
  package: str,
});

export const machineCommands: readonly Command[] = [
  command({
    name: 'query-version',
    doc: "The version of QEMU's monitor that this one follows, and netemu's own.",
    returns: versionInfo,
    args: {},
    run: (_args, { monitor }) => monitor.version,
  }),
  command({
    name: 'query-name',
    doc: 'What --name said.',
    returns: struct('NameInfo', { name: optional(str) }),
    args: {},
    run: (_args, { monitor }) => ({ name: monitor.site.name }),
  }),
  command({
    name: 'query-status',
    doc: 'Whether the guests run.',
    returns: struct('StatusInfo', { running: bool, status: oneOf('RunState', RUN_STATES) }),
    args: {},
    run: (_args, { monitor }) => ({ status: monitor.runState, running: monitor.network.running }),
  }),
  command({
    name: 'query-sandbox',
    doc: 'What of --sandbox on is in force: active is the filter of system calls, files the rules for files, landlock the version of the kernel interface (0: it has none). QEMU has no such command.',
    returns: struct('SandboxInfo', { active: bool, files: bool, landlock: int }),
    args: {},
    run: (_args, { monitor }) => {
      const { hostIo } = monitor.network.context;
      return {
        active: hostIo?.inSandbox ?? false,
        files: hostIo?.filesRestricted ?? false,
        landlock: hostIo?.fileRulesVersion ?? 0,
      };
    },
  }),
  command({
    name: 'stop',
    doc: 'Freezes all NICs: no DMA, no frame in or out.',
    returns: nothing,
    args: {},
    run: (_args, { monitor }) => monitor.setRunning(false),
  }),
  command({
    name: 'cont',
    doc: 'Lets the NICs go on.',
    returns: nothing,
    args: {},
    run: (_args, { monitor }) => monitor.setRunning(true),
  }),
  command({
    name: 'system_reset',
    doc: 'Resets all NICs, as at power-on.',
    returns: nothing,
    args: {},
    run: (_args, { monitor }) => monitor.reset(),
  }),
  command({
    name: 'quit',
    doc: 'Ends the program.',
    returns: nothing,
    args: {},
    run: (_args, { monitor }) => {
      // The reply is to be on its way when the program ends.
      monitor.network.loop.post(() => monitor.quit('host-qmp-quit'));
    },
  }),
  command({
    name: 'human-monitor-command',
    doc: 'Runs a line as if it were typed at the prompt, and answers with what the prompt would print.',
    returns: str,
    args: {
      'command-line': { kind: 'string', required: true, doc: 'The line.' },
      'cpu-index': { kind: 'int', doc: 'There is no CPU: any number means the same.' },
    },
    run: async ({ 'command-line': line }, caller) => {
      const text = await runHmp(line, caller);
      return text.replaceAll('\n', '\r\n');
    },
  }),
];
