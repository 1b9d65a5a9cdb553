/** What the rtl8139 benches share: one NIC on the e1000 benches' machine, with its peer. */
import { ACCEPT_ALL, Port } from '../../src/core/port.ts';
import { adapt } from '../../src/nic/offload.ts';
import { Rtl8139 } from '../../src/nic/rtl8139/index.ts';
import { MAC, Machine } from './e1000.ts';

/** One rtl8139 whose peer is `sink`. */
export class Rtl8139Bench {
  readonly machine = new Machine();
  readonly nic: Rtl8139;
  readonly peer: Port;
  sink: (frames: Int32Array, from: number, to: number) => number;

  constructor(chip: '8139c+' | '8139c') {
    const { machine } = this;
    const link = { pool: machine.pool, loop: machine.loop, adapt };
    this.nic = new Rtl8139({ host: machine, link, name: 'rtl8139' }, { mac: MAC, chip });
    this.sink = (frames, from, to) => {
      machine.pool.releaseAll(frames, from, to);
      return to - from;
    };
    const receive = (frames: Int32Array, from: number, to: number): number => this.sink(frames, from, to);
    this.peer = new Port('peer', 'backend', { receive, peerReady() {} }, link);
    this.peer.accepts = ACCEPT_ALL;
    Port.connect(this.nic.port, this.peer);
  }

  close(): void {
    this.nic.close();
    this.machine.loop.run();
    if (this.machine.pool.free !== this.machine.pool.capacity) throw new Error('frames leaked');
  }
}
