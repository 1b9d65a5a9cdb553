/**
 * The saved state of a virtio network device as plain JSON, and the check of such a state, which is as untrusted as a guest: shape and ranges here, features and
 * queue layouts by the same rules as live registers (virtio/pci.ts).
 *
 * Buffers fetched ahead by receivers have gone back to the ring. Chains whose frames others hold are used when the queue goes on in the restored device: the frames are on their
 * way. Frames that wait for the port are saved as bytes.
 */

import { MAX_FRAME_BYTES } from '../../core/pool.ts';
import type { TransportState } from '../../virtio/pci.ts';
import { StateCheck } from '../saved-state.ts';
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

function pair(check: StateCheck, value: unknown, where: string): [number, number] {
  const [low, high] = check.integers(value, where, 2, 0, U32);
  return [low, high];
}

function parseTransport(check: StateCheck, value: unknown, queues: number): TransportState {
  const t = check.object(value, 'transport');
  const [device, driver, queue] = check.integers(t.selects, 'transport.selects', 3, 0, U32);
  let msix: TransportState['msix'] = null;
  if (t.msix !== null) {
    const m = check.object(t.msix, 'transport.msix');
    const words = (item: unknown): number => check.integer(item, 'transport.msix', -(2 ** 31), 2 ** 31 - 1);
    msix = {
      table: check.list(m.table, 'transport.msix', 0, 4 * 2048).map(words),
      pending: check.list(m.pending, 'transport.msix', 0, 64).map(words),
    };
  }
  return {
    status: check.integer(t.status, 'transport.status', 0, 255),
    isr: check.integer(t.isr, 'transport.isr', 0, 3),
    generation: check.integer(t.generation, 'transport.generation', 0, 255),
    selects: [device, driver, queue],
    offered: pair(check, t.offered, 'transport.offered'),
    accepted: pair(check, t.accepted, 'transport.accepted'),
    configVector: check.integer(t.configVector, 'transport.configVector', 0, 0xffff),
    msix,
    queues: check.list(t.queues, 'transport.queues', queues, queues).map((item) => {
      const q = check.object(item, 'transport.queues');
      let position: TransportState['queues'][number]['position'] = null;
      if (q.position !== null) {
        const p = check.object(q.position, 'transport.queues.position');
        position = {
          avail: check.integer(p.avail, 'transport.queues.position', 0, 0xffff),
          used: check.integer(p.used, 'transport.queues.position', 0, 0xffff),
        };
      }
      return {
        size: check.integer(q.size, 'transport.queues.size', 0, U32),
        vector: check.integer(q.vector, 'transport.queues.vector', 0, 0xffff),
        addresses: check.integers(q.addresses, 'transport.queues.addresses', 6, 0, U32),
        page: check.integer(q.page, 'transport.queues.page', 0, U32),
        position,
      };
    }),
  };
}

function parseModes(check: StateCheck, value: unknown): SavedModes {
  const m = check.object(value, 'modes');
  const macs = (item: unknown): string => {
    if (typeof item !== 'string' || !MAC.test(item)) check.fail('modes.table');
    return item;
  };
  const unicast = check.list(m.unicast, 'modes.unicast', 0, MAC_TABLE_ENTRIES).map(macs);
  return {
    modes: check.list(m.modes, 'modes.modes', 6, 6).map((item) => check.boolean(item, 'modes.modes')),
    mac: check.integers(m.mac, 'modes.mac', 6, 0, 255),
    unicast,
    multicast: check.list(m.multicast, 'modes.multicast', 0, MAC_TABLE_ENTRIES - unicast.length).map(macs),
    unicastOverflow: check.boolean(m.unicastOverflow, 'modes.unicastOverflow'),
    multicastOverflow: check.boolean(m.multicastOverflow, 'modes.multicastOverflow'),
    vlans: check
      .list(m.vlans, 'modes.vlans', 0, 4096)
      .map((item) => check.integer(item, 'modes.vlans', 0, 4095)),
  };
}

function parseSteering(check: StateCheck, value: unknown, pairsMax: number): SavedSteering {
  const s = check.object(value, 'steering');
  const table = check
    .list(s.table, 'steering.table', 1, RSS_TABLE_MAX)
    .map((item) => check.integer(item, 'steering.table', 0, pairsMax - 1));
  if ((table.length & (table.length - 1)) !== 0) check.fail('steering.table');
  return {
    pairs: check.integer(s.pairs, 'steering.pairs', 1, pairsMax),
    rss: check.boolean(s.rss, 'steering.rss'),
    hashTypes: check.integer(s.hashTypes, 'steering.hashTypes', 0, HASH_TYPES),
    key: check.integers(s.key, 'steering.key', RSS_KEY_MAX_BYTES, 0, 255),
    table,
    unclassified: check.integer(s.unclassified, 'steering.unclassified', 0, pairsMax - 1),
  };
}

function parseTx(check: StateCheck, value: unknown): SavedTx {
  const tx = check.object(value, 'tx');
  return {
    lent: check.list(tx.lent, 'tx.lent', 0, RING_MAX).map((item) => {
      const [id, slots] = check.list(item, 'tx.lent', 2, 2);
      return [check.integer(id, 'tx.lent', 0, 0xffff), check.integer(slots, 'tx.lent', 1, RING_MAX)];
    }),
    frames: check.list(tx.frames, 'tx.frames', 0, FRAMES_MAX).map((item) => {
      const frame = check.object(item, 'tx.frames');
      const { bytes } = frame;
      if (
        typeof bytes !== 'string' ||
        bytes.length > 2 * MAX_FRAME_BYTES ||
        bytes.length < 28 ||
        !HEX.test(bytes)
      )
        check.fail('tx.frames.bytes');
      return {
        id: check.integer(frame.id, 'tx.frames.id', 0, 0xffff),
        slots: check.integer(frame.slots, 'tx.frames.slots', 1, RING_MAX),
        bytes,
        facts: check.integers(frame.facts, 'tx.frames.facts', FACT_WORDS, 0, 0xffff),
      };
    }),
  };
}

/** The state, or an OptionError that names the field at fault. */
export function parseState(
  value: unknown,
  shape: { configBytes: number; queues: number; pairs: number },
): VirtioNetState {
  const check = new StateCheck('virtio-net');
  const state = check.object(value, 'state');
  if (state.model !== 'virtio-net') check.fail('model');
  if (state.version !== 1) check.fail('version');
  return {
    model: 'virtio-net',
    version: 1,
    config: check.integers(state.config, 'config', shape.configBytes, 0, 255),
    transport: parseTransport(check, state.transport, shape.queues),
    modes: parseModes(check, state.modes),
    steering: parseSteering(check, state.steering, shape.pairs),
    guestOffloads: pair(check, state.guestOffloads, 'guestOffloads'),
    coalesce: check.integers(state.coalesce, 'coalesce', 4, 0, U32),
    announce: check.boolean(state.announce, 'announce'),
    tx: check.list(state.tx, 'tx', shape.pairs, shape.pairs).map((item) => parseTx(check, item)),
  };
}
