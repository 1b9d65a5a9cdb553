/**
 * `netmap`: the rings of an interface in netmap mode, or a port of a VALE switch, by the device's ioctls: NIOCREGIF binds the descriptor to the port and
 * tells how much memory to map and where in it the rings are. The structure (nmreq) has been the same since API 11; the number of the API must be the
 * kernel's own, so each is tried.
 *
 * Netmap is a kernel module of its own, which Linux does not carry: this was written from the published interface and tried against memory laid out
 * as it says (test/backends/netmap-kernel.ts), never against the module.
 */

import { HostIoError, UnsupportedError } from '../core/errors.ts';
import { errnoName, errnoOf, errnoText } from '../host-io/errno.ts';
import { ERRNO, type Handle, type HostIo } from '../host-io/host-io.ts';
import type { Backend, BackendContext, OpenBackend } from './backend.ts';
import { type Control, NetmapPort } from './netmap-port.ts';
import { needHostIo, type Services } from './services.ts';

/** _IOWR('i', 146, struct nmreq). */
export const NIOCREGIF = 0xc03c_6992;
/** struct nmreq: its size, and the places of what is used of it. */
export const NMREQ_BYTES = 60;
const NMREQ_VERSION = 16;
const NMREQ_OFFSET = 20;
const NMREQ_MEMORY_BYTES = 24;
const NMREQ_FLAGS = 52;
const ALL_NIC_RINGS = 1;
const API_VERSIONS = [14, 13, 12, 11];

class NetmapBackend implements Backend {
  readonly ports;
  readonly stats;
  readonly #link: NetmapPort;
  readonly #ifname: string;

  constructor(link: NetmapPort, ifname: string) {
    this.#link = link;
    this.ports = [link.port];
    this.stats = link.stats;
    this.#ifname = ifname;
  }

  describe(): string {
    return `ifname=${this.#ifname}`;
  }

  close(): void {
    this.#link.close();
  }
}

export function netmapBackend(services: Services): OpenBackend<'netmap'> {
  return ({ id, ifname, devname }, context) => {
    const hostIo = needHostIo(context, 'netmap');
    if (!services.exists(devname)) {
      throw new UnsupportedError(
        `netdev type 'netmap' needs the netmap kernel module, which is not loaded (there is no ${devname})`,
      );
    }
    const { control } = hostIo;
    if (control === undefined) throw new UnsupportedError("netdev type 'netmap' needs the native addon");
    const handle = openDevice(devname, hostIo, services);
    try {
      const link = register(id, ifname, context, hostIo, control.bind(hostIo), handle);
      return new NetmapBackend(link, ifname);
    } catch (error) {
      hostIo.close(handle);
      throw error;
    }
  };
}

function openDevice(devname: string, hostIo: HostIo, services: Services): Handle {
  try {
    return hostIo.adopt(services.openFile(devname));
  } catch (error) {
    const code = (error as { code?: string }).code ?? 'EIO';
    throw new HostIoError('open', code, `could not open ${devname}: ${errnoText(errnoOf(code))}`);
  }
}

function register(
  id: string,
  ifname: string,
  context: BackendContext,
  hostIo: HostIo,
  control: Control,
  handle: Handle,
): NetmapPort {
  const request = new Uint8Array(NMREQ_BYTES);
  const words = new Uint32Array(request.buffer);
  let result = -ERRNO.EINVAL;
  for (const version of API_VERSIONS) {
    request.fill(0);
    request.set(new TextEncoder().encode(ifname));
    words[NMREQ_VERSION >> 2] = version;
    words[NMREQ_FLAGS >> 2] = ALL_NIC_RINGS;
    result = control(handle, NIOCREGIF, request);
    if (result !== -ERRNO.EINVAL) break;
  }
  if (result < 0) {
    throw new HostIoError(
      'NIOCREGIF',
      errnoName(-result),
      `could not put ${ifname} in netmap mode: ${errnoText(-result)}`,
    );
  }
  const map = hostIo.map(handle, 0, words[NMREQ_MEMORY_BYTES >> 2]!);
  try {
    return new NetmapPort(id, ifname, context, hostIo, control, handle, map, words[NMREQ_OFFSET >> 2]!);
  } catch (error) {
    hostIo.unmap(map);
    throw error;
  }
}
