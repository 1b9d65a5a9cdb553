/**
 * What every client of a port must hold to (core/port.ts, core/pool.ts), as one suite: run it for each NIC, backend, hub and filter with a
 * few lines that say how to set the client up. The suite plays the peer at the other end of the client's port.
 */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { REFS } from '../../src/core/pool.ts';
import { Port } from '../../src/core/port.ts';
import { RecordingClient, type TestContext, testContext } from '../lib/context.ts';

export interface ClientUnderTest {
  readonly port: Port;
  /** A frame that the client takes when it can take any. */
  goodFrame(tag: number): Uint8Array;
  /** Brings the client to where it takes no frame (no descriptors, a full socket); absent: it always takes all. */
  block?(): void;
  /** Lets it take frames again; it must then call `ready`. */
  unblock?(): void;
  /** Makes it send this many frames; absent: it only receives. */
  emit?(count: number): void;
  /** Does whatever is due (device steps, virtual time). */
  settle(): void;
  /** Waits for a condition, where frames pass another process on their way. */
  until?(holds: () => boolean): Promise<void>;
  close(): void | Promise<void>;
}

export function portClientSuite(
  name: string,
  setUp: (context: TestContext) => ClientUnderTest | Promise<ClientUnderTest>,
): void {
  describe(`${name} as the client of a port`, () => {
    let context: TestContext;
    let client: ClientUnderTest;
    let peer: RecordingClient;

    beforeEach(async () => {
      context = testContext();
      client = await setUp(context);
      peer = new RecordingClient(context, 'peer', 'backend');
      Port.connect(peer.port, client.port);
      client.settle();
    });

    afterEach(async () => {
      peer.close();
      await client.close();
      context.loop.run();
      expect(context.pool.free, 'slots that came back').toBe(context.pool.capacity);
    });

    it('takes good frames, and lets go of them sooner or later', () => {
      expect(peer.send(client.goodFrame(1), client.goodFrame(2), client.goodFrame(3))).toBe(3);
      client.settle();
    });

    it('survives frames of any length', () => {
      for (const length of [0, 1, 13, 14, 59, 60, 1514, 1518, 9018, 65_549]) {
        peer.send(new Uint8Array(length).fill(0xff));
        client.settle();
        for (const frame of peer.waiting.splice(0)) context.pool.release(frame);
      }
      expect(peer.send(client.goodFrame(4))).toBe(1);
      client.settle();
    });

    it('reports no more than it was offered, and leaves the rest untouched', () => {
      client.block?.();
      const frames = Int32Array.from({ length: 8 }, (_, i) => context.pool.from(client.goodFrame(i)));
      const taken = peer.port.send(frames, 0, 8);
      expect(taken).toBeGreaterThanOrEqual(0);
      expect(taken).toBeLessThanOrEqual(8);
      if (client.block !== undefined) expect(taken).toBeLessThan(8);
      for (let i = taken; i < 8; i++) {
        expect(context.pool.table[frames[i]! + REFS]).toBe(1);
        expect(context.pool.toBytes(frames[i]!)).toEqual(client.goodFrame(i));
        context.pool.release(frames[i]!);
      }
      client.unblock?.();
      client.settle();
    });

    it('says ready after it refused', () => {
      if (client.block === undefined) {
        expect(peer.send(...Array.from({ length: 64 }, (_, i) => client.goodFrame(i)))).toBe(64);
        return;
      }
      client.block();
      for (let i = 0; i < 300 && peer.waiting.length === 0; i++) peer.send(client.goodFrame(i & 0xff));
      expect(peer.waiting.length, 'a blocked client refuses at last').toBeGreaterThan(0);
      const before = peer.readyCalls;
      client.unblock?.();
      client.settle();
      expect(peer.readyCalls).toBeGreaterThan(before);
      expect(peer.waiting.length).toBe(0);
    });

    it('leaves a shared frame as it is', () => {
      const frame = context.pool.from(client.goodFrame(9));
      context.pool.retain(frame);
      const batch = Int32Array.of(frame);
      const taken = peer.port.send(batch, 0, 1);
      client.settle();
      expect(context.pool.toBytes(frame)).toEqual(client.goodFrame(9));
      context.pool.release(frame);
      if (taken === 0) context.pool.release(frame);
    });

    it('survives its link going down and up', () => {
      client.port.setLink(false);
      peer.send(client.goodFrame(1));
      client.settle();
      client.port.setLink(true);
      client.settle();
      expect(peer.send(client.goodFrame(2))).toBe(1);
      client.settle();
    });

    it('keeps what its peer refuses, in order', async () => {
      if (client.emit === undefined) return;
      client.settle();
      const before = peer.received.length;
      peer.room = 1;
      client.emit(4);
      client.settle();
      await client.until?.(() => peer.received.length > before);
      expect(peer.received.length).toBe(before + 1);
      peer.allow(100);
      client.settle();
      await client.until?.(() => peer.received.length >= before + 4);
      expect(peer.received.length).toBeGreaterThanOrEqual(before + 4);
    });

    it('can be closed with frames on their way, and twice', async () => {
      client.block?.();
      peer.send(client.goodFrame(1), client.goodFrame(2));
      client.emit?.(2);
      await client.close();
      client.settle();
    });
  });
}
