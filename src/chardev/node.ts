/** The chardevs of a Node process: those of files, pipes and the terminal beside the portable ones. */

import { OptionError } from '../core/errors.ts';
import { FileChardev, openPipe, openPty, StdioChardev, type StdioStreams } from './files.ts';
import { type ChardevTable, portableChardevs } from './index.ts';

/** `stdio`: the process's streams; undefined: they are taken, and a stdio chardev is refused. */
export function nodeChardevs(stdio: StdioStreams | undefined): ChardevTable {
  let stdioUsed = stdio === undefined;
  return {
    ...portableChardevs,
    file: (config, context) => new FileChardev(config, context),
    pipe: (config, context) => openPipe(config, context),
    pty: (config, context) => openPty(config, context),
    stdio: (config) => {
      if (stdio === undefined || stdioUsed)
        throw new OptionError('cannot use stdio by multiple character devices');
      stdioUsed = true;
      return new StdioChardev(config, stdio);
    },
  };
}
