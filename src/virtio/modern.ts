/** The modern interface (virtio 1.3, section 4.1.4): common configuration, interrupt status and device configuration in one BAR; notification is pci.ts's. */

import { COMMON_BYTES, DEVICE_OFFSET, ISR_OFFSET } from './capabilities.ts';
import { F_RING_RESET } from './features.ts';
import { type RegisterInterface, type RegisterOwner, STATUS_FEATURES_OK } from './registers.ts';

export class ModernInterface implements RegisterInterface {
  readonly #owner: RegisterOwner;
  readonly #configBytes: number;

  /** `configBytes`: of the device configuration. */
  constructor(owner: RegisterOwner, configBytes: number) {
    this.#owner = owner;
    this.#configBytes = configBytes;
  }

  fieldAt(offset: number): number {
    if (offset < COMMON_BYTES) {
      if (offset < 16) return (offset & ~3) * 8 + 4;
      if (offset < 20) return (offset & ~1) * 8 + 2;
      if (offset < 22) return offset * 8 + 1;
      if (offset < 32) return (offset & ~1) * 8 + 2;
      return offset < 56 ? (offset & ~3) * 8 + 4 : (offset & ~1) * 8 + 2;
    }
    if (offset === ISR_OFFSET) return offset * 8 + 1;
    if (offset >= DEVICE_OFFSET && offset < DEVICE_OFFSET + this.#configBytes) return offset * 8 + 1;
    return -1;
  }

  read(offset: number): number {
    const owner = this.#owner;
    const { registers } = owner;
    if (offset === ISR_OFFSET) return owner.takeIsr();
    if (offset >= DEVICE_OFFSET) return owner.configByte(offset - DEVICE_OFFSET) & 0xff;
    const slot = owner.slots[registers.queueSelect];
    switch (offset) {
      case 0:
        return registers.deviceSelect;
      case 4:
        return owner.offered.word(registers.deviceSelect);
      case 8:
        return registers.driverSelect;
      case 12:
        return owner.accepted.word(registers.driverSelect);
      case 16:
        return registers.configVector;
      case 18:
        return owner.slots.length;
      case 20:
        return owner.statusRead();
      case 21:
        return registers.generation;
      case 22:
        return registers.queueSelect;
    }
    if (slot === undefined) return 0;
    if (offset >= 32 && offset < 56) return slot.addresses[(offset - 32) >> 2];
    switch (offset) {
      case 24:
        return slot.size;
      case 26:
        return slot.vector;
      case 28:
        return slot.queue === null ? 0 : 1;
      case 30:
        return registers.queueSelect;
      default:
        return 0;
    }
  }

  write(offset: number, value: number): void {
    const owner = this.#owner;
    const { registers } = owner;
    if (offset >= DEVICE_OFFSET) {
      owner.writeConfigByte(offset - DEVICE_OFFSET, value);
      return;
    }
    const slot = owner.slots[registers.queueSelect];
    switch (offset) {
      case 0:
        registers.deviceSelect = value;
        return;
      case 8:
        registers.driverSelect = value;
        return;
      case 12:
        if ((registers.status & STATUS_FEATURES_OK) === 0)
          owner.accepted.setWord(registers.driverSelect, value);
        return;
      case 16:
        registers.configVector = owner.vector(value);
        return;
      case 20:
        owner.writeStatus(value, true);
        return;
      case 22:
        registers.queueSelect = value;
        return;
    }
    if (slot === undefined) return;
    if (offset >= 32 && offset < 56) {
      if (slot.queue === null) slot.addresses[(offset - 32) >> 2] = value;
      return;
    }
    switch (offset) {
      case 24:
        // Frozen once enabled; what the queue cannot be is found out then.
        if (slot.queue === null) slot.size = value;
        return;
      case 26:
        slot.vector = owner.vector(value);
        return;
      case 28:
        if (value === 1) owner.enableQueue(registers.queueSelect);
        return;
      case 58:
        if (value === 1 && owner.accepted.has(F_RING_RESET)) owner.resetQueue(registers.queueSelect);
        return;
    }
  }
}
