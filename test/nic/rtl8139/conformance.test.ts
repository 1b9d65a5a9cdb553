/** The rtl8139 as the client of a port, in both programming models. */
import { seededRandom } from '../../../src/core/clock.ts';
import { silentLogger } from '../../../src/core/log.ts';
import { PacketBatch } from '../../../src/guest/driver/driver.ts';
import { GuestRam } from '../../../src/guest/driver/guest-ram.ts';
import { Rtl8139Driver } from '../../../src/guest/driver/rtl8139-driver.ts';
import { Rtl8139 } from '../../../src/nic/rtl8139/index.ts';
import { GuestMemory } from '../../../src/pci/guest-memory.ts';
import { portClientSuite } from '../../conformance/port-client.ts';
import { packet } from '../../lib/context.ts';
import { MAC } from '../../lib/rtl8139-rig.ts';

for (const chip of ['8139c+', '8139c'] as const) {
  portClientSuite(`rtl8139 (${chip})`, (context) => {
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
    const nic = new Rtl8139({ host, link: context, name: 'net0' }, { mac: MAC, chip });
    const driver = new Rtl8139Driver({ pci: nic, ram, loop: context.loop, promiscuous: true });
    driver.open();
    let isBlocked = false;
    const address = ram.allocate(64 * 64);
    return {
      port: nic.port,
      goodFrame: (tag) => packet(tag),
      block() {
        // The driver sleeps; what room there is fills up, so that not even the suite's few frames fit.
        isBlocked = true;
        for (let taken = 1; taken === 1; ) {
          const frame = context.pool.from(packet(1));
          taken = nic.receive(Int32Array.of(frame), 0, 1);
          if (taken === 0) context.pool.release(frame);
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
