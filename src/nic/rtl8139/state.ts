/**
 * The saved state of an rtl8139 as plain JSON, and the check of such a state.
 *
 * Frames that wait for the port are not in it: their descriptors are still the device's, and are fetched again. Frames that others hold are on their way;
 * their descriptors (`span` tells where each frame begins and how long it is) are completed when the restored NIC runs.
 */

import { EEPROM_SHIFT_FIELDS, EEPROM_WORDS, type SavedEeprom } from '../eeprom-93c46.ts';
import { MII_REGISTERS, type SavedMii } from '../mii.ts';
import { StateCheck } from '../saved-state.ts';
import { REGISTER_BYTES, RING_MAX } from './registers.ts';
import { TALLY_FIELDS } from './stats.ts';

export interface SavedTxRing {
  /** The next descriptor to fetch. */
  index: number;
  /** By descriptor: 1 when its frame is on its way, 3 when it ends the ring too. */
  busy: number[];
  /** By a frame's first descriptor: how many it has. */
  span: number[];
}

export interface SavedTransmitter {
  /** TPPoll bits of rings that are not empty. */
  polled: number;
  classic: { next: number; pending: number };
  /** Normal and high priority. */
  rings: SavedTxRing[];
}

export interface Rtl8139State {
  model: 'rtl8139';
  version: 1;
  chip: '8139c+' | '8139c';
  config: number[];
  registers: number[];
  eeprom: SavedEeprom;
  phy: SavedMii;
  /** TCTR. */
  timerCount: number;
  tally: number[];
  tx: SavedTransmitter;
  /** The next receive descriptor. */
  rxIndex: number;
}

const TIMER_MAX = 2 ** 32 - 1;
const INDEX_MAX = RING_MAX - 1;

/** The state, or an OptionError that names the field at fault. */
export function parseState(value: unknown, configBytes: number, chip: Rtl8139State['chip']): Rtl8139State {
  const check = new StateCheck('rtl8139');
  const state = check.object(value, 'state');
  if (state.model !== 'rtl8139') check.fail('model');
  if (state.version !== 1) check.fail('version');
  if (state.chip !== chip) check.fail('chip');
  const eeprom = check.object(state.eeprom, 'eeprom');
  const phy = check.object(state.phy, 'phy');
  const tx = check.object(state.tx, 'tx');
  const classic = check.object(tx.classic, 'tx.classic');
  return {
    model: 'rtl8139',
    version: 1,
    chip,
    config: check.integers(state.config, 'config', configBytes, 0, 255),
    registers: check.integers(state.registers, 'registers', REGISTER_BYTES, 0, 255),
    eeprom: {
      words: check.integers(eeprom.words, 'eeprom.words', EEPROM_WORDS, 0, 0xffff),
      pins: check.integer(eeprom.pins, 'eeprom.pins', 0, 255),
      shift: check.integers(eeprom.shift, 'eeprom.shift', EEPROM_SHIFT_FIELDS, -1, 0xffff),
    },
    phy: {
      registers: check.integers(phy.registers, 'phy.registers', MII_REGISTERS, 0, 0xffff),
      negotiatingNs: check.finite(phy.negotiatingNs, 'phy.negotiatingNs'),
    },
    timerCount: check.integer(state.timerCount, 'timerCount', 0, TIMER_MAX),
    tally: check.integers(state.tally, 'tally', TALLY_FIELDS, 0, Number.MAX_SAFE_INTEGER),
    tx: {
      polled: check.integer(tx.polled, 'tx.polled', 0, 255),
      classic: {
        next: check.integer(classic.next, 'tx.classic.next', 0, 3),
        pending: check.integer(classic.pending, 'tx.classic.pending', 0, 15),
      },
      rings: check.list(tx.rings, 'tx.rings', 2).map((item) => {
        const ring = check.object(item, 'tx.rings');
        return {
          index: check.integer(ring.index, 'tx.rings.index', 0, INDEX_MAX),
          busy: check.integers(ring.busy, 'tx.rings.busy', RING_MAX, 0, 3),
          span: check.integers(ring.span, 'tx.rings.span', RING_MAX, 0, RING_MAX),
        };
      }),
    },
    rxIndex: check.integer(state.rxIndex, 'rxIndex', 0, INDEX_MAX),
  };
}
