import { afterEach, beforeEach, expect, test } from 'vitest';
import { READABLE } from '../../../src/host-io/host-io.ts';
import { Bench } from './bench.ts';
import { concat, ERROR, fields, NO_REPLY, REPLY, setIrqs, VfioClient } from './client.ts';
import { COPY, LENGTH, PIN, READS, SEND_MSI, SEND_MSIX, SOURCE, TARGET, VECTORS } from './device.ts';

let bench: Bench;
beforeEach(() => {
  bench = new Bench();
});
afterEach(() => bench.end());

const CONFIG = 7;
const TRIGGER = 32;
const UNMASK = 16;
const MASK = 8;
const EVENTFD = 4;
const BOOL = 2;
const NONE = 1;

test('version: 0.0 is agreed on, with our limits for what the client named', async () => {
  const client = bench.connectRaw();
  const reply = await client.negotiate({ max_msg_fds: 8, write_multiple: true, unheard_of: { x: 1 } });
  expect(reply.view.getUint16(0, true)).toBe(0);
  expect(reply.view.getUint16(2, true)).toBe(0);
  const text = new TextDecoder().decode(reply.payload.subarray(4));
  expect(text.endsWith('\0')).toBe(true);
  expect(JSON.parse(text.slice(0, -1))).toEqual({ capabilities: { max_msg_fds: 16, write_multiple: true } });
});

test('version: no data is answered with none; a later minor version with ours', async () => {
  const client = bench.connectRaw();
  const reply = await client.ok(1, fields([0, 2], [1, 2]));
  expect([...reply.payload]).toEqual([0, 0, 0, 0]);
});

test('device, regions and interrupts describe the function', async () => {
  const client = await bench.connect();
  const info = await client.ok(4, fields([16, 4], [0, 4], [0, 8]));
  expect([...new Uint32Array(info.payload.buffer)]).toEqual([16, 3, 9, 5]);
  const sizes: number[][] = [];
  for (let index = 0; index < 9; index++) {
    const { view } = await client.ok(5, fields([32, 4], [0, 4], [index, 4], [0, 4], [0, 8], [0, 8]));
    sizes.push([view.getUint32(4, true), view.getUint32(16, true)]);
  }
  expect(sizes).toEqual([
    [3, 4096],
    [3, 64],
    [3, 4096],
    [0, 0],
    [0, 0],
    [0, 0],
    [0, 0],
    [3, 256],
    [0, 0],
  ]);
  const irqs: number[][] = [];
  for (let index = 0; index < 3; index++) {
    const { view } = await client.ok(7, fields([16, 4], [0, 4], [index, 4], [0, 4]));
    irqs.push([view.getUint32(4, true), view.getUint32(12, true)]);
  }
  expect(irqs).toEqual([
    [7, 1],
    [9, VECTORS],
    [9, VECTORS],
  ]);
  for (const index of [3, 4, 5])
    expect(await client.fails(7, fields([16, 4], [0, 4], [index, 4], [0, 4]))).toBe(22);
  const io = await client.ok(6, fields([16, 4], [0, 4], [0, 4], [0, 4]));
  expect([...new Uint32Array(io.payload.buffer)]).toEqual([16, 0, 0, 0]);
});

test('registers: each access reaches the device as the guest made it', async () => {
  const client = await bench.connect();
  await client.write32(0, 0x10, 0xdeadbeef);
  expect(await client.read32(0, 0x10)).toBe(0xdeadbeef);
  expect([...(await client.read(0, 0x11, 2))]).toEqual([0xbe, 0xad]);
  await client.write(0, 0x12, fields([0x77, 1]));
  expect(await client.read32(0, 0x10)).toBe(0xde77beef);
  await client.write(0, 0x20, fields([0x1122334455667788n, 8]));
  expect([await client.read32(0, 0x20), await client.read32(0, 0x24)]).toEqual([0x55667788, 0x11223344]);
  expect([await client.read32(0, READS), await client.read32(0, READS)]).toEqual([1, 2]);
  expect(await client.read32(1, 8)).toBe(0xb1b1b1b1);
});

test('configuration space reads whole and keeps what software writes', async () => {
  const client = await bench.connect();
  const all = await client.read(CONFIG, 0, 256);
  expect([all[0], all[1], all[2], all[3]]).toEqual([0x34, 0x12, 0x78, 0x56]);
  await client.write32(CONFIG, 0x10, 0xffffffff);
  expect(await client.read32(CONFIG, 0x10)).toBe(0xfffff000);
  await client.write(CONFIG, 4, fields([6, 2]));
  expect(bench.device.dmaEnabled).toBe(true);
});

test('the expansion ROM is a region that can be read and not written', async () => {
  bench.device.setRom(Uint8Array.from([0x55, 0xaa, 3]));
  const client = await bench.connect();
  const { view } = await client.ok(5, fields([32, 4], [0, 4], [6, 4], [0, 4], [0, 8], [0, 8]));
  expect([view.getUint32(4, true), view.getUint32(16, true)]).toEqual([1, 2048]);
  expect([...(await client.read(6, 0, 5))]).toEqual([0x55, 0xaa, 3, 0xff, 0xff]);
  expect(await client.fails(10, concat(fields([0, 8], [6, 4], [1, 4]), Uint8Array.of(1)))).toBe(22);
  await client.write32(CONFIG, 0x30, 0xfffff800);
  expect(await client.read32(CONFIG, 0x30)).toBe(0xfffff800);
});

test('many writes in one message are done in order', async () => {
  const client = await bench.connect();
  const writes = [1, 2, 3].map((value) => fields([0x30, 8], [0, 4], [4, 4], [value, 8]));
  const reply = await client.ok(15, concat(fields([3, 8]), ...writes));
  expect(reply.view.getUint32(0, true)).toBe(3);
  expect(bench.device.accesses.slice(-3)).toEqual(['w0:30=1', 'w0:30=2', 'w0:30=3']);
});

test('commands sent together are answered in order, and those that want no reply get none', async () => {
  const client = await bench.connect();
  const write = (value: number, flags: number): Uint8Array =>
    VfioClient.encode(10, concat(fields([0x40, 8], [0, 4], [4, 4]), fields([value, 4])), {
      id: value,
      flags,
    });
  const read = VfioClient.encode(9, fields([0x40, 8], [0, 4], [4, 4]), { id: 9 });
  const sends = bench.server.wireStats.sends;
  client.sendRaw(concat(write(1, NO_REPLY), write(2, NO_REPLY), read, write(3, 0)));
  const first = await client.receive();
  expect([first?.id, first?.view.getUint32(16, true)]).toEqual([9, 2]);
  expect((await client.receive())?.id).toBe(3);
  expect(bench.server.wireStats.sends).toBe(sends + 1);
});

test('a command that arrives byte by byte is one command', async () => {
  const client = await bench.connect();
  const bytes = VfioClient.encode(9, fields([READS, 8], [0, 4], [4, 4]), { id: 7 });
  for (const byte of bytes) client.sendRaw(Uint8Array.of(byte));
  expect((await client.receive())?.view.getUint32(16, true)).toBe(1);
});

test('DMA: ranges of one file are views on one mapping, moved at no cost', async () => {
  const client = await bench.connect();
  const ram = bench.clientIo.memoryFd('ram', 1 << 20);
  const bytes = bench.clientIo.map(ram, 0, 1 << 20);
  bytes.set([1, 2, 3, 4], 0x5000);
  for (let round = 0; round < 50; round++) {
    await client.map(0, 0x10000, ram);
    await client.map(0x100000, 0x80000, ram, 0x10000);
    await client.unmap(0, 0x10000);
    await client.map(0, 0xa000, ram);
    await client.map(0xc000, 0x4000, ram, 0xc000, 1);
    if (round === 49) break;
    await client.unmap(0, 0xa000);
    await client.unmap(0x100000, 0x80000);
    await client.unmap(0xc000, 0x4000);
  }
  expect(bench.server.dmaStats.windows).toBeLessThanOrEqual(50);
  await client.write32(0, SOURCE, 0x5000);
  await client.write32(0, TARGET, 0x100010);
  await client.write32(0, LENGTH, 4);
  await client.write32(0, COPY, 1);
  expect(await client.read32(0, COPY)).toBe(1);
  expect([...bytes.subarray(0x10010, 0x10014)]).toEqual([1, 2, 3, 4]);
  // A range that may only be read is not written, and a hole is nothing at all.
  await client.write32(0, TARGET, 0xc000);
  await client.write32(0, COPY, 1);
  expect(await client.read32(0, COPY)).toBe(0);
  await client.write32(0, TARGET, 0xb000);
  await client.write32(0, COPY, 1);
  expect(await client.read32(0, COPY)).toBe(0);
  // The listening socket, the client, one descriptor for the file.
  expect(bench.serverHandles).toBe(3);
  bench.clientIo.close(ram);
});

test('DMA: a file of several GiB is mapped in windows, and a copy crosses from one to the next', async () => {
  const client = await bench.connect();
  const GiB = 2 ** 30;
  const ram = bench.clientIo.memoryFd('ram', 3 * GiB);
  await client.map(0, 0xc0000, ram);
  await client.map(4 * GiB, 2.5 * GiB, ram, 0.25 * GiB);
  expect(bench.server.dmaStats.windows).toBe(3);
  const near = bench.clientIo.map(ram, GiB - 4096, 8192);
  near.set([1, 2, 3, 4], 4094);
  const seam = 4 * GiB + GiB - 0.25 * GiB - 2;
  const bytes = new Uint8Array(4);
  expect(bench.host.memory.read(seam, bytes, 0, 4)).toBe(true);
  expect([...bytes]).toEqual([1, 2, 3, 4]);
  expect(bench.host.memory.write(seam, Uint8Array.of(9, 8, 7, 6), 0, 4)).toBe(true);
  expect([...near.subarray(4094, 4098)]).toEqual([9, 8, 7, 6]);
  await client.unmap(4 * GiB, 2.5 * GiB);
  expect(bench.host.memory.ranges.length).toBe(1);
  bench.clientIo.unmap(near);
  bench.clientIo.close(ram);
});

test('DMA: while any range of a file is left, the file stays mapped once', async () => {
  const client = await bench.connect();
  const ram = bench.clientIo.memoryFd('ram', 1 << 20);
  await client.map(0x100000, 0x1000, ram);
  for (let i = 0; i < 20; i++) {
    await client.map(0, 0x10000, ram);
    await client.unmap(0, 0x10000);
  }
  expect(bench.server.dmaStats.windows).toBe(1);
  await client.ok(3, fields([24, 4], [2, 4], [0, 8], [0, 8]));
  expect(bench.host.memory.ranges).toEqual([]);
  expect(bench.serverHandles).toBe(2);
  bench.clientIo.close(ram);
});

test('DMA: a range without a descriptor is reached by messages, and commands that come meanwhile are answered from within', async () => {
  const client = await bench.connect();
  await client.map(0x10000, 0x10000, null);
  await client.write32(0, SOURCE, 0x10100);
  await client.write32(0, TARGET, 0x18000);
  await client.write32(0, LENGTH, 3);
  const copy = VfioClient.encode(10, concat(fields([COPY, 8], [0, 4], [4, 4]), fields([1, 4])), { id: 1 });
  const read = VfioClient.encode(9, fields([COPY, 8], [0, 4], [4, 4]), { id: 2 });
  // Our answers to the server's requests 1 and 2 go along with the command that will bring those about.
  const data = VfioClient.encode(11, concat(fields([0x10100, 8], [3, 8]), Uint8Array.of(7, 8, 9)), {
    id: 1,
    flags: REPLY,
  });
  const written = VfioClient.encode(12, fields([0x18000, 8], [3, 8]), { id: 2, flags: REPLY });
  client.sendRaw(concat(copy, read, data, written));
  const asked = await client.receive();
  expect([asked?.command, asked?.id, asked?.flags]).toEqual([11, 1, 0]);
  expect([asked?.view.getUint32(0, true), asked?.view.getUint32(8, true)]).toEqual([0x10100, 3]);
  const within = await client.receive();
  expect([within?.id, within?.view.getUint32(16, true)]).toEqual([2, 0]);
  const told = await client.receive();
  expect([told?.command, told?.id]).toEqual([12, 2]);
  expect([...(told?.payload.subarray(16) ?? [])]).toEqual([7, 8, 9]);
  expect((await client.receive())?.id).toBe(1);
  expect(await client.read32(0, COPY)).toBe(1);
});

test('DMA: a command within the DMA of another has DMA of its own, and each gets its answer', async () => {
  const client = await bench.connect();
  await client.map(0x10000, 0x10000, null);
  await client.write32(0, SOURCE, 0x10000);
  await client.write32(0, TARGET, 0x18000);
  await client.write32(0, LENGTH, 1);
  const copy = (id: number): Uint8Array =>
    VfioClient.encode(10, concat(fields([COPY, 8], [0, 4], [4, 4]), fields([1, 4])), { id });
  const data = (id: number, byte: number): Uint8Array =>
    VfioClient.encode(11, concat(fields([0x10000, 8], [1, 8]), Uint8Array.of(byte)), { id, flags: REPLY });
  const written = (id: number): Uint8Array =>
    VfioClient.encode(12, fields([0x18000, 8], [1, 8]), { id, flags: REPLY });
  // The answer to the outer request (1) comes while the inner one (2) waits for its own.
  client.sendRaw(concat(copy(50), copy(51), data(1, 0xa1), data(2, 0xa2), written(3), written(4)));
  const seen: string[] = [];
  for (let i = 0; i < 6; i++) {
    const message = await client.receive();
    const byte = message?.command === 12 ? `=${message.payload[16]!.toString(16)}` : '';
    seen.push(`${message?.command}:${message?.id}${byte}`);
  }
  expect(seen).toEqual(['11:1', '11:2', '12:3=a2', '10:51', '12:4=a1', '10:50']);
  expect(await client.read32(0, COPY)).toBe(1);
});

test('DMA: commands within commands go only so deep', async () => {
  const client = await bench.connect();
  await client.map(0x10000, 0x10000, null);
  await client.write32(0, SOURCE, 0x10000);
  await client.write32(0, LENGTH, 1);
  const copy = VfioClient.encode(10, concat(fields([COPY, 8], [0, 4], [4, 4]), fields([1, 4])), { id: 9 });
  const refusals = Array.from({ length: 16 }, (_, i) =>
    VfioClient.encode(11, new Uint8Array(0), { id: i + 1, flags: REPLY | ERROR }),
  );
  client.sendRaw(concat(...Array.from({ length: 40 }, () => copy), ...refusals));
  const seen = new Map<number, number>();
  for (let i = 0; i < 40 + 16; i++) {
    const command = (await client.receive())?.command ?? 0;
    seen.set(command, (seen.get(command) ?? 0) + 1);
  }
  expect(seen).toEqual(
    new Map([
      [11, 16],
      [10, 40],
    ]),
  );
  expect(bench.server.dmaStats.remoteErrors).toBe(40);
  expect(await client.read32(0, COPY)).toBe(0);
});

test('DMA: a request that the client refuses fails in the device, and nowhere else', async () => {
  const client = await bench.connect();
  await client.map(0x10000, 0x10000, null);
  await client.write32(0, SOURCE, 0x10000);
  await client.write32(0, LENGTH, 4);
  const copy = VfioClient.encode(10, concat(fields([COPY, 8], [0, 4], [4, 4]), fields([1, 4])), { id: 1 });
  client.sendRaw(concat(copy, VfioClient.encode(11, new Uint8Array(0), { id: 1, flags: REPLY | ERROR })));
  expect((await client.receive())?.command).toBe(11);
  expect((await client.receive())?.id).toBe(1);
  expect(await client.read32(0, COPY)).toBe(0);
  expect(bench.server.dmaStats.remoteErrors).toBe(1);
});

test('DMA: memory outside a command is reached too, and what came meanwhile is handled afterwards', async () => {
  const client = await bench.connect();
  await client.map(0x10000, 0x10000, null);
  client.sendRaw(
    concat(
      VfioClient.encode(9, fields([READS, 8], [0, 4], [4, 4]), { id: 5 }),
      VfioClient.encode(11, concat(fields([0x10000, 8], [2, 8]), Uint8Array.of(5, 6)), {
        id: 1,
        flags: REPLY,
      }),
    ),
  );
  // As when a frame arrives for the guest: no command of the client is being handled.
  const target = new Uint8Array(2);
  expect(bench.host.memory.read(0x10000, target, 0, 2)).toBe(true);
  expect([...target]).toEqual([5, 6]);
  expect((await client.receive())?.command).toBe(11);
  expect((await client.receive())?.id).toBe(5);
});

test('INTx: high signals once and masks itself; unmasking while it is high signals again', async () => {
  const client = await bench.connect();
  const event = bench.clientIo.eventFd();
  await client.ok(8, setIrqs(TRIGGER | EVENTFD, 0, 0, 1), { fds: [event] });
  await client.write32(0, PIN, 1);
  expect(bench.clientIo.drain(event)).toBe(1);
  await client.write32(0, PIN, 0);
  await client.write32(0, PIN, 1);
  expect(bench.clientIo.drain(event)).toBe(0);
  await client.ok(8, setIrqs(UNMASK | NONE, 0, 0, 1));
  expect(bench.clientIo.drain(event)).toBe(1);
  await client.write32(0, PIN, 0);
  await client.ok(8, setIrqs(UNMASK | BOOL, 0, 0, 1, [1]));
  expect(bench.clientIo.drain(event)).toBe(0);
  await client.ok(8, setIrqs(MASK | NONE, 0, 0, 1));
  await client.write32(0, PIN, 1);
  expect(bench.clientIo.drain(event)).toBe(0);
  await client.ok(8, setIrqs(UNMASK | BOOL, 0, 0, 1, [0]));
  expect(bench.clientIo.drain(event)).toBe(0);
  await client.ok(8, setIrqs(UNMASK | BOOL, 0, 0, 1, [1]));
  expect(bench.clientIo.drain(event)).toBe(1);
});

test('INTx: a pin that is high when the eventfd comes is told at once', async () => {
  const client = await bench.connect();
  await client.write32(0, PIN, 1);
  const event = bench.clientIo.eventFd();
  await client.ok(8, setIrqs(TRIGGER | EVENTFD, 0, 0, 1), { fds: [event] });
  expect(bench.clientIo.drain(event)).toBe(1);
});

test('INTx: the command register silences the pin', async () => {
  const client = await bench.connect();
  const event = bench.clientIo.eventFd();
  await client.ok(8, setIrqs(TRIGGER | EVENTFD, 0, 0, 1), { fds: [event] });
  await client.write(CONFIG, 4, fields([0x400, 2]));
  await client.write32(0, PIN, 1);
  expect(bench.clientIo.drain(event)).toBe(0);
  await client.write(CONFIG, 4, fields([0, 2]));
  expect(bench.clientIo.drain(event)).toBe(1);
});

test('INTx: an eventfd for unmasking unmasks when it is signalled', async () => {
  const client = await bench.connect();
  const event = bench.clientIo.eventFd();
  const resample = bench.clientIo.eventFd();
  await client.ok(8, setIrqs(TRIGGER | EVENTFD, 0, 0, 1), { fds: [event] });
  await client.ok(8, setIrqs(UNMASK | EVENTFD, 0, 0, 1), { fds: [resample] });
  await client.write32(0, PIN, 1);
  expect(bench.clientIo.drain(event)).toBe(1);
  const again = new Promise<void>((resolve) => bench.clientIo.watch(event, READABLE, () => resolve()));
  bench.clientIo.signal(resample);
  await again;
  expect(bench.clientIo.drain(event)).toBe(1);
});

test.each([
  ['MSI', 1, SEND_MSI],
  ['MSI-X', 2, SEND_MSIX],
])('%s: every vector has its eventfd, set together or one by one, until they are taken away', async (_name, index, register) => {
  const client = await bench.connect();
  const events = Array.from({ length: VECTORS }, () => bench.clientIo.eventFd());
  await client.ok(8, setIrqs(TRIGGER | EVENTFD, index, 0, 3), { fds: events.slice(0, 3) });
  await client.ok(8, setIrqs(TRIGGER | EVENTFD, index, 3, 1), { fds: [events[3]!] });
  for (let vector = 0; vector < VECTORS; vector++) await client.write32(0, register, vector);
  expect(events.map((event) => bench.clientIo.drain(event))).toEqual([1, 1, 1, 1]);
  await client.ok(8, setIrqs(TRIGGER | BOOL, index, 0, 4, [0, 1, 0, 1]));
  expect(events.map((event) => bench.clientIo.drain(event))).toEqual([0, 1, 0, 1]);
  // No descriptor takes a vector away, and "none of nothing" all of them.
  await client.ok(8, setIrqs(TRIGGER | EVENTFD, index, 1, 1));
  await client.write32(0, register, 1);
  await client.write32(0, register, 0);
  expect(events.map((event) => bench.clientIo.drain(event))).toEqual([1, 0, 0, 0]);
  await client.ok(8, setIrqs(TRIGGER | NONE, index, 0, 0));
  await client.write32(0, register, 0);
  expect(events.map((event) => bench.clientIo.drain(event))).toEqual([0, 0, 0, 0]);
  expect(bench.serverHandles).toBe(2);
});

test('reset resets the device and unmasks INTx', async () => {
  const client = await bench.connect();
  await client.write32(0, 0x10, 5);
  await client.ok(13, new Uint8Array(0));
  expect(bench.device.resets).toBe(1);
  expect(await client.read32(0, 0x10)).toBe(0);
});

test('features for migration are refused as VFIO does', async () => {
  const client = await bench.connect();
  const GET = 1 << 16;
  const PROBE = 1 << 18;
  for (const feature of [1, 2, 6, 7, 8, 99]) {
    expect(await client.fails(16, fields([16, 4], [feature | GET | PROBE, 4]))).toBe(25);
    expect(await client.fails(16, fields([16, 4], [feature | GET, 4]))).toBe(25);
  }
  expect(await client.fails(16, fields([16, 4], [1, 4]))).toBe(22);
});

test('one client at a time: the next is served when the first has left, on a device that was reset', async () => {
  const first = await bench.connect();
  const ram = bench.clientIo.memoryFd('ram', 1 << 16);
  await first.map(0, 1 << 16, ram);
  const event = bench.clientIo.eventFd();
  await first.ok(8, setIrqs(TRIGGER | EVENTFD, 2, 0, 1), { fds: [event] });
  await first.write32(0, 0x10, 77);
  const second = bench.connectRaw();
  const negotiated = second.negotiate();
  expect(await first.read32(0, 0x10)).toBe(77);
  expect(bench.server.clients).toBe(1);
  first.close();
  await negotiated;
  expect(bench.server.clients).toBe(2);
  expect(bench.host.memory.ranges).toEqual([]);
  expect(bench.serverHandles).toBe(2);
  expect(await second.read32(0, 0x10)).toBe(0);
  bench.clientIo.close(ram);
});
