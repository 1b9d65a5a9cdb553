/**
 * The vhost-user protocol's numbers (QEMU's docs/interop/vhost-user), for the back-end (guest/vhost-user) and the front-end (backends/vhost-user): all fields are
 * little-endian.
 *
 *   message   request 32, flags 32, bytes of the payload 32, payload
 */

export const HEADER_BYTES = 12;
export const REQUEST = 0;
export const FLAGS = 4;
export const SIZE = 8;
/** No message of the front-end's is longer. */
export const MAX_PAYLOAD_BYTES = 4096;
/** Descriptors with one message: a memory table's. */
export const MAX_FDS = 8;

export const VERSION_MASK = 3;
export const VERSION = 1;
export const FLAG_REPLY = 4;
export const FLAG_NEED_REPLY = 8;

export const GET_FEATURES = 1;
export const SET_FEATURES = 2;
export const SET_OWNER = 3;
export const RESET_OWNER = 4;
export const SET_MEM_TABLE = 5;
export const SET_LOG_BASE = 6;
export const SET_LOG_FD = 7;
export const SET_VRING_NUM = 8;
export const SET_VRING_ADDR = 9;
export const SET_VRING_BASE = 10;
export const GET_VRING_BASE = 11;
export const SET_VRING_KICK = 12;
export const SET_VRING_CALL = 13;
export const SET_VRING_ERR = 14;
export const GET_PROTOCOL_FEATURES = 15;
export const SET_PROTOCOL_FEATURES = 16;
export const GET_QUEUE_NUM = 17;
export const SET_VRING_ENABLE = 18;
export const SEND_RARP = 19;
export const NET_SET_MTU = 20;
export const GET_INFLIGHT_FD = 31;
export const SET_INFLIGHT_FD = 32;
export const RESET_DEVICE = 34;
export const GET_MAX_MEM_SLOTS = 36;
export const ADD_MEM_REG = 37;
export const REM_MEM_REG = 38;
export const SET_STATUS = 39;
export const GET_STATUS = 40;

/** The feature bit that switches the log of written pages on. */
export const F_LOG_ALL = 26;
/** The feature bit that says there are protocol features. */
export const F_PROTOCOL_FEATURES = 30;

export const PF_MQ = 1 << 0;
export const PF_LOG_SHMFD = 1 << 1;
export const PF_RARP = 1 << 2;
export const PF_REPLY_ACK = 1 << 3;
export const PF_MTU = 1 << 4;
export const PF_INFLIGHT_SHMFD = 1 << 12;
export const PF_RESET_DEVICE = 1 << 13;
export const PF_CONFIGURE_MEM_SLOTS = 1 << 15;
export const PF_STATUS = 1 << 16;

export const U64_BYTES = 8;
/** Index and number: SET_VRING_NUM, SET_VRING_BASE, SET_VRING_ENABLE. */
export const VRING_STATE_BYTES = 8;
/** Index, flags, and the addresses of descriptors, used ring, available ring and log. */
export const VRING_ADDR_BYTES = 40;
/** Flag of SET_VRING_ADDR: writes to the used ring go to the log. */
export const VRING_F_LOG = 1;
/** Bytes of the log, and where it begins in its file. */
export const LOG_BYTES = 16;
/** Bytes of the file, offset in it, queues, queue size; most front-ends send 4 bytes of padding too. */
export const INFLIGHT_LEAST_BYTES = 20;
/** Guest address, size, front-end's address, offset in the file. */
export const REGION_BYTES = 32;
/** Bytes of the area, its offset in the file, queues and their size (16 bits each, padded to 8 bytes). */
export const INFLIGHT_BYTES = 24;
export const TABLE_HEADER_BYTES = 8;

export const VRING_INDEX_MASK = 0xff;
/** SET_VRING_KICK, CALL and ERR without a descriptor. */
export const VRING_NO_FD = 0x100;

export const STATUS_FEATURES_OK = 8;

/** A 64-bit field; what a number cannot hold is rounded, and lies beyond every range there is. */
export function u64(view: DataView, at: number): number {
  return view.getUint32(at + 4, true) * 2 ** 32 + view.getUint32(at, true);
}

export function putU64(view: DataView, at: number, value: number): void {
  view.setUint32(at, value % 2 ** 32, true);
  view.setUint32(at + 4, Math.floor(value / 2 ** 32), true);
}
