/**
 * Descriptors that monitor clients passed: single ones by name (getfd), and sets by number (add-fd), whose members stand for a file in any
 * option that names one: `/dev/fdset/N`.
 */

import { OptionError, UnsupportedError } from '../core/errors.ts';
import type { Handle, HostIo } from '../host-io/host-io.ts';

export interface FdSetMember {
  readonly handle: Handle;
  /** The descriptor's number in this process. */
  readonly fd: number;
  readonly opaque: string | undefined;
}

export class PassedFds {
  readonly #hostIo: HostIo | null;
  readonly #named = new Map<string, Handle>();
  readonly #sets = new Map<number, FdSetMember[]>();

  constructor(hostIo: HostIo | null) {
    this.#hostIo = hostIo;
  }

  /** Keeps a descriptor under a name; an older one of that name is closed. */
  store(name: string, handle: Handle): void {
    this.drop(name);
    this.#named.set(name, handle);
  }

  /** Takes a named descriptor out; the caller owns it. */
  take(name: string): Handle | undefined {
    const handle = this.#named.get(name);
    this.#named.delete(name);
    return handle;
  }

  /** Closes a named descriptor; false when there is none. */
  drop(name: string): boolean {
    const handle = this.take(name);
    if (handle === undefined) return false;
    this.#hostIo?.close(handle);
    return true;
  }

  get sets(): ReadonlyMap<number, readonly FdSetMember[]> {
    return this.#sets;
  }

  /** Adds a descriptor to a set; without a number, to a new one. */
  addToSet(handle: Handle, id: number | undefined, opaque: string | undefined): { id: number; fd: number } {
    if (this.#hostIo === null) throw new UnsupportedError('there are no descriptors here');
    let number = id ?? 0;
    if (id === undefined) while (this.#sets.has(number)) number++;
    const members = this.#sets.get(number) ?? [];
    const fd = this.#hostIo.fdOf(handle);
    members.push({ handle, fd, opaque });
    this.#sets.set(number, members);
    return { id: number, fd };
  }

  /** Closes a set's descriptors, or only the one with number `fd`; false when there is none such. */
  removeFromSet(id: number, fd: number | undefined): boolean {
    const members = this.#sets.get(id);
    if (members === undefined) return false;
    const going = fd === undefined ? members : members.filter((member) => member.fd === fd);
    if (going.length === 0) return false;
    for (const { handle } of going) this.#hostIo?.close(handle);
    const left = members.filter((member) => !going.includes(member));
    if (left.length === 0) this.#sets.delete(id);
    else this.#sets.set(id, left);
    return true;
  }

  /** The path to open for what an option names. Throws OptionError for a set that is not there. */
  resolvePath(path: string): string {
    const match = /^\/dev\/fdset\/(\d{1,9})$/.exec(path);
    if (match === null) return path;
    const member = this.#sets.get(Number(match[1]))?.[0];
    if (member === undefined)
      throw new OptionError(`could not open '${path}': there is no such set of descriptors`);
    return `/proc/self/fd/${member.fd}`;
  }

  close(): void {
    for (const name of [...this.#named.keys()]) this.drop(name);
    for (const id of [...this.#sets.keys()]) this.removeFromSet(id, undefined);
  }
}
