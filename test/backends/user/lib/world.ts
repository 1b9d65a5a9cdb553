/** A guest, the user network and a host in memory, on the virtual clock. */
import { expect } from 'vitest';
import type { BackendContext } from '../../../../src/backends/backend.ts';
import { UserBackend } from '../../../../src/backends/user/index.ts';
import type { UserServices } from '../../../../src/backends/user/site.ts';
import { parseNetdev } from '../../../../src/config/netdevs/index.ts';
import { seededRandom } from '../../../../src/core/clock.ts';
import { type Logger, silentLogger } from '../../../../src/core/log.ts';
import { ACCEPT_ALL, Port } from '../../../../src/core/port.ts';
import { adapt } from '../../../../src/nic/offload.ts';
import { testContext } from '../../../lib/context.ts';
import { type FakeSocket, fakeHostIo } from '../../../lib/fake-host-io.ts';
import { TestUser } from '../../../tcp/lib/pair.ts';
import { Guest, type GuestOptions, udpFrame } from './guest.ts';

export class World {
  readonly context = testContext({ adapt, smallSlots: 6144, largeSlots: 160 });
  readonly host = fakeHostIo(this.context.loop, this.context.pool);
  readonly backend: UserBackend;
  readonly guest: Guest;
  resolvers: string[] = ['192.0.2.53'];
  #ended = false;

  constructor(
    options = '',
    guest: GuestOptions = {},
    services: Partial<UserServices> = {},
    log: Partial<Logger> = {},
    more: Partial<BackendContext> = {},
  ) {
    const config = parseNetdev(`user,id=n0${options}`);
    if (config.type !== 'user') throw new Error('not user');
    this.backend = new UserBackend(
      'n0',
      config,
      {
        ...this.context,
        random: seededRandom(5),
        log: { ...silentLogger, ...log },
        hostIo: this.host,
        emit: () => {},
        ...more,
      },
      { resolvers: () => this.resolvers, ...services },
    );
    this.guest = new Guest(this.context, { accepts: ACCEPT_ALL, ...guest });
    Port.connect(this.guest.port, this.backend.ports[0]!);
  }

  run(ns = 1e6): void {
    this.context.loop.runUntil(this.context.clock.nowNs() + ns);
  }

  user(): TestUser {
    return new TestUser(this.context.pool);
  }

  /** The guest sends frames; returns what it got in answer. */
  ask(...frames: Uint8Array[]): Uint8Array[] {
    this.guest.take();
    this.guest.send(...frames);
    this.run();
    return this.guest.take();
  }

  /** The guest connects; returns its user and the host's socket, not connected yet. */
  connect(address: string, port: number): { user: TestUser; socket: FakeSocket } {
    const user = this.user();
    this.guest.connect(user, address, port);
    this.run();
    return { user, socket: this.host.latest };
  }

  udp(dst: string, port: number, data: Uint8Array, srcPort = 5000): Uint8Array[] {
    return this.ask(udpFrame(this.guest.ip, srcPort, dst, port, data));
  }

  /** Takes everything down and asks that nothing is left. */
  end(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.guest.port.disconnect();
    this.backend.close();
    this.guest.close();
    this.run();
    expect(this.host.openCount).toBe(0);
    expect(this.backend.tcp.stack.heldSlots).toBe(0);
    expect(this.context.pool.free).toBe(this.context.pool.capacity);
    expect(this.context.pool.freeBare).toBe(512);
    this.context.loop.runUntil(this.context.clock.nowNs() + 600e9);
    expect(this.context.loop.nextNs).toBe(Number.POSITIVE_INFINITY);
  }
}

export const text = (bytes: Uint8Array): string => new TextDecoder().decode(bytes);
export const bytes = (value: string): Uint8Array => new TextEncoder().encode(value);
