/** filter-hook: verdicts on flows and frames, what a hook that fails does, and modules from files. */

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { silentLogger } from '../../../src/core/log.ts';
import { CSUM_OFFSET, CSUM_START, FACT_NEEDS_CSUM, FACTS } from '../../../src/core/pool.ts';
import { ACCEPT_ALL, Port } from '../../../src/core/port.ts';
import { loadHookModule } from '../../../src/host-io/hook-module.ts';
import { FilterChain } from '../../../src/link/filter/filter.ts';
import { type Hook, HookFilter, type HookFlow } from '../../../src/link/filter/hook.ts';
import { portClientSuite } from '../../conformance/port-client.ts';
import { behindFilter } from '../../lib/behind-filter.ts';
import { expectNothingHeld, packet, RecordingClient, tags, testContext } from '../../lib/context.ts';

function open(hook: Hook) {
  const context = testContext();
  const near = new RecordingClient(context, 'near', 'nic');
  const far = new RecordingClient(context, 'far');
  Port.connect(near.port, far.port);
  const chain = new FilterChain(far.port);
  const filter = new HookFilter(
    { id: 'h', direction: 'all', netdev: 'n', config: 'text' },
    { ...context, log: silentLogger },
    { createHook: () => hook },
  );
  chain.insert(filter, 'tail');
  const close = (): void => {
    chain.remove(filter);
    filter.close();
    near.close();
    far.close();
    expectNothingHeld(context);
  };
  return { context, near, far, filter, close };
}

/** An IPv4 UDP frame, or with `tagged` the same behind a VLAN tag. */
function udp(tag: number, sourcePort: number, tagged = false): Uint8Array {
  const tail = [0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 2, 15, 10, 0, 2, 2];
  const ports = [sourcePort >> 8, sourcePort & 0xff, 0, 53, 0, 8, 0, 0, tag];
  const type = tagged ? [0x81, 0, 0, 5, 8, 0] : [8, 0];
  const bytes = new Uint8Array(64);
  bytes.set([...packet(0).subarray(0, 12), ...type, ...tail, ...ports]);
  return bytes;
}

describe('filter-hook', () => {
  it('asks once for each flow and direction, and tells what it is', () => {
    const flows: HookFlow[] = [];
    const { near, far, filter, close } = open({
      flow: (flow) => {
        flows.push(flow);
        return flow.sourcePort === 2000 ? 'drop' : 'pass';
      },
    });
    near.send(udp(1, 1000), udp(2, 2000), udp(3, 1000), udp(4, 1000, true), packet(5));
    far.send(udp(6, 1000));
    expect(far.received).toHaveLength(4);
    expect(near.received).toHaveLength(1);
    const ip = {
      etherType: 0x800,
      protocol: 17,
      source: '10.0.2.15',
      destination: '10.0.2.2',
      destinationPort: 53,
    };
    expect(flows).toEqual([
      { direction: 'rx', ...ip, sourcePort: 1000 },
      { direction: 'rx', ...ip, sourcePort: 2000 },
      expect.objectContaining({ direction: 'rx', etherType: 0x88b5, protocol: undefined }),
      { direction: 'tx', ...ip, sourcePort: 1000 },
    ]);
    expect(filter.stats).toMatchObject({ passed: 5, dropHook: 1, flowsSeen: 4 });
    close();
  });

  it('looks at frames, drops and changes them', () => {
    const { near, far, close } = open({
      frame: ({ bytes }) => {
        if (bytes[14] === 2) return 'drop';
        if (bytes[14] !== 3) return 'pass';
        bytes[14] = 30;
        return bytes;
      },
    });
    near.send(packet(1), packet(2), packet(3), packet(4));
    expect(tags(far.received)).toEqual([1, 30, 4]);
    close();
  });

  it('leaves a checksum that is still to be completed to who completes it', () => {
    const { context, near, far, close } = open({ frame: ({ bytes }) => bytes });
    far.port.accepts = ACCEPT_ALL;
    const { pool } = context;
    const frame = pool.from(packet(1));
    pool.table[frame + FACTS] = FACT_NEEDS_CSUM;
    pool.table[frame + CSUM_START] = 34;
    pool.table[frame + CSUM_OFFSET] = 6;
    let facts = -1;
    far.onReceive = (frames, from) => {
      facts = pool.table[frames[from]! + FACTS]!;
    };
    near.port.send(Int32Array.of(frame), 0, 1);
    expect(facts).toBe(FACT_NEEDS_CSUM);
    close();
  });

  it('drops what a failing hook was asked about', () => {
    const { near, far, filter, close } = open({
      frame: () => {
        throw new Error('a bug');
      },
      close: () => {
        throw new Error('another');
      },
    });
    near.send(packet(1), packet(2));
    expect(far.received).toEqual([]);
    expect(filter.stats.dropHookFailed).toBe(2);
    close();
  });

  it('remembers no more than 4,096 flows', () => {
    let asked = 0;
    const { near, close } = open({
      flow: () => {
        asked++;
        return 'drop';
      },
    });
    for (let port = 1; port <= 5000; port++) near.send(udp(0, port));
    near.send(udp(0, 5000));
    expect(asked).toBe(5000);
    near.send(udp(0, 1));
    expect(asked).toBe(5001);
    close();
  });

  it('waits for a far end that refuses, and asks about no frame twice', () => {
    let asked = 0;
    const { near, far, close } = open({
      frame: () => {
        asked++;
        return 'pass';
      },
    });
    far.room = 1;
    near.send(packet(1), packet(2), packet(3));
    far.allow(10);
    expect(tags(far.received)).toEqual([1, 2, 3]);
    expect(asked).toBe(3);
    close();
  });

  it('is loaded from a file, or refused with the reason', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'netemu-hook-'));
    const good = join(folder, 'good.mjs');
    writeFileSync(good, 'export const createHook = ({ config }) => ({ flow: () => config });');
    const module = await loadHookModule(good);
    expect(
      module.createHook({ config: 'drop', netdev: 'n', log: silentLogger, nowNs: () => 0 }).flow!(
        {} as HookFlow,
      ),
    ).toBe('drop');
    const empty = join(folder, 'empty.mjs');
    writeFileSync(empty, '');
    await expect(loadHookModule(empty)).rejects.toThrow(`'${empty}' does not export createHook`);
    await expect(loadHookModule(join(folder, 'none.mjs'))).rejects.toThrow('could not load');
    rmSync(folder, { recursive: true });
  });

  portClientSuite('a client behind filter-hook', (context) => {
    const filter = new HookFilter(
      { id: 'h', direction: 'all', netdev: 'n', config: '' },
      { ...context, log: silentLogger },
      { createHook: () => ({ frame: () => 'pass' }) },
    );
    return behindFilter(context, filter);
  });
});
