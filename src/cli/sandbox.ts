/**
 * `--sandbox on`: the end of the set-up. First the files (Landlock), then the system calls (seccomp), both for every thread and for good.
 *
 * What stays within reach is what netemu itself needs (its package, the system's libraries and resolver files, /proc and /sys to read, the
 * devices that hot plug opens) and what the line names: a file that is read with the folder it lies in, for a module imports its neighbours;
 * the folder of a file that is written, for a monitor will ask for another one there; the folder of a unix socket, to remove it at the end.
 * Rules go by file, not by name: of the system's files those that lie alone in their folder are named by the folder, so that one that is
 * replaced is found again. /etc as a whole is not named, for it holds secrets.
 */

import { existsSync, realpathSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { ChardevDevice, ChardevReference } from '../config/chardevs.ts';
import type { Declaration } from '../config/commandline.ts';
import type { DeviceConfig } from '../config/devices/index.ts';
import type { NetdevConfig } from '../config/netdevs/index.ts';
import type { ObjectConfig } from '../config/objects/index.ts';
import type { SandboxConfig } from '../config/sandbox.ts';
import type { SocketAddress } from '../config/socket-address.ts';
import { UnsupportedError } from '../core/errors.ts';
import type { FilePlace, HostIo } from '../host-io/host-io.ts';

/** Throws UnsupportedError or HostIoError; the start fails then. Returns the line that tells people. */
export function enterSandbox(
  hostIo: HostIo | null,
  config: SandboxConfig,
  declarations: readonly Declaration[],
): string {
  if (hostIo?.enterSandbox === undefined)
    throw new UnsupportedError('the sandbox needs the addon, on Linux: there is none here');
  const version = hostIo.fileRulesVersion ?? 0;
  if (config.files === 'on' && version === 0)
    throw new UnsupportedError('this kernel has no Landlock: files=on needs it');
  const files = config.files !== 'off' && version > 0;
  if (files) hostIo.restrictFiles!([...systemPlaces(), ...placesOf(declarations), ...askedFor(config)]);
  hostIo.enterSandbox();
  if (files) return 'sandbox: no other program is run, and no file elsewhere is opened, from here on';
  return config.files === 'off'
    ? 'sandbox: no other program is run from here on'
    : 'sandbox: no other program is run from here on; this kernel cannot restrict files (no Landlock)';
}

function askedFor({ read, write }: SandboxConfig): FilePlace[] {
  return [
    ...read.map((path): FilePlace => ({ path: resolve(path), may: 'read' })),
    ...write.flatMap((path): FilePlace[] => [
      { path: resolve(path), may: 'write' },
      { path: resolve(path), may: 'bind' },
    ]),
  ];
}

const READ = ['/usr', '/lib', '/lib32', '/lib64', '/proc', '/sys'];
const READ_IN_ETC = [
  ...[
    'resolv.conf',
    'hosts',
    'host.conf',
    'nsswitch.conf',
    'gai.conf',
    'services',
    'protocols',
    'group',
    'passwd',
  ],
  ...['localtime', 'ld.so.cache', 'ssl/certs', 'ssl/openssl.cnf'],
];
const DEVICES = [
  ...['null', 'zero', 'full', 'random', 'urandom', 'tty', 'ptmx', 'pts'],
  ...['net/tun', 'vhost-net', 'netmap'],
];

/** What any netemu needs, whatever it was asked for. */
export function systemPlaces(): FilePlace[] {
  const read = [...READ, ...READ_IN_ETC.map((name) => `/etc/${name}`), ...ownFolders()];
  // Often a link to a file that a service writes anew: its folder is what stays.
  const resolver = realPath('/etc/resolv.conf');
  if (resolver !== undefined && dirname(resolver) !== '/etc') read.push(dirname(resolver));
  return [
    ...read.map((path): FilePlace => ({ path, may: 'read' })),
    ...DEVICES.map((name): FilePlace => ({ path: `/dev/${name}`, may: 'drive' })),
  ];
}

/** The package, and the node_modules folders that its imports are looked up in; parts of both are loaded when they are first needed. */
function ownFolders(): string[] {
  const here = dirname(fileURLToPath(import.meta.url));
  const found: string[] = [];
  let packageFound = false;
  for (let folder = here; ; folder = dirname(folder)) {
    if (!packageFound && existsSync(join(folder, 'package.json'))) {
      packageFound = true;
      found.push(folder);
    }
    if (existsSync(join(folder, 'node_modules'))) found.push(join(folder, 'node_modules'));
    if (dirname(folder) === folder) return found;
  }
}

function realPath(path: string): string | undefined {
  try {
    return realpathSync(path);
  } catch {
    return undefined;
  }
}

/** The files and folders that a command line needs once all is open. */
export function placesOf(declarations: readonly Declaration[]): FilePlace[] {
  const places = new Places();
  for (const declaration of declarations) ofDeclaration(places, declaration);
  return places.all;
}

class Places {
  readonly all: FilePlace[] = [];

  folder(path: string, may: FilePlace['may']): void {
    const whole = resolve(path);
    if (!this.all.some((one) => one.path === whole && one.may === may)) this.all.push({ path: whole, may });
  }

  /** A file, with what lies beside it. */
  file(path: string | undefined, may: FilePlace['may']): void {
    if (path !== undefined) this.folder(dirname(resolve(path)), may);
  }

  socket(address: SocketAddress | undefined): void {
    if (address?.type === 'unix') this.file(address.path, 'bind');
  }
}

function ofDeclaration(places: Places, declaration: Declaration): void {
  switch (declaration.kind) {
    case 'netdev':
      ofNetdev(places, declaration.netdev);
      break;
    case 'net':
      if (declaration.net.netdev !== undefined) ofNetdev(places, declaration.net.netdev);
      if (declaration.net.device !== undefined) ofDevice(places, declaration.net.device);
      break;
    case 'device':
      ofDevice(places, declaration.device);
      break;
    case 'chardev':
      ofChardev(places, declaration.chardev);
      break;
    case 'object':
      ofObject(places, declaration.object);
      break;
    case 'monitor':
      ofReference(places, declaration.monitor.chardev);
      break;
    case 'qtest':
      ofReference(places, declaration.address);
      break;
    case 'qtest-log':
      places.file(declaration.path, 'write');
      break;
    case 'metrics':
      places.socket(declaration.address);
      break;
    case 'guest': {
      const { guest } = declaration;
      if (guest.type === 'probe' && guest.put !== undefined && 'file' in guest.put.source)
        places.file(guest.put.source.file, 'read');
      if (guest.type === 'qtest') ofReference(places, guest.address);
      break;
    }
  }
}

function ofNetdev(places: Places, netdev: NetdevConfig): void {
  switch (netdev.type) {
    case 'user':
      if (netdev.tftp !== undefined) places.folder(netdev.tftp, 'read');
      for (const { unixPath } of netdev.hostfwd) places.file(unixPath, 'bind');
      for (const { target } of netdev.guestfwd) if (target.kind !== 'command') ofReference(places, target);
      break;
    case 'stream':
      places.socket(netdev.address);
      break;
    case 'dgram':
      if (netdev.mode === 'unix') places.socket(netdev.local);
      break;
    case 'vde':
      // Its port has a socket beside the switch's.
      if (netdev.sock !== undefined) {
        places.folder(netdev.sock, 'bind');
        places.file(netdev.sock, 'bind');
      }
      break;
    case 'netmap':
      places.folder(netdev.devname, 'drive');
      break;
  }
}

function ofDevice(places: Places, device: DeviceConfig): void {
  places.file(device.romfile, 'read');
  places.file(device.vfioUser, 'bind');
  if (device.model === 'virtio-net') places.file(device.vhostUser?.path, 'bind');
}

function ofObject(places: Places, object: ObjectConfig): void {
  switch (object.type) {
    case 'filter-dump':
      places.file(object.file, 'write');
      break;
    case 'filter-hook':
      places.file(object.module, 'read');
      break;
    case 'filter-replay':
      places.file(object.file, 'write');
      break;
  }
}

function ofReference(places: Places, reference: ChardevReference): void {
  if (reference.kind === 'device') ofChardev(places, reference.device);
}

function ofChardev(places: Places, chardev: ChardevDevice): void {
  switch (chardev.type) {
    case 'socket':
      places.socket(chardev.address);
      break;
    case 'file':
      places.file(chardev.path, 'write');
      places.file(chardev.inputPath, 'read');
      break;
    case 'pipe':
    case 'pty':
      places.file(chardev.path, 'write');
      break;
  }
}
