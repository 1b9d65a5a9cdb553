/** THE TABLE of QMP commands. */

import type { Command } from '../command.ts';
import { chardevCommands } from './chardevs.ts';
import { deviceCommands } from './devices.ts';
import { fdCommands } from './fds.ts';
import { introspectionCommands } from './introspection.ts';
import { machineCommands } from './machine.ts';
import { netCommands } from './net.ts';
import { objectCommands } from './objects.ts';
import { statsCommands } from './stats.ts';
import { userCommands } from './user.ts';
import { virtioCommands } from './virtio.ts';

export const commands: readonly Command[] = [
  ...netCommands,
  ...deviceCommands,
  ...objectCommands,
  ...chardevCommands,
  ...fdCommands,
  ...machineCommands,
  ...statsCommands,
  ...userCommands,
  ...virtioCommands,
  ...introspectionCommands,
];
