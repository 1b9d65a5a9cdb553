/**
 * Version negotiation: the client proposes 0.x and says in JSON what it can take; we answer 0.0 with our own limits, for what it named.
 * Twin sockets (requests of ours on a second socket) are not offered.
 */

import { MAJOR, MAX_DMA_MAPS, MAX_MESSAGE_FDS, MAX_TRANSFER_BYTES, PAGE_BYTES } from './protocol.ts';

export interface Agreement {
  /** The JSON of our reply with its NUL, or nothing when the client sent none. */
  data: Uint8Array;
  /** The most bytes that one transfer message to the client may carry. */
  transferBytes: number;
}

const DEFAULT_TRANSFER_BYTES = 1 << 20;
/** No sane client says more about itself. */
const DATA_LIMIT_BYTES = 4096;

const OURS: Readonly<Record<string, number | boolean>> = {
  max_msg_fds: MAX_MESSAGE_FDS,
  max_data_xfer_size: MAX_TRANSFER_BYTES,
  max_dma_maps: MAX_DMA_MAPS,
  pgsizes: PAGE_BYTES,
  write_multiple: true,
};

/** What we answer to the proposal in [from, to); null when it cannot be accepted. */
export function acceptVersion(view: DataView, from: number, to: number): Agreement | null {
  if (view.getUint16(from, true) !== MAJOR) return null;
  const length = to - from - 4;
  if (length === 0) return { data: new Uint8Array(0), transferBytes: DEFAULT_TRANSFER_BYTES };
  if (length > DATA_LIMIT_BYTES) return null;
  const proposed = readCapabilities(new Uint8Array(view.buffer, view.byteOffset + from + 4, length));
  if (proposed === null) return null;
  const limit = proposed.max_data_xfer_size ?? DEFAULT_TRANSFER_BYTES;
  if (typeof limit !== 'number' || !(limit >= PAGE_BYTES)) return null;
  const capabilities = Object.fromEntries(Object.entries(OURS).filter(([name]) => name in proposed));
  return {
    data: new TextEncoder().encode(`${JSON.stringify({ capabilities })}\0`),
    transferBytes: Math.min(Math.floor(limit), MAX_TRANSFER_BYTES),
  };
}

/** The `capabilities` object, empty when there is none; null when the text is not JSON of that shape. */
function readCapabilities(text: Uint8Array): Record<string, unknown> | null {
  const end = text.indexOf(0);
  let parsed: unknown;
  try {
    parsed = JSON.parse(
      new TextDecoder('utf-8', { fatal: true }).decode(end < 0 ? text : text.subarray(0, end)),
    );
  } catch {
    return null;
  }
  if (!isObject(parsed)) return null;
  const capabilities = parsed.capabilities ?? {};
  return isObject(capabilities) ? capabilities : null;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
