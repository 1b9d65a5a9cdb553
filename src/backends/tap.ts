/**
 * `tap`: a kernel interface, opened by name (and made if need be), handed in open by descriptors, or made by a helper. Each queue of a
 * multiqueue tap is a port; the kernel spreads flows over them.
 *
 * With `vhost` the queues of a virtio-net whose machine has its RAM in files are handed to the kernel (vhost-net.ts). Where there is no vhost-net that is an
 * error with vhostforce, and otherwise a warning, and frames go by the tap itself, as those of every other NIC do.
 */

import type { NetdevConfigOf } from '../config/netdevs/index.ts';
import type { TapConfig } from '../config/netdevs/tap.ts';
import { HostIoError, OptionError, UnsupportedError } from '../core/errors.ts';
import { errnoOf, errnoText } from '../host-io/errno.ts';
import type { Handle, HostIo, TapInfo } from '../host-io/host-io.ts';
import type { Backend, BackendContext, OpenBackend } from './backend.ts';
import { openByHelper } from './bridge-helper.ts';
import { needHostIo, opening, type Services, showFd, takeDescriptor } from './services.ts';
import { TapPort } from './tap-port.ts';
import { VhostNet } from './vhost-net.ts';

/** Where no script is named and none is installed, the interface is left as it is. */
const DEFAULT_SCRIPTS: readonly string[] = ['/etc/qemu-ifup', '/etc/qemu-ifdown'];
const SNDBUF_UNLIMITED = 0x7fffffff;

export class TapBackend implements Backend {
  readonly ports;
  readonly stats;
  readonly queues: readonly TapPort[];
  readonly #description: string;
  readonly #onClose: () => void;
  readonly queueServer?: VhostNet;
  #closed = false;

  constructor(
    queues: readonly TapPort[],
    description: string,
    onClose: () => void = () => {},
    queueServer?: VhostNet,
  ) {
    this.queues = queues;
    if (queueServer !== undefined) this.queueServer = queueServer;
    this.ports = queues.map(({ port }) => port);
    this.stats = queues.length === 1 ? queues[0]!.stats : new QueueSums(queues);
    this.#description = description;
    this.#onClose = onClose;
  }

  get vnetHeader(): boolean {
    return this.queues[0]!.info.vnetHeader;
  }

  describe(): string {
    return this.#description;
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.queueServer?.close();
    this.#onClose();
    for (const queue of this.queues) queue.detach();
  }
}

/** Counters of several queues as sums, read when somebody looks. */
class QueueSums {
  constructor(queues: readonly TapPort[]) {
    for (const name of Object.keys(queues[0]!.stats)) {
      const key = name as keyof TapPort['stats'];
      Object.defineProperty(this, name, {
        enumerable: true,
        get: () => queues.reduce((sum, { stats }) => sum + stats[key], 0),
      });
    }
  }
}

export function tapBackend(services: Services): OpenBackend<'tap'> {
  return async (config, context) => {
    const hostIo = needHostIo(context, 'tap');
    const { source, vhost } = config;
    if (vhost?.force && vhost.fds.length === 0 && !services.exists(VHOST_DEVICE))
      withoutVhost(config.id, vhost, noVhost(), context);
    switch (source.kind) {
      case 'open':
        return await openByName(config, source, context, hostIo, services);
      case 'fds': {
        const taps = openEach(hostIo, source.fds, (fd) =>
          asTap(hostIo, takeDescriptor(fd, context, hostIo), showFd(fd)),
        );
        return made(config, taps, context, hostIo, services, `fd=${source.fds.map(showFd).join(':')}`);
      }
      case 'helper': {
        const handle = await openByHelper(source.helper, source.bridge, hostIo, services);
        return made(
          config,
          [asTap(hostIo, handle, 'of the helper')],
          context,
          hostIo,
          services,
          `helper=${source.helper}`,
        );
      }
    }
  };
}

const VHOST_DEVICE = '/dev/vhost-net';

/** vhost-net for these queues, as it was asked for; undefined: without. Throws when it was to be forced; devices passed to us are then closed. */
function vhostNet(
  { id, vhost }: NetdevConfigOf<'tap'>,
  queues: readonly TapPort[],
  context: BackendContext,
  hostIo: HostIo,
  services: Services,
): VhostNet | undefined {
  if (vhost === undefined) return undefined;
  const devices: Handle[] = [];
  try {
    for (const fd of vhost.fds) devices.push(takeDescriptor(fd, context, hostIo));
    while (devices.length < queues.length) devices.push(openVhost(hostIo, services));
  } catch (error) {
    for (const handle of devices) hostIo.close(handle);
    return withoutVhost(id, vhost, error, context);
  }
  try {
    return new VhostNet(id, hostIo, context, queues, devices, vhost.pollUs, queues[0]!.stats);
  } catch (error) {
    return withoutVhost(id, vhost, error, context);
  }
}

const noVhost = (): UnsupportedError =>
  new UnsupportedError(`there is no ${VHOST_DEVICE} (the vhost_net kernel module is not loaded)`);

function openVhost(hostIo: HostIo, services: Services): Handle {
  if (!services.exists(VHOST_DEVICE)) throw noVhost();
  try {
    return hostIo.adopt(services.openFile(VHOST_DEVICE));
  } catch (error) {
    const code = (error as { code?: string }).code ?? 'EIO';
    throw new HostIoError('open', code, `could not open ${VHOST_DEVICE}: ${errnoText(errnoOf(code))}`);
  }
}

function withoutVhost(
  id: string,
  { force, pollUs }: NonNullable<TapConfig['vhost']>,
  error: unknown,
  context: BackendContext,
): undefined {
  if (!(error instanceof HostIoError || error instanceof UnsupportedError)) throw error;
  const lead = 'vhost-net requested but could not be initialized';
  if (force) throw new UnsupportedError(`${lead}: ${error.message}`);
  const without = pollUs > 0 ? ', poll-us has no effect' : '';
  context.log.warn({ netdev: id }, `tap: ${lead}: ${error.message}; frames go by the tap itself${without}`);
}

/** The tap that an open descriptor is; closes one that is none. */
export function asTap(hostIo: HostIo, handle: Handle, shown: string): TapInfo {
  try {
    return hostIo.tapOf(handle);
  } catch (error) {
    hostIo.close(handle);
    if (!(error instanceof HostIoError)) throw error;
    throw new HostIoError('TUNGETIFF', error.code, `fd ${shown} is not a tap without packet information`);
  }
}

/** Opens one for each item; closes those that were opened when one fails. */
function openEach<T>(hostIo: HostIo, items: readonly T[], open: (item: T) => TapInfo): TapInfo[] {
  const taps: TapInfo[] = [];
  try {
    for (const item of items) taps.push(open(item));
  } catch (error) {
    for (const { handle } of taps) hostIo.close(handle);
    throw error;
  }
  return taps;
}

/** Ports for open taps; closes them when the send buffer is refused. */
function made(
  config: NetdevConfigOf<'tap'>,
  taps: readonly TapInfo[],
  context: BackendContext,
  hostIo: HostIo,
  services: Services,
  description: string,
  onClose?: () => void,
): TapBackend {
  const sndbuf = config.sndbufBytes === 0 ? SNDBUF_UNLIMITED : Math.min(config.sndbufBytes, SNDBUF_UNLIMITED);
  for (const { handle } of taps) {
    const result = hostIo.tapSendBuffer(handle, sndbuf);
    if (result < 0 && config.sndbufBytes !== 0) {
      for (const tap of taps) hostIo.close(tap.handle);
      throw new HostIoError('TUNSETSNDBUF', 'EINVAL', `TUNSETSNDBUF ioctl failed: ${errnoText(result)}`);
    }
  }
  const name = (i: number): string => (taps.length === 1 ? config.id : `${config.id}.${i}`);
  const queues = taps.map((tap, i) => new TapPort(name(i), context, hostIo, tap));
  try {
    const server = vhostNet(config, queues, context, hostIo, services);
    return new TapBackend(queues, description, onClose, server);
  } catch (error) {
    for (const queue of queues) queue.detach();
    throw error;
  }
}

async function openByName(
  config: NetdevConfigOf<'tap'>,
  source: Extract<TapConfig['source'], { kind: 'open' }>,
  context: BackendContext,
  hostIo: HostIo,
  services: Services,
): Promise<Backend> {
  const { script, downscript } = source;
  const multiQueue = config.queues > 1;
  let ifname = source.ifname;
  const taps = openEach(
    hostIo,
    Array.from({ length: config.queues }, (_, i) => i),
    () => {
      const tap = openQueue(ifname, source.vnetHdr, multiQueue, hostIo);
      ifname = tap.name;
      return tap;
    },
  );
  const name = taps[0]!.name;
  try {
    if (script !== undefined) await runScript(script, name, services, context);
  } catch (error) {
    for (const { handle } of taps) hostIo.close(handle);
    throw error;
  }
  const shown = `ifname=${name},script=${script ?? 'no'},downscript=${downscript ?? 'no'}`;
  return made(config, taps, context, hostIo, services, shown, () => {
    if (downscript === undefined || !mayRun(downscript, services, context)) return;
    // The script wants the interface, which is gone when the last queue is closed: it runs first.
    const status = services.runNow(downscript, [name]);
    if (status !== 0)
      context.log.warn({ netdev: config.id }, `network script ${downscript} failed with status ${status}`);
  });
}

function openQueue(
  ifname: string | undefined,
  vnetHdr: boolean | undefined,
  multiQueue: boolean,
  hostIo: HostIo,
): TapInfo {
  const options = { ...(ifname === undefined ? {} : { name: ifname }), multiQueue };
  const lead = `could not configure /dev/net/tun${ifname === undefined ? '' : ` (${ifname})`}`;
  if (vnetHdr === undefined) {
    try {
      return hostIo.tapOpen({ ...options, vnetHeader: true });
    } catch (error) {
      // A persistent interface made without the header, or an old kernel.
      if (!(error instanceof HostIoError) || errnoOf(error.code) !== 22) throw retoldTap(lead, error);
    }
  }
  return opening(lead, () => hostIo.tapOpen({ ...options, vnetHeader: vnetHdr ?? false }));
}

function retoldTap(lead: string, error: unknown): unknown {
  if (!(error instanceof HostIoError)) return error;
  return new HostIoError(error.syscall, error.code, `${lead}: ${errnoText(errnoOf(error.code))}`);
}

function mayRun(script: string, services: Services, context: BackendContext): boolean {
  if (!DEFAULT_SCRIPTS.includes(script) || services.exists(script)) return true;
  context.log.warn({ script }, `there is no ${script}: the interface is left as it is`);
  return false;
}

async function runScript(
  script: string,
  ifname: string,
  services: Services,
  context: BackendContext,
): Promise<void> {
  if (!mayRun(script, services, context)) return;
  let status: number;
  try {
    status = await services.run(script, [ifname]);
  } catch (error) {
    const code = (error as { code?: string }).code ?? 'EIO';
    throw new HostIoError(
      'exec',
      code,
      `could not launch network script ${script}: ${errnoText(errnoOf(code))}`,
    );
  }
  if (status !== 0)
    throw new OptionError(`network script ${script} failed with status ${status}`, { option: 'script' });
}
