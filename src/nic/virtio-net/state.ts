/**
 * The saved state of a virtio network device as plain JSON, and the check of such a state, which is as untrusted as a guest: shape and ranges here, features and
 * queue layouts by the same rules as live registers (virtio/pci.ts).
 *
 * Buffers fetched ahead by receivers have gone back to the ring. Chains whose frames others hold are used when the queue goes on in the restored device: the frames are on their
 * way. Frames that wait for the port are saved as bytes.
 */

import { OptionError } from '../../core/errors.ts';
import { MAX_FRAME_BYTES } from '../../core/pool.ts';
import type { TransportState } from '../../virtio/pci.ts';
import { MAC_TABLE_ENTRIES, type SavedModes } from './modes.ts';
import { HASH_TYPES, RSS_KEY_MAX_BYTES, RSS_TABLE_MAX, type SavedSteering } from './steering.ts';
import type { SavedTx } from './tx.ts';

export interface VirtioNetState {
  model: 'virtio-net';
  version: 1;
  config: number[];
  transport: TransportState;
  modes: SavedModes;
  steering: SavedSteering;
  /** Guest offloads in force, as two words. */
  guestOffloads: [number, number];
  /** Largest delay in ns and packets: transmit, receive. */
  coalesce: number[];
  announce: boolean;
  tx: SavedTx[];
}

const U32 = 2 ** 32 - 1;
const FACT_WORDS = 5;
const FRAMES_MAX = 64;
const RING_MAX = 32_768;
const HEX = /^([0-9a-f]{2})*$/;
const MAC = /^([0-9a-f]{2}:){5}[0-9a-f]{2}$/;

function fail(where: string): never {
  throw new OptionError(`virtio-net state: '${where}' is missing or out of range`);
}

function object(value: unknown, where: string): Record<string, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) fail(where);
  return value as Record<string, unknown>;
}

function integer(value: unknown, where: string, max: number, min = 0): number {
  if (typeof value !== 'number' || !Number.isInteger(value) || value < min || value > max) fail(where);
  return value;
}

function boolean(value: unknown, where: string): boolean {
  if (typeof value !== 'boolean') fail(where);
  return value;
}

function list(value: unknown, where: string, lengthMax: number, lengthMin = 0): unknown[] {
  if (!Array.isArray(value) || value.length < lengthMin || value.length > lengthMax) fail(where);
  return value;
}

function integers(value: unknown, where: string, length: number, max: number, min = 0): number[] {
  return list(value, where, length, length).map((item) => integer(item, where, max, min));
}

function pair(value: unknown, where: string): [number, number] {
  const [low, high] = integers(value, where, 2, U32);
  return [low, high];
}

function parseTransport(value: unknown, queues: number): TransportState {
  const t = object(value, 'transport');
  const [device, driver, queue] = integers(t.selects, 'transport.selects', 3, U32);
  let msix: TransportState['msix'] = null;
  if (t.msix !== null) {
    const m = object(t.msix, 'transport.msix');
    const words = (item: unknown): number => integer(item, 'transport.msix', 2 ** 31 - 1, -(2 ** 31));
    msix = {
      table: list(m.table, 'transport.msix', 4 * 2048).map(words),
      pending: list(m.pending, 'transport.msix', 64).map(words),
    };
  }
  return {
    status: integer(t.status, 'transport.status', 255),
    isr: integer(t.isr, 'transport.isr', 3),
    generation: integer(t.generation, 'transport.generation', 255),
    selects: [device, driver, queue],
    offered: pair(t.offered, 'transport.offered'),
    accepted: pair(t.accepted, 'transport.accepted'),
    configVector: integer(t.configVector, 'transport.configVector', 0xffff),
    msix,
    queues: list(t.queues, 'transport.queues', queues, queues).map((item) => {
      const q = object(item, 'transport.queues');
      let position: TransportState['queues'][number]['position'] = null;
      if (q.position !== null) {
        const p = object(q.position, 'transport.queues.position');
        position = {
          avail: integer(p.avail, 'transport.queues.position', 0xffff),
          used: integer(p.used, 'transport.queues.position', 0xffff),
        };
      }
      return {
        size: integer(q.size, 'transport.queues.size', U32),
        vector: integer(q.vector, 'transport.queues.vector', 0xffff),
        addresses: integers(q.addresses, 'transport.queues.addresses', 6, U32),
        page: integer(q.page, 'transport.queues.page', U32),
        position,
      };
    }),
  };
}

function parseModes(value: unknown): SavedModes {
  const m = object(value, 'modes');
  const macs = (item: unknown): string => {
    if (typeof item !== 'string' || !MAC.test(item)) fail('modes.table');
    return item;
  };
  const unicast = list(m.unicast, 'modes.unicast', MAC_TABLE_ENTRIES).map(macs);
  return {
    modes: list(m.modes, 'modes.modes', 6, 6).map((item) => boolean(item, 'modes.modes')),
    mac: integers(m.mac, 'modes.mac', 6, 255),
    unicast,
    multicast: list(m.multicast, 'modes.multicast', MAC_TABLE_ENTRIES - unicast.length).map(macs),
    unicastOverflow: boolean(m.unicastOverflow, 'modes.unicastOverflow'),
    multicastOverflow: boolean(m.multicastOverflow, 'modes.multicastOverflow'),
    vlans: list(m.vlans, 'modes.vlans', 4096).map((item) => integer(item, 'modes.vlans', 4095)),
  };
}

function parseSteering(value: unknown, pairsMax: number): SavedSteering {
  const s = object(value, 'steering');
  const table = list(s.table, 'steering.table', RSS_TABLE_MAX, 1).map((item) =>
    integer(item, 'steering.table', pairsMax - 1),
  );
  if ((table.length & (table.length - 1)) !== 0) fail('steering.table');
  return {
    pairs: integer(s.pairs, 'steering.pairs', pairsMax, 1),
    rss: boolean(s.rss, 'steering.rss'),
    hashTypes: integer(s.hashTypes, 'steering.hashTypes', HASH_TYPES),
    key: integers(s.key, 'steering.key', RSS_KEY_MAX_BYTES, 255),
    table,
    unclassified: integer(s.unclassified, 'steering.unclassified', pairsMax - 1),
  };
}

function parseTx(value: unknown): SavedTx {
  const tx = object(value, 'tx');
  return {
    lent: list(tx.lent, 'tx.lent', RING_MAX).map((item) => {
      const [id, slots] = list(item, 'tx.lent', 2, 2);
      return [integer(id, 'tx.lent', 0xffff), integer(slots, 'tx.lent', RING_MAX, 1)];
    }),
    frames: list(tx.frames, 'tx.frames', FRAMES_MAX).map((item) => {
      const frame = object(item, 'tx.frames');
      const { bytes } = frame;
      if (
        typeof bytes !== 'string' ||
        bytes.length > 2 * MAX_FRAME_BYTES ||
        bytes.length < 28 ||
        !HEX.test(bytes)
      )
        fail('tx.frames.bytes');
      return {
        id: integer(frame.id, 'tx.frames.id', 0xffff),
        slots: integer(frame.slots, 'tx.frames.slots', RING_MAX, 1),
        bytes,
        facts: integers(frame.facts, 'tx.frames.facts', FACT_WORDS, 0xffff),
      };
    }),
  };
}

/** The state, or an OptionError that names the field at fault. */
export function parseState(
  value: unknown,
  shape: { configBytes: number; queues: number; pairs: number },
): VirtioNetState {
  const state = object(value, 'state');
  if (state.model !== 'virtio-net') fail('model');
  if (state.version !== 1) fail('version');
  return {
    model: 'virtio-net',
    version: 1,
    config: integers(state.config, 'config', shape.configBytes, 255),
    transport: parseTransport(state.transport, shape.queues),
    modes: parseModes(state.modes),
    steering: parseSteering(state.steering, shape.pairs),
    guestOffloads: pair(state.guestOffloads, 'guestOffloads'),
    coalesce: integers(state.coalesce, 'coalesce', 4, U32),
    announce: boolean(state.announce, 'announce'),
    tx: list(state.tx, 'tx', shape.pairs, shape.pairs).map(parseTx),
  };
}
