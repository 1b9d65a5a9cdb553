/**
 * The log of a machine that migrates: SET_LOG_BASE brings the bitmap's file, SET_LOG_FD an eventfd for whoever wants to be told of marks, and the feature LOG_ALL
 * switches it on and off, at any time and in any order.
 */

import type { Handle, HostIo } from '../../host-io/host-io.ts';
import { DirtyLog } from '../../pci/dirty-log.ts';
import type { GuestMemory } from '../../pci/guest-memory.ts';
import { SharedFile } from './shared-file.ts';

export class WriteLog {
  readonly #hostIo: HostIo;
  readonly #memory: GuestMemory;
  #file: SharedFile | null = null;
  #log: DirtyLog | null = null;
  #event: Handle = 0;
  #on = false;

  constructor(hostIo: HostIo, memory: GuestMemory) {
    this.#hostIo = hostIo;
    this.#memory = memory;
  }

  /** Takes the bitmap in place of the one before; false, and nothing is changed, when there is none in the file. `fd` stays the caller's. */
  setBase(fd: Handle, offset: number, length: number): boolean {
    const file = SharedFile.open(this.#hostIo, fd, offset, length);
    if (file === null) return false;
    const old = this.#file;
    this.#file = file;
    this.#log = new DirtyLog(file.bytes, () => {
      if (this.#event !== 0) this.#hostIo.signal(this.#event);
    });
    this.#apply();
    old?.close();
    return true;
  }

  /** Takes the eventfd; the log's from now on. */
  setEvent(fd: Handle): void {
    this.#hostIo.close(this.#event);
    this.#event = fd;
  }

  get on(): boolean {
    return this.#on;
  }

  switch(on: boolean): void {
    this.#on = on;
    this.#apply();
  }

  #apply(): void {
    const log = this.#on ? this.#log : null;
    if (this.#memory.dirtyLog !== log) this.#memory.dirtyLog = log;
  }

  close(): void {
    this.switch(false);
    this.#file?.close();
    this.#file = null;
    this.#log = null;
    this.setEvent(0);
  }
}
