/**
 * Bytes from peers: streams of vfio-user and vhost-user messages with descriptors, framed streams, L2TPv3. A session ends or goes on, every
 * descriptor is closed, and the next client is served.
 */
import { afterEach, expect, it } from 'vitest';
import { FRAMING_BAD, FRAMING_FRAME, FRAMING_MORE, StreamFraming } from '../../src/wire/framing.ts';
import { L2TPV3_OK, type L2tpv3Config, L2tpv3Header } from '../../src/wire/l2tpv3.ts';
import { Bench as VfioBench } from '../guest/vfio-user/bench.ts';
import { Bench as VhostBench } from '../guest/vhost-user/bench.ts';
import { boundMemory, corpus, fuzz } from './lib.ts';

boundMemory();

const benches: { end(): void }[] = [];
afterEach(() => {
  for (const bench of benches.splice(0)) bench.end();
});

it('hardening 57: any stream of vfio-user messages', async () => {
  const bench = new VfioBench();
  benches.push(bench);
  const ram = bench.clientIo.memoryFd('ram', 1 << 20);
  const event = bench.clientIo.eventFd();
  await fuzz(corpus('vfio-user'), 250, async (bytes) => {
    const client = bench.connectRaw();
    if (bytes.length > 0) client.sendRaw(bytes, [ram, event].slice(0, bytes[bytes.length - 1]! % 3));
    bench.clientIo.shutdownWrite(client.handle);
    while ((await client.receive()) !== null);
    client.close();
  });
  const good = await bench.connect();
  await good.write32(0, 0x50, 0x12345678);
  expect(await good.read32(0, 0x50)).toBe(0x12345678);
  expect(bench.serverHandles).toBe(2);
  bench.clientIo.close(ram);
  bench.clientIo.close(event);
});

it('hardening 55: any stream of vhost-user messages', async () => {
  const bench = new VhostBench();
  benches.push(bench);
  const before = bench.handles;
  await fuzz(corpus('vhost-user'), 250, async (bytes) => {
    const frontEnd = bench.connect();
    const fds = [frontEnd.ramFd, frontEnd.ramFd].slice(0, (bytes[bytes.length - 1] ?? 0) % 3);
    if (bytes.length > 0) expect(bench.clientIo.sendWithFds(frontEnd.handle, bytes, fds)).toBe(bytes.length);
    bench.clientIo.shutdownWrite(frontEnd.handle);
    await bench.until(() => frontEnd.ended);
    frontEnd.close();
  });
  await bench.until(() => bench.handles === before);
  const frontEnd = bench.connect();
  await frontEnd.begin(0n);
  expect(frontEnd.ended).toBe(false);
});

/** The frames of a stream, and whether it ended at a bad length. */
function framesOf(bytes: Uint8Array, piece: number): { frames: string[]; bad: boolean } {
  const framing = new StreamFraming();
  const found: string[] = [];
  let parts: number[] = [];
  for (let from = 0; from === 0 || from < bytes.length; from += piece) {
    const to = Math.min(bytes.length, from + piece);
    framing.begin(from);
    for (;;) {
      const outcome = framing.next(bytes, to);
      if (outcome === FRAMING_BAD) return { frames: found, bad: true };
      if (outcome === FRAMING_MORE) break;
      parts.push(...bytes.subarray(framing.pieceStart, framing.pieceEnd));
      if (outcome !== FRAMING_FRAME) continue;
      found.push(Buffer.from(parts).toString('hex'));
      parts = [];
    }
  }
  return { frames: found, bad: false };
}

it('hardening 50: any framed stream gives the same frames however it is cut', async () => {
  await fuzz(corpus('framing'), 3000, (bytes) => {
    const whole = framesOf(bytes, bytes.length || 1);
    for (const piece of [1, 5, 100]) expect(framesOf(bytes, piece)).toEqual(whole);
    expect(whole.frames.reduce((sum, frame) => sum + 4 + frame.length / 2, 0)).toBeLessThanOrEqual(
      bytes.length,
    );
  });
});

it('hardening 51: a tunnel takes nothing but its own session, cookie and type', async () => {
  const config: L2tpv3Config = {
    ...{ udp: true, cookieBytes: 8, counter: true, offsetBytes: 2 },
    ...{ txSession: 0x11223344, rxSession: 0x11223344 },
    ...{
      txCookieHigh: 0x55667788,
      txCookieLow: 0x99aabbcc,
      rxCookieHigh: 0x55667788,
      rxCookieLow: 0x99aabbcc,
    },
  };
  const header = new L2tpv3Header(config);
  let taken = 0;
  await fuzz(corpus('l2tpv3'), 3000, (bytes) => {
    const result = header.check(bytes, 0, bytes.length);
    const hex = Buffer.from(bytes).toString('hex');
    // By its text: data message of version 3, reserved bits aside; session; cookie.
    const belongs =
      bytes.length >= 22 &&
      /^[0-7].[0-9a-f]3/.test(hex) &&
      hex.slice(8, 32) === '1122334455667788' + '99aabbcc';
    if (result === L2TPV3_OK) {
      taken++;
      expect(belongs).toBe(true);
      expect(header.counter(bytes, 0)).toBe(Number.parseInt(hex.slice(32, 40), 16));
    } else expect(belongs && (bytes[1]! & 15) === 3 && (bytes[0]! & 0x80) === 0).toBe(false);
  });
  expect(taken).toBeGreaterThan(10);
});
