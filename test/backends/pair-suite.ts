/** The rules that all backends share, for one kind of backend with another of its kind at the far end. */

import { describe, expect, it } from 'vitest';
import type { Backend } from '../../src/backends/backend.ts';
import { Port } from '../../src/core/port.ts';
import { portClientSuite } from '../conformance/port-client.ts';
import { packet, RecordingClient, type TestContext, tags } from '../lib/context.ts';
import { BackendLab } from './lab.ts';
import type { Pair } from './pairs.ts';

async function joined(lab: BackendLab, backends: readonly Backend[]): Promise<void> {
  await lab.until(() => backends.every(({ ports }) => ports[0]!.linkUp), 'the link');
}

export function pairSuite(pair: Pair): void {
  describe(pair.name, () => {
    portClientSuite(pair.name, async (context: TestContext) => {
      const lab = new BackendLab({ context });
      const [backend, far] = await pair.open(lab);
      await joined(lab, [backend, far]);
      const farGuest = lab.guest(far);
      let ended = false;
      return {
        port: backend.ports[0]!,
        goodFrame: (tag) => packet(tag, 60),
        ...(pair.needsTurns
          ? {}
          : {
              emit(count: number) {
                farGuest.send(...Array.from({ length: count }, (_, i) => packet(i, 60)));
              },
            }),
        settle: () => {
          if (!ended) lab.settle();
        },
        until: (holds: () => boolean) => lab.until(holds),
        async close() {
          if (ended) return;
          ended = true;
          await lab.end();
        },
      };
    });

    it('carries frames of every length both ways, whole and in order', async () => {
      const lab = new BackendLab();
      const [a, b] = await pair.open(lab);
      await joined(lab, [a, b]);
      const guestA = lab.guest(a);
      const guestB = lab.guest(b);
      const lengths = [14, 60, 61, 191, 192, 193, 1514, 2044, 2047, 2048, 2049, 9018, 32_768, 65_507, 69_632];
      const frames = lengths
        .filter((length) => length <= pair.frameMaxBytes)
        .map((length, i) => packet(i + 1, length));
      for (const frame of frames) {
        guestA.send(frame);
        guestB.send(frame);
        lab.settle();
      }
      await lab.until(
        () => guestA.received.length === frames.length && guestB.received.length === frames.length,
        'the frames',
      );
      for (const [i, frame] of frames.entries()) {
        expect(Buffer.compare(guestA.received[i]!, frame), `length ${frame.length} to A`).toBe(0);
        expect(Buffer.compare(guestB.received[i]!, frame), `length ${frame.length} to B`).toBe(0);
      }
      await lab.end();
    });

    it('carries a burst of batches, in order, and pauses while the guest takes none', async () => {
      const lab = new BackendLab();
      const [a, b] = await pair.open(lab);
      await joined(lab, [a, b]);
      const guestA = lab.guest(a);
      const guestB = lab.guest(b);
      guestB.room = 10;
      for (let round = 0; round < 3; round++) {
        guestA.send(...Array.from({ length: 50 }, (_, i) => packet(round * 50 + i, 100 + i)));
        lab.settle();
      }
      await lab.until(() => guestB.received.length === 10);
      guestB.allow(Number.POSITIVE_INFINITY);
      await lab.until(() => guestB.received.length === 150, 'the rest');
      expect(tags(guestB.received)).toEqual(Array.from({ length: 150 }, (_, i) => i));
      await lab.end();
    });

    it('leaves no descriptor, frame or file when it is made and closed 50 times', async () => {
      const lab = new BackendLab();
      for (let i = 0; i < 50; i++) {
        const backends = await pair.open(lab);
        const client = new RecordingClient(lab.link, 'once');
        Port.connect(client.port, backends[0].ports[0]!);
        await joined(lab, backends);
        client.send(packet(i));
        lab.settle();
        client.close();
        for (const backend of backends) backend.close();
      }
      expect(lab.hostIo.stats().openHandles).toBe(0);
      await lab.end();
    });
  });
}
