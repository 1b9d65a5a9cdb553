/**
 * The wire form of vfio-user 0.0 (QEMU's docs/interop/vfio-user): a 16-byte header, then a structure for each command, all little-endian as on the hosts that
 * run it. Numbers here are the protocol's; structures from <linux/vfio.h> keep their names. 64-bit fields are read as JavaScript numbers, exact below 2^53;
 * whatever lies beyond is refused by every bounds check, for nothing is that long.
 */

export const HEADER_BYTES = 16;

// Header: message id (u16), command (u16), whole size (u32), flags (u32), errno (u32).
export const ID = 0;
export const COMMAND = 2;
export const SIZE = 4;
export const FLAGS = 8;
export const ERROR = 12;

export const TYPE_MASK = 0xf;
export const TYPE_COMMAND = 0;
export const TYPE_REPLY = 1;
export const FLAG_NO_REPLY = 1 << 4;
export const FLAG_ERROR = 1 << 5;

export const VERSION = 1;
export const DMA_MAP = 2;
export const DMA_UNMAP = 3;
export const DEVICE_GET_INFO = 4;
export const DEVICE_GET_REGION_INFO = 5;
export const DEVICE_GET_REGION_IO_FDS = 6;
export const DEVICE_GET_IRQ_INFO = 7;
export const DEVICE_SET_IRQS = 8;
export const REGION_READ = 9;
export const REGION_WRITE = 10;
export const DMA_READ = 11;
export const DMA_WRITE = 12;
export const DEVICE_RESET = 13;
export const REGION_WRITE_MULTI = 15;
export const DEVICE_FEATURE = 16;

export const MAJOR = 0;
export const MINOR = 0;

/** The most one transfer message may carry, either way (the protocol's default, and what we announce). */
export const MAX_TRANSFER_BYTES = 1 << 20;
/** Descriptors that we take with one message. */
export const MAX_MESSAGE_FDS = 16;
/** Ranges a client may have mapped at once: each is a region of the frame pool. */
export const MAX_DMA_MAPS = 1024;
/** A message longer than this cannot be meant: transfer, its header, and room for version data. */
export const MAX_MESSAGE_BYTES = MAX_TRANSFER_BYTES + 4096;
export const PAGE_BYTES = 4096;

export const DMA_FLAG_READ = 1;
export const DMA_FLAG_WRITE = 2;
export const UNMAP_ALL = 2;

export const DEVICE_FLAG_RESET = 1;
export const DEVICE_FLAG_PCI = 2;

export const REGION_FLAG_READ = 1;
export const REGION_FLAG_WRITE = 2;

/** Region indexes of a PCI device: six BARs, then these. */
export const REGION_ROM = 6;
export const REGION_CONFIG = 7;
export const REGION_COUNT = 9;

export const IRQ_INTX = 0;
export const IRQ_MSI = 1;
export const IRQ_MSIX = 2;
export const IRQ_COUNT = 5;

export const IRQ_INFO_EVENTFD = 1;
export const IRQ_INFO_MASKABLE = 2;
export const IRQ_INFO_AUTOMASKED = 4;
export const IRQ_INFO_NORESIZE = 8;

export const IRQ_DATA_NONE = 1;
export const IRQ_DATA_BOOL = 2;
export const IRQ_DATA_EVENTFD = 4;
export const IRQ_DATA_MASK = 7;
export const IRQ_ACTION_MASK = 8;
export const IRQ_ACTION_UNMASK = 16;
export const IRQ_ACTION_TRIGGER = 32;
export const IRQ_ACTIONS = 56;

export const FEATURE_INDEX_MASK = 0xffff;
export const FEATURE_GET = 1 << 16;
export const FEATURE_SET = 1 << 17;
export const FEATURE_PROBE = 1 << 18;

// Fixed payload sizes.
export const DMA_MAP_BYTES = 32;
export const DMA_UNMAP_BYTES = 24;
export const DEVICE_INFO_BYTES = 16;
export const REGION_INFO_BYTES = 32;
export const REGION_IO_FDS_BYTES = 16;
export const IRQ_INFO_BYTES = 16;
export const IRQ_SET_BYTES = 20;
export const REGION_ACCESS_BYTES = 16;
export const DMA_ACCESS_BYTES = 16;
export const WRITE_MULTI_BYTES = 8;
export const WRITE_MULTI_ENTRY_BYTES = 24;
export const FEATURE_BYTES = 8;

/** Linux errno numbers that replies carry. */
export const EIO = 5;
export const E2BIG = 7;
export const EACCES = 13;
export const EEXIST = 17;
export const EINVAL = 22;
export const ENOTTY = 25;
export const ENOSPC = 28;
export const ENOENT = 2;
export const EOPNOTSUPP = 95;

/** A u64 at `at`; inexact, but still enormous, from 2^53 on. */
export function u64(view: DataView, at: number): number {
  return view.getUint32(at, true) + view.getUint32(at + 4, true) * 2 ** 32;
}

export function putU64(view: DataView, at: number, value: number): void {
  view.setUint32(at, value % 2 ** 32, true);
  view.setUint32(at + 4, Math.floor(value / 2 ** 32), true);
}
