/** virtio-net as the client of a port. */

import { seededRandom } from '../../../src/core/clock.ts';
import { silentLogger } from '../../../src/core/log.ts';
import { PacketBatch } from '../../../src/guest/driver/driver.ts';
import { GuestRam } from '../../../src/guest/driver/guest-ram.ts';
import { VirtioDriver } from '../../../src/guest/driver/virtio-driver.ts';
import { VirtioNet } from '../../../src/nic/virtio-net/index.ts';
import { GuestMemory } from '../../../src/pci/guest-memory.ts';
import { portClientSuite } from '../../conformance/port-client.ts';
import { packet } from '../../lib/context.ts';
import { optionsFor } from './rig.ts';

for (const packed of [false, true]) {
  portClientSuite(`virtio-net (${packed ? 'packed' : 'split'})`, (context) => {
    const memory = new GuestMemory(context.pool);
    const ram = new GuestRam(4 << 20);
    memory.add(0, ram.bytes);
    const host = {
      memory,
      loop: context.loop,
      random: seededRandom(1),
      log: silentLogger,
      setIntx() {},
      signalMsi() {},
    };
    const nic = new VirtioNet({ host, link: context, name: 'net0' }, optionsFor({ packed }));
    const driver = new VirtioDriver({ pci: nic, ram, loop: context.loop, ringSize: 32 });
    driver.open();
    let isBlocked = false;
    const address = ram.allocate(64 * 64);
    return {
      port: nic.ports[0]!,
      goodFrame: (tag) => packet(tag),
      block() {
        // The driver sleeps; what buffers there are fill up.
        isBlocked = true;
        for (let i = 0; i < 32; i++) {
          const frame = context.pool.from(packet(i));
          if (nic.ports[0]!.client.receive(Int32Array.of(frame), 0, 1) === 0) context.pool.release(frame);
        }
      },
      unblock() {
        isBlocked = false;
      },
      emit(count) {
        const batch = new PacketBatch(count);
        for (let i = 0; i < count; i++) {
          ram.bytes.set(packet(i), ram.offset(address) + 64 * i);
          batch.plain(i, address + 64 * i, 60);
        }
        driver.send(batch, 0, count);
      },
      settle() {
        if (!isBlocked) driver.interrupt();
        context.loop.runUntil(context.clock.nowNs());
      },
      close() {
        driver.close();
        nic.close();
        memory.removeAll();
      },
    };
  });
}
