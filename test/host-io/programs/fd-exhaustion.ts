/**
 * Run with few descriptors allowed. Uses them all up, then has a listener with connections waiting: prints what accept returned, how often
 * the listener was told meanwhile, and whether accept worked once a handle had been closed.
 */
import { closeSync, openSync } from 'node:fs';
import { READABLE } from '../../../src/host-io/host-io.ts';
import { createNativeHostIo } from '../../../src/host-io/native.ts';

const host = createNativeHostIo();
const listener = host.tcpListen({ address: '127.0.0.1', port: 0 });
const spare = host.eventFd();
const clients = [1, 2, 3].map(() => host.tcpConnect(host.localEndpoint(listener)));
const fds: number[] = [];
try {
  for (;;) fds.push(openSync('/dev/null', 'r'));
} catch {
  // EMFILE: as wanted.
}
let told = 0;
const results: number[] = [];
host.watch(listener, READABLE, () => {
  told++;
  const accepted = host.accept(listener);
  results.push(Math.sign(accepted) < 0 ? accepted : 1);
  if (results.length === 1) setTimeout(afterAWhile, 30);
  if (results.includes(1)) finish();
});

function afterAWhile(): void {
  results.push(told);
  host.close(spare);
}

function finish(): void {
  for (const fd of fds) closeSync(fd);
  for (const client of clients) host.close(client);
  host.shutdown();
  process.stdout.write(`${JSON.stringify(results)}\n`);
}
