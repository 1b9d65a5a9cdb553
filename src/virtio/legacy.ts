/**
 * The legacy interface (virtio 1.3, section 4.1.4.8) in an I/O BAR: one word of features, a queue told by its page, and the device configuration behind the
 * registers, four bytes further on while MSI-X is enabled.
 */

import { NO_VECTOR, type RegisterInterface, type RegisterOwner, STATUS_DRIVER_OK } from './registers.ts';

const PAGE_BYTES = 4096;
const DEVICE_OFFSET = 20;
const DEVICE_OFFSET_MSIX = 24;

export class LegacyInterface implements RegisterInterface {
  readonly #owner: RegisterOwner;
  readonly #configBytes: number;

  /** `configBytes`: of the device configuration. */
  constructor(owner: RegisterOwner, configBytes: number) {
    this.#owner = owner;
    this.#configBytes = configBytes;
  }

  get #deviceOffset(): number {
    return this.#owner.msixEnabled() ? DEVICE_OFFSET_MSIX : DEVICE_OFFSET;
  }

  fieldAt(offset: number): number {
    if (offset < 12) return (offset & ~3) * 8 + 4;
    if (offset < 18) return (offset & ~1) * 8 + 2;
    if (offset < DEVICE_OFFSET) return offset * 8 + 1;
    const device = this.#deviceOffset;
    if (offset < device) return (offset & ~1) * 8 + 2;
    return offset < device + this.#configBytes ? offset * 8 + 1 : -1;
  }

  read(offset: number): number {
    const owner = this.#owner;
    const { registers } = owner;
    const device = this.#deviceOffset;
    if (offset >= device) return owner.configByte(offset - device) & 0xff;
    const slot = owner.slots[registers.queueSelect];
    switch (offset) {
      case 0:
        return owner.offered.word(0);
      case 4:
        return owner.accepted.word(0);
      case 8:
        return slot?.page ?? 0;
      case 12:
        return slot?.size ?? 0;
      case 14:
        return registers.queueSelect;
      case 18:
        return owner.statusRead();
      case 19:
        return owner.takeIsr();
      case 20:
        return registers.configVector;
      case 22:
        return slot?.vector ?? NO_VECTOR;
      default:
        return 0;
    }
  }

  write(offset: number, value: number): void {
    const owner = this.#owner;
    const { registers } = owner;
    const device = this.#deviceOffset;
    if (offset >= device) {
      owner.writeConfigByte(offset - device, value);
      return;
    }
    const slot = owner.slots[registers.queueSelect];
    switch (offset) {
      case 4:
        if ((registers.status & STATUS_DRIVER_OK) !== 0) return;
        owner.accepted.clear();
        owner.accepted.setWord(0, value);
        if (owner.accepted.mask(owner.offered)) owner.stats().badFeatures++;
        owner.settle();
        return;
      case 8:
        if (slot !== undefined) this.#place(registers.queueSelect, value);
        return;
      case 14:
        registers.queueSelect = value;
        return;
      case 16:
        owner.kickQueue(value);
        return;
      case 18:
        owner.writeStatus(value, false);
        return;
      case 20:
        registers.configVector = owner.vector(value);
        return;
      case 22:
        if (slot !== undefined) slot.vector = owner.vector(value);
        return;
    }
  }

  /** The whole ring lies behind one page number; 0 takes the queue away (section 2.7.2 gives the layout). */
  #place(index: number, page: number): void {
    const owner = this.#owner;
    const slot = owner.slots[index];
    if (page === 0) {
      if (slot.queue !== null) owner.resetQueue(index);
      slot.page = 0;
      return;
    }
    if (slot.queue !== null || slot.size === 0) return;
    slot.page = page;
    const { size } = slot;
    const descriptors = page * PAGE_BYTES;
    const driver = descriptors + 16 * size;
    const device = Math.ceil((driver + 6 + 2 * size) / PAGE_BYTES) * PAGE_BYTES;
    for (const [i, address] of [descriptors, driver, device].entries()) {
      slot.addresses[2 * i] = address % 2 ** 32;
      slot.addresses[2 * i + 1] = Math.floor(address / 2 ** 32);
    }
    owner.openQueue(index);
  }
}
