/** The e1000 as the client of a port. */
import { seededRandom } from '../../../src/core/clock.ts';
import { silentLogger } from '../../../src/core/log.ts';
import { PacketBatch } from '../../../src/guest/driver/driver.ts';
import { E1000Driver } from '../../../src/guest/driver/e1000-driver.ts';
import { GuestRam } from '../../../src/guest/driver/guest-ram.ts';
import { E1000 } from '../../../src/nic/e1000/index.ts';
import { GuestMemory } from '../../../src/pci/guest-memory.ts';
import { portClientSuite } from '../../conformance/port-client.ts';
import { packet } from '../../lib/context.ts';
import { MAC } from '../../lib/e1000-rig.ts';

const RING = 64;

portClientSuite('e1000', (context) => {
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
  const nic = new E1000({ host, link: context, name: 'net0' }, { mac: MAC });
  const driver = new E1000Driver({ pci: nic, ram, loop: context.loop, ringSize: RING, promiscuous: true });
  driver.open();
  let isBlocked = false;
  const address = ram.allocate(64 * 64);
  return {
    port: nic.port,
    goodFrame: (tag) => packet(tag),
    block() {
      // The driver sleeps; what descriptors there are fill up.
      isBlocked = true;
      for (let i = 0; i < RING; i++) {
        const frame = context.pool.from(packet(i));
        if (nic.receive(Int32Array.of(frame), 0, 1) === 0) context.pool.release(frame);
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
