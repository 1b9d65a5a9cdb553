/** What shows only in a process or a thread of its own: its end, its limits, its signals. */

import { execFileSync, spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import { describe, expect, it } from 'vitest';
import { UnsupportedError } from '../../src/core/errors.ts';
import { createHostIo } from '../../src/host-io/index.ts';
import { createNativeHostIo } from '../../src/host-io/native.ts';
import { createPortableHostIo } from '../../src/host-io/portable/index.ts';
import { descriptorsSince, Lab, LOOPBACK, openDescriptors, pattern, turn } from './lab.ts';

function program(name: string): string {
  return fileURLToPath(new URL(`./programs/${name}.ts`, import.meta.url));
}

describe('a process', () => {
  it.each(['native', 'portable'])('ends by itself when all is closed (%s)', (implementation) => {
    const args = ['--import', 'tsx', program('natural-exit'), implementation];
    expect(execFileSync(process.execPath, args, { encoding: 'utf8', timeout: 30_000 })).toBe('closed\n');
  });

  it('hardening: without descriptors, accept says so once and does not spin, and goes on when one is free', () => {
    const command = `ulimit -n 60 && exec "$0" --import tsx "$1"`;
    const output = execFileSync('sh', ['-c', command, process.execPath, program('fd-exhaustion')], {
      encoding: 'utf8',
      timeout: 30_000,
    });
    // -EMFILE; told once in all that time; then accepted.
    expect(JSON.parse(output)).toEqual([-24, 1, 1]);
  });

  it("still dies of a SIGBUS that is nobody's mapping", () => {
    const script = `
      const { createNativeHostIo } = await import('./src/host-io/native.ts');
      const host = createNativeHostIo();
      host.map(host.memoryFd('guarded', 4096), 0, 4096);
      process.kill(process.pid, 'SIGBUS');
      setTimeout(() => {}, 1000);`;
    const { signal } = spawnSync(process.execPath, ['--import', 'tsx', '--input-type=module', '-e', script], {
      cwd: fileURLToPath(new URL('../..', import.meta.url)),
      timeout: 30_000,
    });
    expect(signal).toBe('SIGBUS');
  });
});

describe('a worker thread', () => {
  it('has a host of its own, whose descriptors go when it is terminated', async () => {
    const lab = new Lab(() => createNativeHostIo());
    for (let round = 0; round < 3; round++) {
      const load = `require('tsx/cjs/api').register(); require(process.argv[2]);`;
      const worker = new Worker(load, { eval: true, argv: [program('worker')] });
      const port = await new Promise<number>((resolve, reject) => {
        worker.once('message', resolve);
        worker.once('error', reject);
      });
      const socket = lab.host.udpOpen({ local: LOOPBACK, remote: { address: '127.0.0.1', port } });
      const sent = lab.frames(...Array.from({ length: 10 }, (_, i) => pattern(50 + i)));
      await lab.sendDatagrams(socket, sent);
      const got = lab.slots(10);
      await lab.receiveDatagrams(socket, got);
      expect(lab.bytesOf(got[9]!)).toEqual(pattern(59));
      await worker.terminate();
      lab.host.close(socket);
      lab.release(sent, got);
    }
    await lab.end();
  });
});

describe('the choice', () => {
  it('is native where it can be, and otherwise what is asked for', () => {
    for (const [asked, got] of [
      ['auto', 'native'],
      ['native', 'native'],
      ['portable', 'portable'],
    ] as const) {
      const host = createHostIo({ implementation: asked });
      expect(host.implementation).toBe(got);
      host.shutdown();
    }
    const host = createHostIo();
    expect(host.implementation).toBe('native');
    host.shutdown();
  });

  it('of portable host I/O says clearly what needs the addon', async () => {
    const before = openDescriptors();
    const host = createPortableHostIo();
    const calls: (() => unknown)[] = [
      () => host.unixDatagramOpen({}),
      () => host.tapOpen({}),
      () => host.tapOffloads(1, 0),
      () => host.readFrames(1, new Int32Array(1), 0, 1),
      () => host.writeFrames(1, new Int32Array(1), 0, 1),
      () => host.adopt(0),
      () => host.fdOf(1),
      () => host.socketPair(),
      () => host.sendWithFds(1, new Uint8Array(1), []),
      () => host.receiveWithFds(1, new Uint8Array(1), 1),
      () => host.eventFd(),
      () => host.signal(1),
      () => host.drain(1),
      () => host.waitReady(1, 1, 0),
      () => host.memoryFd('x', 1),
      () => host.map(1, 0, 1),
      () => host.unmap(new Uint8Array(1)),
      () => host.rawIpOpen(4, 115, { local: '127.0.0.1' }),
    ];
    for (const call of calls) {
      expect(call).toThrow(UnsupportedError);
      expect(call).toThrow(/native addon/);
    }
    host.shutdown();
    await turn();
    expect(descriptorsSince(before)).toEqual([]);
  });
});
