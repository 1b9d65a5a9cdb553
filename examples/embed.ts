/**
 * A whole machine around a NIC in under 100 lines: 64 KiB of RAM, an e1000, and a "program" that a CPU would run, which finds its gateway by ARP.
 * Run it with `npx tsx examples/embed.ts`; with the package installed, import from 'netemu' instead of '../src/index.ts'.
 */

import {
  createHostIo,
  type DeviceHost,
  GuestMemory,
  Network,
  type Nic,
  nics,
  nodeBackends,
  SystemClock,
  seededRandom,
  silentLogger,
} from '../src/index.ts';

const RX_RING = 0x1000;
const TX_RING = 0x2000;
const RX_BUFFERS = 0x4000;
const TX_BUFFER = 0x3000;
const RCTL = 0x100;
const TCTL = 0x400;
const RDBAL = 0x2800;
const TDBAL = 0x3800;
const [LENGTH, TAIL] = [0x08, 0x18];

/** Resolves with the gateway's MAC address. */
export async function askGateway(): Promise<string> {
  // 1. The network: a clock, where chance comes from, the host's sockets, and one netdev.
  const hostIo = createHostIo({ implementation: 'auto' });
  const clock = new SystemClock(() => performance.now());
  const random = seededRandom(1);
  const network = new Network({ clock, random, backends: nodeBackends, nics, hostIo });
  await network.addNetdev({ type: 'user', id: 'n0' });

  // 2. What the NIC sees of the machine: RAM, the loop, and an interrupt pin.
  const ram = new Uint8Array(0x10000);
  const memory = new GuestMemory(network.pool);
  memory.add(0, ram);
  let interrupt: () => void = () => {};
  const host: DeviceHost = {
    memory,
    loop: network.loop,
    random,
    log: silentLogger,
    setIntx: (level) => level && interrupt(),
    signalMsi() {},
  };
  const { nic } = network.addDevice({ driver: 'e1000', netdev: 'n0', mac: '52:54:00:00:00:01', host });

  try {
    // 3. The loop runs on the host's time by itself; an emulator with time slices of its own calls network.loop.run() in each.
    hostIo.drive(network.loop);
    return await program(nic, ram, (handler) => {
      interrupt = handler;
    });
  } finally {
    network.close();
    memory.removeAll();
    hostIo.shutdown();
  }
}

/** What the CPU would run: its loads and stores to the NIC are readBar and writeBar. */
function program(nic: Nic, ram: Uint8Array, onInterrupt: (handler: () => void) => void): Promise<string> {
  const view = new DataView(ram.buffer);
  const store = (register: number, value: number): void => nic.writeBar(0, register, 4, value);
  nic.writeConfig(4, 2, 0x6); // memory and bus mastering on
  for (let i = 0; i < 8; i++) view.setUint32(RX_RING + 16 * i, RX_BUFFERS + 2048 * i, true);
  store(RDBAL, RX_RING);
  store(RDBAL + LENGTH, 128);
  store(RDBAL + TAIL, 7);
  store(RCTL, 0x04008002); // on, broadcast accepted, FCS stripped
  store(TDBAL, TX_RING);
  store(TDBAL + LENGTH, 128);
  store(TCTL, 0x2);
  store(0xd0, 0x80); // IMS.RXT0: an interrupt for each frame

  // Who has 10.0.2.2? Tell 10.0.2.15.
  const ethernet = 'ffffffffffff5254000000010806';
  const arp = '00010800060400015254000000010a00020f0000000000000a000202';
  const request = Buffer.from(ethernet + arp, 'hex');
  ram.set(request, TX_BUFFER);
  view.setUint32(TX_RING, TX_BUFFER, true);
  view.setUint32(TX_RING + 8, 0x0b000000 | request.length, true);
  return new Promise((resolve) => {
    onInterrupt(() => {
      nic.readBar(0, 0xc0, 4); // ICR: acknowledged
      const done = (ram[RX_RING + 12]! & 1) !== 0;
      if (done) resolve(Buffer.from(ram.subarray(RX_BUFFERS + 6, RX_BUFFERS + 12)).toString('hex'));
    });
    store(TDBAL + TAIL, 1);
  });
}

if (process.argv[1]?.endsWith('embed.ts')) console.log(`10.0.2.2 is at ${await askGateway()}`);
