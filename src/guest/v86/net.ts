/**
 * v86's own NIC (ne2k or virtio, `net_device` in its options) as one end of a link: its frames come and go as byte arrays on the machine's
 * bus, `net0-send` from the guest and `net0-receive` to it. A frame that the link does not take at once is dropped and counted: the bus knows no
 * backpressure. The machine must be made with a relay_url that connects nowhere, or another backend will answer as well.
 */

import { type Client, type LinkContext, Port } from '../../core/port.ts';
import { machineOf, type V86Machine } from './machine.ts';

export class V86NetStats {
  txFrames = 0;
  rxFrames = 0;
  dropNoBuffer = 0;
  dropPeerBusy = 0;
}

export class V86Net implements Client {
  readonly port: Port;
  readonly stats = new V86NetStats();
  readonly #machine: V86Machine;
  readonly #link: LinkContext;
  readonly #nic: number;
  readonly #one = new Int32Array(1);
  readonly #sent: (bytes: Uint8Array) => void;

  constructor(emulator: object, link: LinkContext, nic = 0) {
    const machine = machineOf(emulator);
    this.#machine = machine;
    this.#link = link;
    this.#nic = nic;
    this.port = new Port(`v86.${nic}`, 'nic', this, link);
    this.#sent = (bytes) => this.#send(bytes);
    machine.bus.register(`net${nic}-send`, this.#sent, this);
  }

  #send(bytes: Uint8Array): void {
    const { pool } = this.#link;
    const frame = pool.from(bytes);
    if (frame === 0) {
      this.stats.dropNoBuffer++;
      return;
    }
    this.#one[0] = frame;
    if (this.port.send(this.#one, 0, 1) === 1) {
      this.stats.txFrames++;
    } else {
      this.stats.dropPeerBusy++;
      pool.release(frame);
    }
  }

  receive(frames: Int32Array, from: number, to: number): number {
    const { pool } = this.#link;
    for (let i = from; i < to; i++) {
      this.#machine.bus.send(`net${this.#nic}-receive`, pool.toBytes(frames[i]!));
      pool.release(frames[i]!);
      this.stats.rxFrames++;
    }
    return to - from;
  }

  peerReady(): void {}

  linkChanged(): void {}

  close(): void {
    this.#machine.bus.unregister(`net${this.#nic}-send`, this.#sent);
    this.port.disconnect();
  }
}

/** Joins v86's NIC number `nic` to `port`, a netdev's or another NIC's. */
export function attachNet(emulator: object, link: LinkContext, port: Port, nic = 0): V86Net {
  const net = new V86Net(emulator, link, nic);
  Port.connect(net.port, port);
  return net;
}
