/** A filter's options as they are in force, under the names and in the units that users write: for the object tree and `info network`. */

import type { FilterCommon } from './filter-common.ts';
import type { ObjectConfig } from './index.ts';

export type ShownOptions = Readonly<Record<string, string | number | boolean | bigint>>;

/** What only this type has, then what all filters have. Options that were not given and have no default are left out. */
export function objectOptions(config: ObjectConfig): ShownOptions {
  return { ...ownOptions(config), ...('netdev' in config ? commonOptions(config) : {}) };
}

function commonOptions({ netdev, queue, status, position }: FilterCommon): ShownOptions {
  const beside = 'filter' in position;
  return {
    position: beside ? `id=${position.filter}` : position.at,
    status,
    insert: beside ? position.at : 'behind',
    netdev,
    queue,
  };
}

function ownOptions(config: ObjectConfig): ShownOptions {
  switch (config.type) {
    case 'filter-dump':
      return { file: config.file, maxlen: config.maxBytes, format: config.format };
    case 'filter-buffer':
      return { interval: config.intervalNs / 1000 };
    case 'filter-mirror':
      return { outdev: config.outdev, vnet_hdr_support: config.vnetHdr };
    case 'filter-redirector':
      return {
        ...(config.indev !== undefined && { indev: config.indev }),
        ...(config.outdev !== undefined && { outdev: config.outdev }),
        vnet_hdr_support: config.vnetHdr,
      };
    case 'filter-rewriter':
      return { vnet_hdr_support: config.vnetHdr };
    case 'filter-replay':
      return { rr: config.mode, ...(config.mode !== 'none' && { rrfile: config.file }) };
    case 'filter-hook':
      return { module: config.module, config: config.config };
    case 'filter-netem': {
      const { gilbert } = config;
      return {
        delay: time(config.delayNs),
        jitter: time(config.jitterNs),
        distribution: config.distribution,
        loss: percent(config.loss),
        'loss-model': gilbert === undefined ? 'random' : 'gilbert',
        ...(gilbert !== undefined && {
          'gilbert-bad': percent(gilbert.toBad),
          'gilbert-good': percent(gilbert.toGood),
          'gilbert-loss': percent(gilbert.lossInBad),
        }),
        duplicate: percent(config.duplicate),
        reorder: percent(config.reorder),
        corrupt: percent(config.corrupt),
        rate: config.rateBps ?? 0,
        burst: config.burstBytes,
        limit: config.limitFrames,
        seed: config.seed ?? 0n,
      };
    }
    case 'colo-compare':
      return {
        primary_in: config.primaryIn,
        secondary_in: config.secondaryIn,
        outdev: config.outdev,
        iothread: config.iothread,
        vnet_hdr_support: config.vnetHdr,
        ...(config.notifyDev !== undefined && { notify_dev: config.notifyDev }),
        compare_timeout: config.compareTimeoutMs,
        expired_scan_cycle: config.expiredScanCycleMs,
        max_queue_size: config.maxQueueFrames,
      };
    default:
      return {};
  }
}

/** Nanoseconds in the unit that needs no fraction. */
function time(ns: number): string {
  if (ns % 1e6 === 0) return `${ns / 1e6}ms`;
  return `${ns / 1e3}us`;
}

/** Nine digits are what the reader takes. */
function percent(probability: number): number {
  return Number((probability * 100).toFixed(7));
}
