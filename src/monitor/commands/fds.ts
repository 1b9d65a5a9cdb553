/** Descriptors that a client passes beside a command (SCM_RIGHTS): single ones by name, and sets that stand for a file. */

import { OptionError } from '../../core/errors.ts';
import type { Handle } from '../../host-io/host-io.ts';
import { type Caller, type Command, command } from '../command.ts';
import { int, list, nothing, optional, str, struct } from '../shape.ts';

const fdname = { kind: 'string', required: true, doc: 'The name that options refer to it by.' } as const;

export const fdCommands: readonly Command[] = [
  command({
    name: 'getfd',
    doc: 'Keeps a descriptor under a name, until something takes it.',
    returns: nothing,
    args: { fdname },
    run: ({ fdname: name }, caller) => {
      const handle = passed(caller);
      if (/^\d/.test(name)) {
        caller.monitor.network.context.hostIo?.close(handle);
        throw new OptionError("Parameter 'fdname' expects a name not starting with a digit", {
          option: 'fdname',
        });
      }
      caller.monitor.network.chardevs.fds.store(name, handle);
    },
  }),
  command({
    name: 'closefd',
    doc: 'Closes a descriptor that getfd kept.',
    returns: nothing,
    args: { fdname },
    run: ({ fdname: name }, { monitor }) => {
      if (monitor.network.chardevs.fds.drop(name)) return;
      throw new OptionError(`File descriptor named '${name}' not found`, { option: 'fdname' });
    },
  }),
  command({
    name: 'add-fd',
    doc: 'Adds a descriptor to a set; /dev/fdset/N then names it where an option takes a file.',
    returns: struct('AddfdInfo', { 'fdset-id': int, fd: int }),
    args: {
      'fdset-id': { kind: 'uint', bits: 53, defaultText: 'a new set', doc: 'The number of the set.' },
      opaque: { kind: 'string', doc: 'Text that query-fdsets shows.' },
    },
    run: ({ 'fdset-id': id, opaque }, caller) => {
      const made = caller.monitor.network.chardevs.fds.addToSet(passed(caller), id, opaque);
      return { 'fdset-id': made.id, fd: made.fd };
    },
  }),
  command({
    name: 'remove-fd',
    doc: 'Closes a descriptor of a set, or all of them.',
    returns: nothing,
    args: {
      'fdset-id': { kind: 'uint', bits: 53, required: true, doc: 'The number of the set.' },
      fd: { kind: 'uint', bits: 53, doc: 'The number of the descriptor.' },
    },
    run: ({ 'fdset-id': id, fd }, { monitor }) => {
      if (monitor.network.chardevs.fds.removeFromSet(id, fd)) return;
      const which = fd === undefined ? `fdset-id:${id}` : `fdset-id:${id}, fd:${fd}`;
      throw new OptionError(`File descriptor named '${which}' not found`);
    },
  }),
  command({
    name: 'query-fdsets',
    doc: 'All sets of descriptors.',
    returns: list(
      struct('FdsetInfo', {
        'fdset-id': int,
        fds: list(struct('FdsetFdInfo', { fd: int, opaque: optional(str) })),
      }),
    ),
    args: {},
    run: (_args, { monitor }) =>
      [...monitor.network.chardevs.fds.sets].map(([id, members]) => ({
        'fdset-id': id,
        fds: members.map(({ fd, opaque }) => ({ fd, opaque })),
      })),
  }),
];

function passed(caller: Caller): Handle {
  const handle = caller.takeFd();
  if (handle === undefined) throw new OptionError('No file descriptor supplied via SCM_RIGHTS');
  return handle;
}
