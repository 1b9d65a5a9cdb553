/**
 * The bridge helper: a small privileged program (qemu-bridge-helper) that makes a tap on a bridge it allows and passes it over a unix socket,
 * as descriptor and one byte. It is run as `helper --use-vnet --fd=3 --br=BR`; with blanks in it, through a shell, as QEMU does.
 */

import { OptionError } from '../core/errors.ts';
import { errnoOf, errnoText } from '../host-io/errno.ts';
import { FAILED, type Handle, type HostIo, HUNG_UP, READABLE } from '../host-io/host-io.ts';
import type { Services } from './services.ts';

/** Runs the helper; resolves with the descriptor it passed. */
export async function openByHelper(
  helper: string,
  bridge: string,
  hostIo: HostIo,
  services: Services,
): Promise<Handle> {
  const [ours, theirs] = hostIo.socketPair();
  let passed: Handle = 0;
  hostIo.watch(ours, READABLE, (ready) => {
    const got = hostIo.receiveWithFds(ours, new Uint8Array(16), 1);
    const [fd] = got.fds;
    if (fd !== undefined && passed === 0) passed = fd;
    else if (fd !== undefined) hostIo.close(fd);
    if (got.bytes <= 0 && (ready & (HUNG_UP | FAILED)) !== 0) hostIo.setInterest(ours, 0);
  });
  try {
    const status = await start(helper, bridge, hostIo.fdOf(theirs), services);
    if (status === 0 && passed === 0) passed = hostIo.receiveWithFds(ours, new Uint8Array(16), 1).fds[0] ?? 0;
    if (status !== 0 || passed === 0) {
      if (passed !== 0) hostIo.close(passed);
      throw new OptionError('bridge helper failed', { option: 'helper' });
    }
    return passed;
  } finally {
    hostIo.close(ours);
    hostIo.close(theirs);
  }
}

async function start(helper: string, bridge: string, fd: number, services: Services): Promise<number> {
  try {
    if (!/[ \t]/.test(helper))
      return await services.run(helper, ['--use-vnet', '--fd=3', `--br=${bridge}`], fd);
    const names = helper.includes('--br=') ? '' : ` --br=${bridge}`;
    return await services.run('/bin/sh', ['-c', `${helper} --use-vnet --fd=3${names}`], fd);
  } catch (error) {
    const code = (error as { code?: string }).code ?? 'EIO';
    throw new OptionError(`bridge helper failed: could not run ${helper}: ${errnoText(errnoOf(code))}`, {
      option: 'helper',
    });
  }
}
