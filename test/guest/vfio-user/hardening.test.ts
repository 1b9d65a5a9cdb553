import { ftruncateSync, openSync, unlinkSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { Handle } from '../../../src/host-io/host-io.ts';
import { Bench, openDescriptors } from './bench.ts';
import { concat, dmaMap, fields, setIrqs, VfioClient } from './client.ts';
import { COPY, FAULT, LENGTH, SEND_MSIX, SOURCE, TARGET } from './device.ts';

let bench: Bench;
beforeEach(() => {
  bench = new Bench();
});
afterEach(() => bench.end());

const EINVAL = 22;
const EEXIST = 17;
const ENOENT = 2;

/** The server still does what it is for. */
async function works(client: VfioClient): Promise<void> {
  await client.write32(0, 0x50, 0x12345678);
  expect(await client.read32(0, 0x50)).toBe(0x12345678);
}

test('hardening 57: a message shorter than its header gets an error reply, and the connection ends', async () => {
  for (const size of [0, 1, 15]) {
    const client = await bench.connect();
    expect(await client.fails(9, fields([0, 8], [0, 4], [4, 4]), { size })).toBe(EINVAL);
    expect(await client.receive()).toBeNull();
  }
  await works(await bench.connect());
});

test('hardening 57: a message longer than any gets an error reply at once, and the connection ends', async () => {
  for (const size of [0xffffffff, 0x80000000, 1 << 21]) {
    const client = await bench.connect();
    expect(await client.fails(9, fields([0, 8], [0, 4], [4, 4]), { size })).toBe(90);
    expect(await client.receive()).toBeNull();
  }
  await works(await bench.connect());
});

test('hardening 57: every command shorter than its structure gets an error reply', async () => {
  const client = await bench.connect();
  const least: Record<number, number> = {
    2: 32,
    3: 24,
    4: 16,
    5: 32,
    6: 16,
    7: 16,
    8: 20,
    9: 16,
    10: 16,
    15: 8,
    16: 8,
  };
  for (const [command, bytes] of Object.entries(least)) {
    for (const length of [0, 1, bytes - 1])
      expect(await client.fails(Number(command), new Uint8Array(length))).toBe(EINVAL);
  }
  await works(client);
});

test('hardening 57: offset and count that leave a region or wrap get an error reply', async () => {
  const client = await bench.connect();
  const top = 0xffffffffffffffffn;
  for (const [offset, count] of [
    [4096, 4],
    [4093, 4],
    [0, 4097],
    [top, 4],
    [top - 3n, 4],
    [0, 0],
    [0, 0xffffffff],
    [1n << 63n, 4],
  ] as const) {
    expect(await client.fails(9, fields([offset, 8], [0, 4], [count, 4]))).toBe(EINVAL);
    expect(await client.fails(10, concat(fields([offset, 8], [0, 4], [count, 4]), new Uint8Array(8)))).toBe(
      EINVAL,
    );
    expect(
      await client.fails(15, concat(fields([1, 8]), fields([offset, 8], [0, 4], [count, 4], [0, 8]))),
    ).toBe(EINVAL);
  }
  for (const region of [3, 6, 8, 9, 0xffffffff])
    expect(await client.fails(9, fields([0, 8], [region, 4], [4, 4]))).toBe(EINVAL);
  expect(await client.fails(9, fields([254, 8], [7, 4], [4, 4]))).toBe(EINVAL);
  expect(bench.device.accesses).toEqual([]);
  await works(client);
});

test('hardening 57: a write that brings fewer bytes than it says, and a list longer than its message', async () => {
  const client = await bench.connect();
  expect(await client.fails(10, concat(fields([0, 8], [0, 4], [8, 4]), new Uint8Array(7)))).toBe(EINVAL);
  const entry = fields([0, 8], [0, 4], [4, 4], [1, 8]);
  for (const count of [2n, 0xffffffffn, 1n << 61n])
    expect(await client.fails(15, concat(fields([count, 8]), entry))).toBe(EINVAL);
  // One bad write of a list leaves all of it undone.
  expect(await client.fails(15, concat(fields([2, 8]), entry, fields([0, 8], [0, 4], [9, 4], [1, 8])))).toBe(
    EINVAL,
  );
  expect(bench.device.accesses).toEqual([]);
  await works(client);
});

test('hardening 57: maps that overlap, wrap, are empty, unaligned or of unknown kind', async () => {
  const client = await bench.connect();
  const ram = bench.clientIo.memoryFd('ram', 1 << 20);
  const map = (...args: Parameters<typeof dmaMap>): Promise<number> =>
    client.fails(2, dmaMap(...args), { fds: [ram] });
  await client.map(0x10000, 0x10000, ram);
  for (const [address, length] of [
    [0x10000, 0x10000],
    [0, 0x11000],
    [0x1f000, 0x1000],
    [0x11000, 0x1000],
    [0, 0x100000],
  ] as const) {
    expect(await map(address, length)).toBe(EEXIST);
    expect(await client.fails(2, dmaMap(address, length))).toBe(EEXIST);
  }
  expect(await map(0x100000, 0)).toBe(EINVAL);
  expect(await map(0x100001, 0x1000)).toBe(EINVAL);
  expect(await map(0x100000, 0x1001)).toBe(EINVAL);
  expect(await map(0x100000, 0x1000, 1)).toBe(EINVAL);
  expect(await map(0x100000, 0x1000, 0, 4)).toBe(EINVAL);
  const wrap = (address: bigint, length: bigint, offset: bigint): Uint8Array =>
    fields([32, 4], [3, 4], [offset, 8], [address, 8], [length, 8]);
  const page = 0x1000n;
  const last = (1n << 64n) - page;
  for (const [address, length, offset] of [
    [last, page * 2n, 0n],
    [last, page, 0n],
    [0x100000n, last, 0n],
    [0x100000n, page, last],
  ] as const) {
    expect(await client.fails(2, wrap(address, length, offset), { fds: [ram] })).toBe(EINVAL);
    expect(await client.fails(2, wrap(address, length, offset))).toBe(EINVAL);
  }
  // Beyond the file's end.
  expect(await map(0x1000000, 0x1000, 1 << 20)).toBe(EINVAL);
  expect(await map(0x1000000, 0x200000)).toBe(EINVAL);
  const unmap = (address: number, length: number, flags = 0): Promise<number> =>
    client.fails(3, fields([24, 4], [flags, 4], [address, 8], [length, 8]));
  expect(await unmap(0x10000, 0x8000)).toBe(ENOENT);
  expect(await unmap(0x18000, 0x8000)).toBe(ENOENT);
  expect(await unmap(0, 0x1000)).toBe(ENOENT);
  expect(await unmap(0x10000, 0x10000, 2)).toBe(EINVAL);
  expect(await unmap(0x10000, 0x10000, 1)).toBe(EINVAL);
  expect(bench.host.memory.ranges.map(({ start, end }) => [start, end])).toEqual([[0x10000, 0x20000]]);
  expect(bench.serverHandles).toBe(3);
  bench.clientIo.close(ram);
  await works(client);
});

test('hardening 57: more maps than we announced are refused, and those there are go on', async () => {
  const client = await bench.connect();
  for (let i = 0; i < 1024; i++) await client.ok(2, dmaMap(i * 0x2000, 0x1000));
  expect(await client.fails(2, dmaMap(0x80000000, 0x1000))).toBe(28);
  await client.unmap(0, 0x1000);
  await client.ok(2, dmaMap(0x80000000, 0x1000));
});

test('hardening 55: descriptors that no command wants, too many, or of the wrong kind are closed', async () => {
  const client = await bench.connect();
  const ram = bench.clientIo.memoryFd('ram', 1 << 20);
  const event = bench.clientIo.eventFd();
  const [end, other] = bench.clientIo.socketPair();
  const fill = (count: number): Handle[] => Array.from({ length: count }, () => event);
  expect(await client.fails(9, fields([0, 8], [0, 4], [4, 4]), { fds: [event] })).toBe(EINVAL);
  expect(await client.fails(1, fields([0, 4]), { fds: [event] })).toBe(EINVAL);
  expect(await client.fails(99, new Uint8Array(0), { fds: fill(3) })).toBe(95);
  expect(await client.fails(2, dmaMap(0, 0x1000), { fds: [ram, ram] })).toBe(EINVAL);
  expect(await client.fails(2, dmaMap(0, 0x1000), { fds: fill(17) })).toBe(EINVAL);
  expect(await client.fails(2, dmaMap(0, 0x1000), { fds: fill(200) })).toBe(EINVAL);
  for (const wrong of [event, end, client.handle])
    expect(await client.fails(2, dmaMap(0, 0x1000), { fds: [wrong] })).toBe(EINVAL);
  const trigger = 32 | 4;
  for (const wrong of [ram, end])
    expect(await client.fails(8, setIrqs(trigger, 2, 0, 1), { fds: [wrong] })).toBe(EINVAL);
  expect(await client.fails(8, setIrqs(trigger, 2, 0, 2), { fds: [event, ram] })).toBe(EINVAL);
  expect(await client.fails(8, setIrqs(trigger, 2, 0, 1), { fds: fill(2) })).toBe(EINVAL);
  expect(await client.fails(8, setIrqs(trigger, 2, 0, 3), { fds: fill(2) })).toBe(EINVAL);
  expect(await client.fails(8, setIrqs(32 | 1, 2, 0, 1), { fds: [event] })).toBe(EINVAL);
  expect(bench.serverHandles).toBe(2);
  bench.clientIo.close(end);
  bench.clientIo.close(other);
  bench.clientIo.close(ram);
  await works(client);
});

test('hardening 55: SET_IRQS with absurd vectors, counts, actions and data', async () => {
  const client = await bench.connect();
  const top = 0xffffffff;
  for (const [flags, index, start, count] of [
    [32 | 4, 2, 4, 1],
    [32 | 4, 2, 0, 5],
    [32 | 4, 2, top, 1],
    [32 | 4, 2, 1, top],
    [32 | 4, 0, 1, 1],
    [32 | 4, 3, 0, 1],
    [32 | 4, 5, 0, 1],
    [32 | 4, top, 0, 1],
    [0, 0, 0, 1],
    [32, 0, 0, 1],
    [4, 0, 0, 1],
    [48 | 4, 0, 0, 1],
    [32 | 6, 0, 0, 1],
    [64 | 32 | 4, 0, 0, 1],
    [32 | 2, 2, 0, 4],
    [32 | 4, 2, 0, 0],
    [16 | 1, 0, 0, 0],
    [32 | 1, 2, 1, 0],
  ] as const) {
    expect(await client.fails(8, setIrqs(flags, index, start, count))).toBe(EINVAL);
  }
  expect(await client.fails(8, setIrqs(8 | 1, 2, 0, 1))).toBe(95);
  expect(await client.fails(8, setIrqs(16 | 1, 1, 0, 1))).toBe(95);
  await works(client);
});

test('the first command must be the version, and only the first', async () => {
  const client = bench.connectRaw();
  expect(await client.fails(9, fields([0, 8], [0, 4], [4, 4]))).toBe(EINVAL);
  expect(await client.fails(2, dmaMap(0, 0x1000))).toBe(EINVAL);
  await client.negotiate();
  expect(await client.fails(1, fields([0, 4]))).toBe(EINVAL);
  await works(client);
});

test('versions and capabilities that cannot be', async () => {
  const client = bench.connectRaw();
  const version = (text: string | Uint8Array, major = 0): Promise<number> =>
    client.fails(
      1,
      concat(fields([major, 2], [0, 2]), typeof text === 'string' ? new TextEncoder().encode(text) : text),
    );
  expect(await version('{}', 1)).toBe(EINVAL);
  for (const text of [
    'x',
    '{',
    '[]',
    '"a"',
    'null',
    '1',
    '{"capabilities":[]}',
    '{"capabilities":1}',
    `${'['.repeat(4000)}`,
  ]) {
    expect(await version(text)).toBe(EINVAL);
  }
  expect(await version(Uint8Array.of(0xff, 0xfe, 0))).toBe(EINVAL);
  expect(await version('{"capabilities":{"max_data_xfer_size":"big"}}')).toBe(EINVAL);
  expect(await version('{"capabilities":{"max_data_xfer_size":0}}')).toBe(EINVAL);
  expect(await version(' '.repeat(5000))).toBe(EINVAL);
  expect(await client.fails(1, Uint8Array.of(0, 0))).toBe(EINVAL);
  await client.negotiate();
  await works(client);
});

test('a reply that nobody asked for is counted and ignored', async () => {
  const client = await bench.connect();
  client.send(11, new Uint8Array(16), { flags: 1 });
  client.send(9, new Uint8Array(16), { flags: 7 });
  await works(client);
  expect(bench.server.wireStats.strayReplies).toBe(2);
});

test('hardening 55: a message cut off by its sender leaves none of its descriptors', async () => {
  const ram = bench.clientIo.memoryFd('ram', 1 << 20);
  for (const length of [1, 15, 16, 20, 47]) {
    const client = await bench.connect();
    client.sendRaw(VfioClient.encode(2, dmaMap(0, 0x1000)).subarray(0, length), [ram]);
    client.close();
  }
  await works(await bench.connect());
  expect(bench.serverHandles).toBe(2);
  expect(bench.host.memory.ranges).toEqual([]);
  bench.clientIo.close(ram);
});

test('hardening 22: the server is closed by what a register write brings about', async () => {
  const client = await bench.connect();
  const ram = bench.clientIo.memoryFd('ram', 1 << 20);
  await client.map(0, 1 << 20, ram);
  bench.device.onWrite = () => bench.server.close();
  client.send(10, concat(fields([0, 8], [0, 4], [4, 4]), fields([1, 4])));
  client.send(9, fields([0, 8], [0, 4], [4, 4]));
  expect(await client.receive()).toBeNull();
  expect(bench.serverHandles).toBe(0);
  expect(bench.device.resets).toBe(1);
  bench.clientIo.close(ram);
});

test('hardening 22: a model that throws gives an error reply, and everything goes on', async () => {
  const client = await bench.connect();
  expect(await client.fails(9, fields([FAULT, 8], [0, 4], [4, 4]))).toBe(5);
  await works(client);
});

test('hardening 22: a client that leaves in the middle of a DMA request ends the session and not the device', async () => {
  const client = await bench.connect();
  await client.map(0x10000, 0x10000, null);
  await client.write32(0, SOURCE, 0x10000);
  await client.write32(0, LENGTH, 4);
  client.sendRaw(VfioClient.encode(10, concat(fields([COPY, 8], [0, 4], [4, 4]), fields([1, 4]))));
  client.close();
  const next = await bench.connect();
  await works(next);
  expect(bench.server.dmaStats.remoteErrors).toBe(1);
});

test('hardening 22: reset and reconnection, over and over, leave nothing behind', async () => {
  let client = await bench.connect();
  const before = openDescriptors();
  for (let i = 0; i < 300; i++) {
    const ram = bench.clientIo.memoryFd('ram', 0x10000);
    const event = bench.clientIo.eventFd();
    await client.map(0, 0x10000, ram);
    await client.ok(8, setIrqs(32 | 4, 2, 0, 1), { fds: [event] });
    await client.ok(13, new Uint8Array(0));
    await client.write32(0, SEND_MSIX, 0);
    bench.clientIo.close(ram);
    bench.clientIo.close(event);
    client = await bench.replace(client);
  }
  expect(bench.serverHandles).toBe(2);
  expect(openDescriptors()).toBe(before);
  await works(client);
});

test('hardening 56: memory whose file was cut short reads as zeros', async () => {
  const client = await bench.connect();
  const path = join(bench.folder, 'ram');
  const fd = openSync(path, 'w+');
  ftruncateSync(fd, 0x10000);
  const ram = bench.clientIo.adopt(fd);
  await client.map(0, 0x10000, ram);
  await client.write32(0, TARGET, 0x8000);
  await client.write32(0, LENGTH, 16);
  ftruncateSync(fd, 0);
  await client.write32(0, COPY, 1);
  bench.clientIo.close(ram);
  await works(client);
  unlinkSync(path);
});

test('a client that takes no replies is read no further, and served again when it does', async () => {
  const client = await bench.connect();
  bench.clientIo.setInterest(client.handle, 0);
  const read = VfioClient.encode(9, fields([0, 8], [2, 4], [4096, 4]), { id: 1 });
  let sent = 0;
  for (;;) {
    const took = bench.clientIo.sendBytes(client.handle, read, 0, read.length);
    if (took !== read.length) break;
    sent++;
    // Let the server have its turn, until it stops taking.
    await new Promise((resolve) => setImmediate(resolve));
    if (sent > 20_000) throw new Error('the server takes commands without end');
  }
  bench.clientIo.setInterest(client.handle, 1);
  for (let i = 0; i < sent; i++) expect((await client.receive())?.payload.length).toBe(16 + 4096);
});

test('1,000 random messages: an error reply or a proper one each, no exception, no descriptor left', async () => {
  const ram = bench.clientIo.memoryFd('ram', 1 << 20);
  const event = bench.clientIo.eventFd();
  let client = await bench.connect();
  const edge = fc.constantFrom(0, 1, 4, 8, 16, 32, 4096, 4097, 0x7fffffff, 0x80000000, 0xffffffff);
  const word = fc.oneof(edge, fc.integer({ min: 0, max: 0xffffffff }), fc.integer({ min: 0, max: 64 }));
  const message = fc.record({
    command: fc.oneof(fc.integer({ min: 0, max: 20 }), fc.integer({ min: 0, max: 0xffff })),
    words: fc.array(word, { maxLength: 12 }),
    tail: fc.integer({ min: 0, max: 3 }),
    fds: fc.array(fc.constantFrom(0, 1), { maxLength: 3 }),
    lie: fc.option(edge, { freq: 12 }),
  });
  let count = 0;
  await fc.assert(
    fc.asyncProperty(message, async ({ command, words, tail, fds, lie }) => {
      count++;
      const payload = concat(new Uint8Array(Uint32Array.from(words).buffer), new Uint8Array(tail));
      const size = lie ?? 16 + payload.length;
      // A message that says it is longer than it is swallows what follows: complete it first.
      const bytes = VfioClient.encode(command, payload, { id: 1, size });
      const missing =
        size > bytes.length && size <= 8192 ? new Uint8Array(size - bytes.length) : new Uint8Array(0);
      client.sendRaw(
        concat(bytes, missing),
        fds.map((kind) => (kind === 0 ? ram : event)),
      );
      const reply = await client.receive();
      expect(reply?.command).toBe(command);
      // What lies behind a message that says it is shorter than it is belongs to nobody: start anew, as after a closed connection.
      if (lie !== null) client = await bench.replace(client);
      expect(bench.serverHandles).toBeLessThan(60);
    }),
    { numRuns: 1000, seed: 20, endOnFailure: true },
  );
  expect(count).toBe(1000);
  client = await bench.replace(client);
  await works(client);
  expect(bench.serverHandles).toBe(2);
  bench.clientIo.close(ram);
  bench.clientIo.close(event);
});

test('hardening 55: descriptors stay level over 10,000 messages', async () => {
  const client = await bench.connect();
  const ram = bench.clientIo.memoryFd('ram', 1 << 20);
  const event = bench.clientIo.eventFd();
  await client.map(0x100000, 0x1000, ram);
  await client.ok(8, setIrqs(32 | 4, 2, 0, 1), { fds: [event] });
  const before = openDescriptors();
  const ours = bench.serverHandles;
  for (let round = 0; round < 1000; round++) {
    const messages: [number, Uint8Array, Handle[]][] = [
      [2, dmaMap(0, 0x10000), [ram]],
      [2, dmaMap(0, 0x10000), [ram]],
      [2, dmaMap(0x40000, 0x1000, 1 << 30), [ram]],
      [8, setIrqs(32 | 4, 2, 0, 2), [event, event]],
      [8, setIrqs(32 | 4, 2, 0, 1), [event, event]],
      [8, setIrqs(32 | 4, 2, 1, 1), []],
      [9, fields([0, 8], [0, 4], [4, 4]), [event, ram]],
      [77, new Uint8Array(4), [event]],
      [3, fields([24, 4], [0, 4], [0, 8], [0x10000, 8]), []],
      [9, fields([0, 8], [0, 4], [4, 4]), []],
    ];
    for (const [command, payload, fds] of messages) client.send(command, payload, { fds });
    for (let i = 0; i < messages.length; i++) expect(await client.receive()).not.toBeNull();
  }
  expect(bench.serverHandles).toBe(ours);
  expect(openDescriptors()).toBe(before);
  expect(bench.server.wireStats.messages).toBeGreaterThan(10_000);
  expect(bench.server.dmaStats.windows).toBe(1);
  bench.clientIo.close(ram);
  bench.clientIo.close(event);
});
