/** The user network as the client of a port: ownership, order, backpressure, odd lengths, closing. */
import { UserBackend } from '../../../src/backends/user/index.ts';
import { parseNetdev } from '../../../src/config/netdevs/index.ts';
import { seededRandom } from '../../../src/core/clock.ts';
import { silentLogger } from '../../../src/core/log.ts';
import { portClientSuite } from '../../conformance/port-client.ts';
import { fakeHostIo } from '../../lib/fake-host-io.ts';
import { udpFrame } from './lib/guest.ts';
import { bytes } from './lib/world.ts';

for (const options of ['', ',ipv6=off', ',restrict=on']) {
  portClientSuite(`user${options}`, (context) => {
    const config = parseNetdev(`user,id=n0${options}`);
    if (config.type !== 'user') throw new Error('type');
    const hostIo = fakeHostIo(context.loop, context.pool);
    const backend = new UserBackend(
      'n0',
      config,
      { ...context, random: seededRandom(5), log: silentLogger, hostIo, emit: () => {} },
      { resolvers: () => ['192.0.2.53'] },
    );
    const port = backend.ports[0]!;
    const settle = (): void => context.loop.runUntil(context.clock.nowNs() + 1e6);
    const answers = (count: number): void => {
      for (let i = 0; i < count; i++) {
        const frame = context.pool.from(udpFrame('10.0.2.15', 5000, '192.0.2.1', 9, bytes(`q${i}`)));
        if (port.peer!.send(Int32Array.of(frame), 0, 1) === 0) context.pool.release(frame);
        settle();
        hostIo.pushDatagram(hostIo.latest, bytes(`a${i}`));
      }
    };
    return {
      port,
      goodFrame: (tag) => udpFrame('10.0.2.15', 5000 + tag, '192.0.2.1', 9, Uint8Array.of(tag)),
      // With restrict there are only ICMP errors, which are not kept for a guest that takes nothing.
      ...(options.includes('restrict') ? {} : { emit: answers }),
      settle,
      close: () => {
        backend.close();
        settle();
      },
    };
  });
}
