/**
 * A command in a network namespace of its own, on a tap that this process holds the other end of.
 *
 *     netemu ── spawns ──▶ unshare ─▶ sh: waits ──────────────▶ addresses, routes, resolv.conf ─▶ exec COMMAND
 *        │                             ▲ told that the network stands                            (one process all along)
 *        ├── spawns ──▶ nsenter ─▶ open-tap: makes the tap inside, passes its descriptor back, ends
 *        └── the network: tap ── user
 *
 * Node can neither enter a user namespace (it has threads) nor become another program, so util-linux does both, and iproute2 the
 * addresses. As root the namespaces are a network and a mount namespace; otherwise a user namespace as well, in which the command is root.
 * Nothing has a name that could stay behind: the namespaces end with their last process, the tap with its descriptor, resolv.conf is a
 * bind mount of a file that is removed as soon as it is mounted.
 *
 * The shell's standard error goes into a pipe until the command takes over, so that whatever fails before is told in one line.
 */

import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { constants, tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Duplex, Readable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { type Ipv6, ipv6 } from '../../config/address.ts';
import { HostIoError, UnsupportedError } from '../../core/errors.ts';
import type { Handle, HostIo } from '../../host-io/host-io.ts';
import type { UserNetdev } from './options.ts';

/** Descriptors of the shell: what it tells, what it is told, and the standard error that is the command's. */
const TELLS = 3;
const TOLD = 4;
const STDERR = 5;
/** Setting up belongs to /sbin where an ordinary user's PATH may not reach. */
const PATH = 'PATH="$PATH:/usr/sbin:/sbin"';

/** How a command ended: its status, 128 + n for signal n. */
export type ExitStatus = number;

export class Namespace {
  readonly finished: Promise<ExitStatus>;
  readonly #child: ChildProcess;
  readonly #isRoot: boolean;
  #said = '';
  #errors = '';
  #ended = false;
  #wake: () => void = () => {};

  constructor(user: UserNetdev, ifname: string, command: readonly string[]) {
    this.#isRoot = process.getuid?.() === 0;
    const folder = mkdtempSync(join(tmpdir(), 'netemu-netns-'));
    const resolvConf = join(folder, 'resolv.conf');
    writeFileSync(resolvConf, resolverLines(user), { mode: 0o644 });
    const namespaces = ['--mount', '--net', ...(this.#isRoot ? [] : ['--user', '--map-root-user'])];
    const script = `printf 'ready\\n' >&${TELLS}
read -r go <&${TOLD} || exit 1
(${PATH}; ${setup(user, resolvConf).join(' &&\n')}) || exit 1
printf 'up\\n' >&${TELLS}
shift
exec 2>&${STDERR} ${TELLS}>&- ${TOLD}>&- ${STDERR}>&-
exec "$@"`;
    this.#child = spawn('unshare', [...namespaces, '--', '/bin/sh', '-c', script, 'sh', ifname, ...command], {
      stdio: ['inherit', 'inherit', 'pipe', 'pipe', 'pipe', 2],
    });
    const tells = this.#child.stdio[TELLS] as Readable;
    tells.setEncoding('utf8').on('data', (text: string) => {
      this.#said += text;
      this.#wake();
    });
    this.#child.stderr!.setEncoding('utf8').on('data', (text: string) => {
      this.#errors += text;
    });
    for (const pipe of [tells, this.#told, this.#child.stderr!]) pipe.on('error', () => {});
    this.finished = new Promise((resolve, reject) => {
      const end = (then: () => void): void => {
        this.#ended = true;
        rmSync(folder, { recursive: true, force: true });
        this.#wake();
        then();
      };
      this.#child.on('error', (error: NodeJS.ErrnoException) => {
        end(() => reject(new UnsupportedError(`netns runs unshare of util-linux: ${error.code}`)));
      });
      // 'exit' may come while what was printed is still on its way; 'close' waits for it, and the pipes are ours alone.
      this.#child.on('close', (code, signal) => {
        end(() => resolve(code ?? 128 + (signal === null ? 0 : constants.signals[signal])));
      });
    });
    this.finished.catch(() => {});
  }

  get #told(): Duplex {
    return this.#child.stdio[TOLD] as Duplex;
  }

  /** Waits until the shell stands in its namespaces. Rejects with UnsupportedError where they cannot be made. */
  async ready(): Promise<void> {
    if (await this.#saying('ready\n')) return;
    await this.finished;
    throw new UnsupportedError(
      `a network namespace cannot be made here${this.#isRoot ? '' : ' without root'}: ${lastLine(this.#errors)}`,
    );
  }

  /** Makes the tap inside. Rejects with UnsupportedError or HostIoError. */
  async openTap(hostIo: HostIo, ifname: string): Promise<Handle> {
    const [ours, theirs] = hostIo.socketPair();
    try {
      const own = import.meta.url;
      const program = fileURLToPath(own.replace(/namespace(\.[jt]s)$/, 'open-tap$1'));
      const enter = ['--target', `${this.#child.pid}`, '--net'];
      if (!this.#isRoot) enter.push('--user', '--preserve-credentials');
      const node = [process.execPath, ...process.execArgv, program, ifname];
      const helper = spawn('nsenter', [...enter, '--', ...node], {
        stdio: ['ignore', 'ignore', 'pipe', hostIo.fdOf(theirs)],
      });
      let errors = '';
      helper.stderr!.setEncoding('utf8').on('data', (text: string) => {
        errors += text;
      });
      const status = await new Promise<number>((resolve, reject) => {
        helper.on('error', (error: NodeJS.ErrnoException) =>
          reject(new UnsupportedError(`netns runs nsenter of util-linux: ${error.code}`)),
        );
        helper.on('close', (code) => resolve(code ?? 1));
      });
      const [tap] = status === 0 ? hostIo.receiveWithFds(ours, new Uint8Array(1), 1).fds : [];
      if (tap === undefined) throw new UnsupportedError(`no tap can be made here: ${lastLine(errors)}`);
      return tap;
    } finally {
      hostIo.close(ours);
      hostIo.close(theirs);
    }
  }

  /** Sets addresses and routes, and starts the command. Rejects with HostIoError. */
  async start(): Promise<void> {
    this.#told.write('go\n');
    if (await this.#saying('up\n')) {
      this.#child.stderr!.resume();
      return;
    }
    await this.finished;
    throw new HostIoError('exec', 'EIO', `the namespace cannot be set up: ${lastLine(this.#errors)}`);
  }

  /** Signals the command, or what will become it. */
  signal(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  /** Waits for a line of the shell; false when it ended without. */
  async #saying(line: string): Promise<boolean> {
    while (!this.#said.includes(line) && !this.#ended) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    return this.#said.includes(line);
  }
}

function lastLine(text: string): string {
  return text.trim().split('\n').at(-1)!;
}

function resolverLines({ ipv4, ipv6: v6, dnssearch, domainname }: UserNetdev): string {
  const search = dnssearch.length > 0 ? dnssearch : domainname === undefined ? [] : [domainname];
  const servers = [ipv4?.dns.text, v6?.dns.text].filter((server) => server !== undefined);
  return [
    ...servers.map((server) => `nameserver ${server}\n`),
    ...(search.length > 0 ? [`search ${search.join(' ')}\n`] : []),
  ].join('');
}

/** The commands that set the namespace up. The interface's name is $1; nothing else that a user types gets into them but addresses. */
function setup({ ipv4, ipv6: v6, ipMtuBytes }: UserNetdev, resolvConf: string): readonly string[] {
  const lines = ['ip link set lo up'];
  if (v6 !== undefined) {
    // The addresses are given below: no waiting for routers, nor for somebody else with the same address.
    const settings = `/proc/sys/net/ipv6/conf/$1`;
    lines.push(
      `{ { echo 0 >"${settings}/accept_ra"; echo 0 >"${settings}/accept_dad"; } 2>/dev/null || :; }`,
    );
  }
  lines.push(`ip link set "$1" mtu ${ipMtuBytes} up`);
  if (ipv4 !== undefined) {
    lines.push(`ip addr add ${ipv4.dhcpStart.text}/${ipv4.prefixLength} dev "$1"`);
    lines.push(`ip route add default via ${ipv4.host.text} dev "$1"`);
  }
  if (v6 !== undefined) {
    lines.push(`ip addr add ${ownAddress(v6).text}/${v6.prefixLength} dev "$1" nodad`);
    lines.push(`ip route add default via ${v6.host.text} dev "$1"`);
  }
  const file = '/etc/resolv.conf';
  lines.push(`if [ -e ${file} ]; then mount --bind '${resolvConf}' ${file}; fi`, `rm '${resolvConf}'`);
  return lines;
}

/** The namespace's IPv6 address: prefix::15, as IPv4's .15, or the first free one where the prefix leaves no room for it. */
export function ownAddress({ prefix, prefixLength, host, dns }: NonNullable<UserNetdev['ipv6']>): Ipv6 {
  const last = prefixLength <= 123 ? 0x15 : 1;
  for (let number = last; ; number++) {
    const bytes = prefix.bytes.slice();
    bytes[15]! |= number;
    const address = ipv6(bytes);
    if (address.text !== host.text && address.text !== dns.text) return address;
  }
}
