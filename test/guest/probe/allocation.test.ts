/**
 * The budget "no allocation per frame" of the probe's own code, counted by V8's sampling heap profiler: what functions of src/guest/probe
 * allocate while thousands of frames pass. (Clock readings and other modules' boxed numbers are theirs.)
 */
import { type HeapProfiler, Session } from 'node:inspector/promises';
import { expect, test } from 'vitest';
import { Port } from '../../../src/core/port.ts';
import type { Connection } from '../../../src/tcp/connection.ts';
import { type Station, World } from './pair.ts';

const WARM_UP = 2;
/** A profile of this run sees an object in every so many bytes. */
const INTERVAL_BYTES = 256;

/** Bytes allocated by functions of the probe during `run`, by the profiler's estimate. */
async function allocatedByProbe(run: () => void): Promise<number> {
  const session = new Session();
  session.connect();
  await session.post('HeapProfiler.enable');
  await session.post('HeapProfiler.startSampling', {
    samplingInterval: INTERVAL_BYTES,
    includeObjectsCollectedByMajorGC: true,
    includeObjectsCollectedByMinorGC: true,
  });
  run();
  const { profile } = await session.post('HeapProfiler.stopSampling');
  session.disconnect();
  let sum = 0;
  // What a builtin allocates (a view, an array) is its caller's.
  const walk = (node: HeapProfiler.SamplingHeapProfileNode, caller: string): void => {
    const url = node.callFrame.url === '' ? caller : node.callFrame.url;
    if (url.includes('/src/guest/probe/')) sum += node.selfSize;
    for (const child of node.children) walk(child, url);
  };
  walk(profile.head, '');
  return sum;
}

function pair(): { world: World; server: Station; client: Station; remote: Uint8Array } {
  const world = new World();
  const server = world.station('probe,echo=7,http=80');
  const client = world.station('probe');
  Port.connect(server.port, client.port);
  server.probe.start();
  client.probe.start();
  world.run(20);
  const remote = new Uint8Array(4);
  new DataView(remote.buffer).setUint32(0, server.probe.host.ipv4.address);
  return { world, server, client, remote };
}

test('UDP echo: nothing per datagram', async () => {
  const { world, client, remote } = pair();
  const { udp } = client.probe.host;
  let received = 0;
  const port = udp.open(0, {
    datagram() {
      received++;
    },
  });
  const run = (): void => {
    for (let burst = 0; burst < 300; burst++) {
      for (let i = 0; i < 32; i++) {
        if (udp.begin(4, remote, 0, port, 7) >= 0) udp.end(1000);
      }
      world.run(0.001);
    }
  };
  for (let i = 0; i < WARM_UP; i++) run();
  const before = received;
  const bytes = await allocatedByProbe(run);
  expect(received - before).toBe(9600);
  expect(bytes / (received - before)).toBeLessThan(4);
  world.close();
});

test('TCP, receiving and sending: nothing per segment', async () => {
  const { world, server, client, remote } = pair();
  let bytes = 0;
  client.probe.host.tcp.open(remote, 80, {
    failed() {},
    established: (connection: Connection) => {
      const request = new TextEncoder().encode('GET /bytes/900000000 HTTP/1.1\r\nHost: x\r\n\r\n');
      connection.write(request, 0, request.length);
    },
    sendReady() {},
    deliver: (connection, frames, from, to, skip) => {
      let taken = -skip;
      for (let i = from; i < to; i++) taken += connection.stack.pool.table[frames[i] + 2];
      bytes += taken;
      return taken;
    },
    peerClosed() {},
    closed() {},
  });
  const run = (): void => {
    for (const end = bytes + 10e6; bytes < end; ) {
      const before = bytes;
      world.loop.run();
      if (bytes === before && world.loop.nextNs > 0) world.run(0.0001);
    }
  };
  for (let i = 0; i < WARM_UP; i++) run();
  const frames = client.probe.host.stats.rxFrames;
  const allocated = await allocatedByProbe(run);
  const passed = client.probe.host.stats.rxFrames - frames;
  expect(passed).toBeGreaterThan(5000);
  expect(allocated / passed).toBeLessThan(4);
  expect(server.nic.stats.txSegmentations).toBeGreaterThan(0);
  world.close();
});
