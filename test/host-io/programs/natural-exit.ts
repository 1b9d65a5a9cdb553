/** Ends by itself: a driven loop with a timer that fires, an echo that is closed, a host that is never shut down. */
import { SystemClock } from '../../../src/core/clock.ts';
import { Loop } from '../../../src/core/loop.ts';
import { READABLE, WRITABLE } from '../../../src/host-io/host-io.ts';
import { createHostIo } from '../../../src/host-io/index.ts';

const implementation = process.argv[2] === 'portable' ? 'portable' : 'native';
const host = createHostIo({ implementation });
const loop = new Loop(new SystemClock(() => performance.now()));
host.drive(loop);
const idle = loop.timer(() => {});
idle.armIn(3600e9);
const listener = host.tcpListen({ address: '127.0.0.1', port: 0 });
const client = host.tcpConnect(host.localEndpoint(listener));
const ball = new Uint8Array(4);
host.watch(client, WRITABLE, () => {
  host.setInterest(client, 0);
  host.sendBytes(client, ball, 0, 4);
});
host.watch(listener, READABLE, () => {
  const server = host.accept(listener);
  if (server < 0) return;
  host.watch(server, READABLE, () => {
    if (host.receiveBytes(server, ball, 0, 4) !== 4) return;
    loop
      .timer(() => {
        for (const handle of [server, client, listener]) host.close(handle);
        idle.cancel();
        process.stdout.write('closed\n');
      })
      .armIn(2e6);
  });
});
