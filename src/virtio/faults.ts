/** How a ring can break the rules. */

export const FAULT_NONE = 0;
/** A part of the ring is not RAM. */
export const FAULT_RING_ADDRESS = 1;
/** More chains available or in flight than the ring holds. */
export const FAULT_OVERRUN = 2;
/** A descriptor index outside the ring or table. */
export const FAULT_INDEX = 3;
/** A chain that is longer than the ring, or loops. */
export const FAULT_CHAIN_LENGTH = 4;
/** A descriptor without bytes. */
export const FAULT_EMPTY = 5;
/** An indirect table that was not negotiated, nested, misshapen or not in RAM. */
export const FAULT_INDIRECT = 6;
/** A part to read behind one to write. */
export const FAULT_ORDER = 7;
/** A buffer outside RAM; found by the device. */
export const FAULT_BUFFER_ADDRESS = 8;
