/**
 * `tap`: a kernel interface. Opened by name, or handed in already open (fd, fds), or made by a privileged helper;
 * what configures an interface by name is meaningless for one that is already open, so those exclude each other.
 */
import { OptionError } from '../../core/errors.ts';
import { defineOptions, type OptionsOf } from '../schema.ts';
import { type FdReference, fdReference } from '../socket-address.ts';
import { checkInterfaceName, defineNetdev } from './definition.ts';

export const DEFAULT_BRIDGE = 'br0';
export const DEFAULT_BRIDGE_HELPER = '/usr/lib/qemu/qemu-bridge-helper';

const options = defineOptions({
  ifname: {
    kind: 'string',
    metavar: 'name',
    defaultText: 'tapN, chosen by the kernel',
    doc: 'The interface to open, made when it does not exist.',
  },
  fd: { kind: 'string', metavar: 'fd', doc: 'An open tap by number or getfd name.' },
  fds: {
    kind: 'string',
    metavar: 'fd:fd…',
    doc: 'The queues of an open multiqueue tap, separated by colons.',
  },
  script: {
    kind: 'string',
    metavar: 'file',
    defaultText: '/etc/qemu-ifup',
    doc: 'Runs with the interface name when it is up; no runs nothing.',
  },
  downscript: {
    kind: 'string',
    metavar: 'file',
    defaultText: '/etc/qemu-ifdown',
    doc: 'Runs with the interface name before it is closed; no runs nothing.',
  },
  br: {
    kind: 'string',
    metavar: 'name',
    defaultText: DEFAULT_BRIDGE,
    doc: 'The bridge that helper joins the tap to.',
  },
  helper: {
    kind: 'string',
    metavar: 'file',
    doc: 'The program that makes a tap on a bridge and passes it back.',
  },
  sndbuf: { kind: 'size', default: 0, doc: 'The send buffer of the tap in bytes; 0 is no limit.' },
  vnet_hdr: {
    kind: 'bool',
    defaultText: 'on where the kernel can',
    doc: 'Frames carry their checksum and segmentation facts; on fails if the kernel cannot, off never asks.',
  },
  vhost: { kind: 'bool', defaultText: 'off', doc: "Use the kernel's vhost-net where it is there." },
  vhostfd: { kind: 'string', metavar: 'fd', doc: 'An open /dev/vhost-net by number or getfd name.' },
  vhostfds: {
    kind: 'string',
    metavar: 'fd:fd…',
    doc: 'Open /dev/vhost-net devices, one per queue, separated by colons.',
  },
  vhostforce: {
    kind: 'bool',
    default: false,
    doc: 'Fail when vhost-net cannot be used, instead of the slow path.',
  },
  queues: { kind: 'uint', bits: 32, defaultText: '1', doc: 'The number of queues of a multiqueue tap.' },
  'poll-us': {
    kind: 'uint',
    bits: 32,
    default: 0,
    doc: 'How many microseconds vhost-net polls before it waits.',
  },
});

/** How the tap's queues come to be open. */
export type TapSource =
  | {
      readonly kind: 'open';
      /** undefined: the kernel chooses. */
      readonly ifname: string | undefined;
      /** undefined: run nothing. */
      readonly script: string | undefined;
      readonly downscript: string | undefined;
      /** undefined: use it where the kernel can. */
      readonly vnetHdr: boolean | undefined;
    }
  | { readonly kind: 'fds'; readonly fds: readonly FdReference[] }
  | { readonly kind: 'helper'; readonly helper: string; readonly bridge: string };

export interface TapConfig {
  readonly source: TapSource;
  readonly queues: number;
  /** `queues`, `fds` or `vhostfds` was given, which a hub cannot have. */
  readonly multiqueue: boolean;
  readonly sndbufBytes: number;
  readonly vhost:
    | { readonly fds: readonly FdReference[]; readonly force: boolean; readonly pollUs: number }
    | undefined;
}

export const tap = defineNetdev({
  type: 'tap',
  summary: 'a TAP interface of the host',
  options,
  resolve: (o): TapConfig => {
    const source = tapSource(o);
    const queues = source.kind === 'fds' ? source.fds.length : (o.queues ?? 1);
    return {
      source,
      queues,
      multiqueue: (o.queues ?? o.fds ?? o.vhostfds) !== undefined,
      sndbufBytes: o.sndbuf,
      vhost: tapVhost(o, queues),
    };
  },
});

type TapOptions = OptionsOf<typeof options>;

function tapSource(o: TapOptions): TapSource {
  if (o.vhost === false && (o.vhostfd ?? o.vhostfds) !== undefined) {
    throw new OptionError('vhostfd(s)= is not valid without vhost', { option: 'vhostfd' });
  }
  const passed = [o.fd, o.fds, o.helper].filter((given) => given !== undefined).length;
  if (passed > 1 || (passed === 1 && o.queues !== undefined)) {
    throw new OptionError('queues=, helper=, fds= and fd= are mutual exclusive');
  }
  if (passed > 0 && (o.ifname ?? o.script ?? o.downscript ?? o.vnet_hdr) !== undefined) {
    throw new OptionError('ifname=, script=, downscript=, vnet_hdr= are invalid with fd=/fds=/helper=');
  }
  if (o.queues !== undefined && (o.queues < 1 || o.queues > 256)) {
    throw new OptionError(
      o.queues < 1 ? 'queues must be greater than zero' : 'queues must not be greater than 256',
      { option: 'queues' },
    );
  }
  if (o.br !== undefined) {
    checkInterfaceName('br', o.br);
    if (o.helper === undefined) throw new OptionError('br= is only valid with helper=', { option: 'br' });
  }
  if (o.fd !== undefined) return { kind: 'fds', fds: [fdReference(o.fd)] };
  if (o.fds !== undefined) return { kind: 'fds', fds: o.fds.split(':').map(fdReference) };
  if (o.helper !== undefined) return { kind: 'helper', helper: o.helper, bridge: o.br ?? DEFAULT_BRIDGE };
  if (o.ifname !== undefined) checkInterfaceName('ifname', o.ifname);
  return {
    kind: 'open',
    ifname: o.ifname,
    script: scriptPath(o.script ?? '/etc/qemu-ifup'),
    downscript: scriptPath(o.downscript ?? '/etc/qemu-ifdown'),
    vnetHdr: o.vnet_hdr,
  };
}

function scriptPath(text: string): string | undefined {
  return text === 'no' || text === '' ? undefined : text;
}

function tapVhost(o: TapOptions, queues: number): TapConfig['vhost'] {
  if (o.vhostfd !== undefined && (o.vhostfds !== undefined || queues > 1)) {
    throw new OptionError('vhostfd= is invalid with vhostfds= or several queues', { option: 'vhostfd' });
  }
  const text = o.vhostfds ?? o.vhostfd;
  const fds = text === undefined ? [] : text.split(':').map(fdReference);
  if (fds.length > 0 && fds.length !== queues) {
    throw new OptionError('The number of fds passed does not match the number of vhostfds passed', {
      option: 'vhostfds',
    });
  }
  const wanted = o.vhost ?? (o.vhostforce || fds.length > 0);
  return wanted ? { fds, force: o.vhostforce, pollUs: o['poll-us'] } : undefined;
}

export function multiqueueInHub(): OptionError {
  return new OptionError('Multiqueue tap cannot be used with hubs');
}

export function fdNotFound(name: string): OptionError {
  return new OptionError(`File descriptor named '${name}' has not been found`);
}
