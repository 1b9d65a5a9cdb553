/** A host of its own in a worker thread: receives what comes on a UDP port and answers it. Ended by being terminated. */
import { parentPort } from 'node:worker_threads';
import { FramePool } from '../../../src/core/pool.ts';
import { unpackAddress } from '../../../src/host-io/address.ts';
import { ADDRESS_BYTES, READABLE } from '../../../src/host-io/host-io.ts';
import { createNativeHostIo } from '../../../src/host-io/native.ts';

const host = createNativeHostIo();
const pool = new FramePool({ smallSlots: 64, largeSlots: 1, bareRecords: 1 });
host.attachPool(pool);
const socket = host.udpOpen({ local: { address: '127.0.0.1', port: 0 } });
const frames = Int32Array.from({ length: 16 }, () => pool.alloc(2048));
const addresses = new Uint8Array(16 * ADDRESS_BYTES);
host.watch(socket, READABLE, () => {
  const got = host.receiveDatagrams(socket, frames, 0, 16, 0, addresses);
  for (let i = 0; i < got; i++)
    host.sendDatagrams(socket, frames, i, i + 1, unpackAddress(addresses, i * ADDRESS_BYTES)!);
});
host.memoryFd('of the worker', 4096);
parentPort!.postMessage(host.localEndpoint(socket).port);
