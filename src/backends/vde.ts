/**
 * `vde`: a port of a vde_switch, by the switch's own protocol (as seen between vde_plug and vde_switch 2.3):
 *
 *     to DIR/ctl, a unix stream:  u32 0xfeedface, u32 3, u32 (port << 8), sockaddr_un of our datagram socket, a description; host order
 *     from it:                    sockaddr_un of the switch's datagram socket for this port
 *
 * Then each datagram is a frame, and the stream stays open: its end is the port's. Our socket's file is removed as soon as both sides are connected, so
 * that a process that is killed leaves none.
 *
 * When the switch goes away the link goes down, and it is asked again at growing intervals until it is back.
 */

import type { NetdevConfigOf } from '../config/netdevs/index.ts';
import { HostIoError } from '../core/errors.ts';
import type { Timer } from '../core/loop.ts';
import { errnoName, errnoText } from '../host-io/errno.ts';
import { ERRNO, FAILED, type Handle, type HostIo, HUNG_UP, READABLE } from '../host-io/host-io.ts';
import { putLatin1, putU16le, putU32le } from '../wire/bytes.ts';
import type { Backend, BackendContext, OpenBackend } from './backend.ts';
import { DatagramPort, type DatagramPortStats } from './datagram-port.ts';
import { needHostIo, type Services } from './services.ts';

const MAGIC = 0xfeedface;
const VERSION = 3;
const SOCKADDR_BYTES = 110;
const HEADER_BYTES = 12;
const DESCRIPTION_MAX_BYTES = 127;
const AF_UNIX = 1;
const RETRY_MIN_NS = 200e6;
const RETRY_MAX_NS = 5e9;
const REPLY_NS = 2e9;

/** The request for a port whose datagram socket is bound to `path`. */
export function vdeRequest(port: number, path: string, description: string): Uint8Array {
  const text = description.slice(0, DESCRIPTION_MAX_BYTES);
  const bytes = new Uint8Array(HEADER_BYTES + SOCKADDR_BYTES + text.length);
  putU32le(bytes, 0, MAGIC);
  putU32le(bytes, 4, VERSION);
  putU32le(bytes, 8, port << 8);
  putU16le(bytes, HEADER_BYTES, AF_UNIX);
  bytes.set(new TextEncoder().encode(path), HEADER_BYTES + 2);
  putLatin1(bytes, HEADER_BYTES + SOCKADDR_BYTES, text);
  return bytes;
}

/** The path in a sockaddr_un; null when it is none. */
export function vdeReplyPath(bytes: Uint8Array): string | null {
  if (bytes.length < SOCKADDR_BYTES || (bytes[0]! | (bytes[1]! << 8)) !== AF_UNIX) return null;
  const end = bytes.indexOf(0, 2);
  const path = new TextDecoder().decode(bytes.subarray(2, end < 0 ? SOCKADDR_BYTES : end));
  return path === '' ? null : path;
}

/** A port that the switch gave: its control stream and our connected datagram socket. */
interface Plugged {
  readonly control: Handle;
  readonly data: Handle;
}

class VdeBackend implements Backend {
  readonly ports;
  readonly stats: DatagramPortStats;
  readonly link: DatagramPort;
  readonly #config: NetdevConfigOf<'vde'>;
  readonly #context: BackendContext;
  readonly #hostIo: HostIo;
  readonly #services: Services;
  readonly #retry: Timer;
  #control: Handle = 0;
  #retryNs = RETRY_MIN_NS;
  #closed = false;

  constructor(config: NetdevConfigOf<'vde'>, context: BackendContext, hostIo: HostIo, services: Services) {
    this.#config = config;
    this.#context = context;
    this.#hostIo = hostIo;
    this.#services = services;
    this.link = new DatagramPort(config.id, context, hostIo, { receive: 0 });
    this.ports = [this.link.port];
    this.stats = this.link.stats;
    this.#retry = context.loop.timer(() => this.#again());
  }

  /** Asks the switch for a port. Rejects with HostIoError. */
  async plug(): Promise<void> {
    const { control, data } = await plug(this.#config, this.#context, this.#hostIo, this.#services);
    if (this.#closed) {
      this.#hostIo.close(control);
      this.#hostIo.close(data);
      return;
    }
    this.#control = control;
    this.#retryNs = RETRY_MIN_NS;
    this.link.attach(data, data);
    this.#hostIo.watch(control, READABLE, (ready) => {
      const got = this.#hostIo.receiveBytes(control, new Uint8Array(256), 0, 256);
      // Whatever it says but good-bye is of no interest.
      if (got > 0 || (got === -ERRNO.EAGAIN && (ready & (HUNG_UP | FAILED)) === 0)) return;
      this.#unplugged();
    });
    this.link.port.setCarrier(true);
  }

  #unplugged(): void {
    this.#context.log.warn({ netdev: this.#config.id }, 'the vde switch is gone');
    this.#hostIo.close(this.#control);
    this.#control = 0;
    this.link.port.setCarrier(false);
    this.link.detach();
    this.#later();
  }

  #later(): void {
    const jitter = 1 + (this.#context.random() / 2 ** 32) * 0.25;
    this.#retry.armIn(this.#retryNs * jitter);
    this.#retryNs = Math.min(this.#retryNs * 2, RETRY_MAX_NS);
  }

  #again(): void {
    void this.plug().then(
      () => this.#context.log.info({ netdev: this.#config.id }, 'the vde switch is back'),
      () => {
        if (!this.#closed) this.#later();
      },
    );
  }

  describe(): string {
    const { sock, port } = this.#config;
    return `sock=${sock ?? 'default'},port=${port}${this.#control === 0 ? ' (no switch)' : ''}`;
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#retry.cancel();
    if (this.#control !== 0) this.#hostIo.close(this.#control);
    this.#control = 0;
    this.link.detach();
  }
}

export function vdeBackend(services: Services): OpenBackend<'vde'> {
  return async (config, context) => {
    const hostIo = needHostIo(context, 'vde');
    const backend = new VdeBackend(config, context, hostIo, services);
    try {
      await backend.plug();
    } catch (error) {
      backend.close();
      throw error;
    }
    return backend;
  };
}

/** Where libvdeplug looks when no folder is named: the user's own switch, then the system's. */
function controlFolder(sock: string | undefined, services: Services): string {
  if (sock !== undefined) return sock;
  const home = services.environment.HOME;
  const places = [
    ...(home === undefined ? [] : [`${home}/.vde2/default.switch`]),
    '/var/run/vde.ctl',
    '/tmp/vde.ctl',
  ];
  return places.find((place) => services.exists(`${place}/ctl`)) ?? '/var/run/vde.ctl';
}

async function plug(
  config: NetdevConfigOf<'vde'>,
  context: BackendContext,
  hostIo: HostIo,
  services: Services,
): Promise<Plugged> {
  const folder = controlFolder(config.sock, services);
  const failed = (errno: number, why = errnoText(errno)): HostIoError =>
    new HostIoError('connect', errnoName(errno), `could not open vde switch '${folder}': ${why}`);
  const control = hostIo.unixConnect(`${folder}/ctl`);
  let data: Handle = 0;
  let path = '';
  try {
    const refused = hostIo.takeError(control);
    if (refused !== 0) throw failed(refused);
    [data, path] = bindData(folder, context, hostIo, services);
    services.setAccess(path, config.mode, config.group);
    const request = vdeRequest(config.port, path, `netemu: ${config.id} pid=${services.processId}`);
    const sent = hostIo.sendBytes(control, request, 0, request.length);
    if (sent !== request.length) throw failed(sent < 0 ? -sent : ERRNO.EAGAIN);
    const reply = await readReply(control, context, hostIo);
    if (reply === null)
      throw failed(ERRNO.ECONNRESET, `it gives us no port${config.port === 0 ? '' : ` ${config.port}`}`);
    const connected = hostIo.datagramConnect(data, reply);
    if (connected < 0) throw failed(-connected);
    return { control, data };
  } catch (error) {
    hostIo.close(control);
    if (data !== 0) hostIo.close(data);
    throw error;
  } finally {
    if (path !== '') services.removeFile(path);
  }
}

/** A datagram socket beside the switch's, or in /tmp where that may not be. */
function bindData(
  folder: string,
  context: BackendContext,
  hostIo: HostIo,
  services: Services,
): [Handle, string] {
  const name = `${String(services.processId).padStart(5, '0')}-${context.random().toString(16)}`;
  try {
    const path = `${folder}/.${name}`;
    return [hostIo.unixDatagramOpen({ local: path }), path];
  } catch (error) {
    if (!(error instanceof HostIoError) || !['EACCES', 'EPERM', 'EROFS'].includes(error.code)) throw error;
    const path = `/tmp/vde.${name}`;
    return [hostIo.unixDatagramOpen({ local: path }), path];
  }
}

/** The path the switch answers with; null when it hangs up, or says nothing for REPLY_NS. */
function readReply(control: Handle, context: BackendContext, hostIo: HostIo): Promise<string | null> {
  return new Promise((resolve) => {
    const reply = new Uint8Array(SOCKADDR_BYTES);
    let filled = 0;
    const done = (path: string | null): void => {
      timeout.cancel();
      hostIo.setInterest(control, 0);
      resolve(path);
    };
    const timeout = context.loop.timer(() => done(null));
    timeout.armIn(REPLY_NS);
    hostIo.watch(control, READABLE, () => {
      const got = hostIo.receiveBytes(control, reply, filled, SOCKADDR_BYTES);
      if (got === -ERRNO.EAGAIN) return;
      if (got <= 0) {
        done(null);
        return;
      }
      filled += got;
      if (filled === SOCKADDR_BYTES) done(vdeReplyPath(reply));
    });
  });
}
