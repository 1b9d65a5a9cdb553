/** Taps against the kernel's own network stack. Needs root, as taps do; addresses are of TEST-NET-2, on interfaces that go with the test. */

import { execFileSync } from 'node:child_process';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { HostIoError } from '../../src/core/errors.ts';
import {
  CSUM_OFFSET,
  CSUM_START,
  FACT_NEEDS_CSUM,
  FACTS,
  GSO_SIZE,
  GSO_TCPV4,
  GSO_UDP_L4,
  HEADER_LENGTH,
} from '../../src/core/pool.ts';
import { ACCEPT_ALL, ACCEPT_CSUM, ACCEPT_ECN, ACCEPT_TSO4, ACCEPT_TSO6 } from '../../src/core/port.ts';
import { ERRNO, READABLE, type TapInfo, WRITABLE } from '../../src/host-io/host-io.ts';
import { createNativeHostIo, type NativeHostIo } from '../../src/host-io/native.ts';
import { finishChecksum, internetChecksum, pseudoSumV4, sumBytes } from '../../src/wire/checksum.ts';
import { Lab, pattern, turn } from './lab.ts';

const HOST = '198.51.100.1';
const GUEST = '198.51.100.2';
const GUEST_MAC = [2, 0, 0, 0, 0, 2];

function ip(...args: string[]): void {
  execFileSync('ip', args);
}

function address(text: string): number[] {
  return text.split('.').map(Number);
}

function toNumber(text: string): number {
  return address(text).reduce((sum, byte) => sum * 256 + byte, 0);
}

/** An Ethernet frame with an IPv4 packet from the guest; `completed`: with a whole UDP checksum instead of the pseudo header's sum. */
function udpFrame(toMac: number[], toPort: number, payload: Uint8Array, completed: boolean): Uint8Array {
  const frame = new Uint8Array(42 + payload.length);
  frame.set([...toMac, ...GUEST_MAC, 8, 0]);
  const total = 28 + payload.length;
  frame.set(
    [0x45, 0, total >> 8, total & 0xff, 0, 1, 0, 0, 64, 17, 0, 0, ...address(GUEST), ...address(HOST)],
    14,
  );
  const header = internetChecksum(frame, 14, 20);
  frame.set([header >> 8, header & 0xff], 24);
  const length = 8 + payload.length;
  frame.set([0x12, 0x34, toPort >> 8, toPort & 0xff, length >> 8, length & 0xff, 0, 0], 34);
  frame.set(payload, 42);
  const pseudo = pseudoSumV4(toNumber(GUEST), toNumber(HOST), 17, length);
  const sum = completed
    ? finishChecksum(sumBytes(frame, 34, length, pseudo))
    : ~finishChecksum(pseudo) & 0xffff;
  frame.set([sum >> 8, sum & 0xff], 40);
  return frame;
}

describe('a tap', () => {
  let lab: Lab;
  let host: NativeHostIo;

  beforeEach(() => {
    lab = new Lab(() => createNativeHostIo());
    host = lab.host as NativeHostIo;
  });

  afterEach(() => lab.end());

  function open(options: { vnetHeader?: boolean }): { tap: TapInfo; mac: number[] } {
    const tap = host.tapOpen({ name: 'netemu%d', ...options });
    execFileSync('sysctl', ['-qw', `net.ipv6.conf.${tap.name}.disable_ipv6=1`]);
    ip('addr', 'add', `${HOST}/24`, 'dev', tap.name);
    ip('link', 'set', tap.name, 'up', 'mtu', '1500');
    ip('neigh', 'replace', GUEST, 'lladdr', GUEST_MAC.map((b) => b.toString(16)).join(':'), 'dev', tap.name);
    const shown = execFileSync('ip', ['-json', 'link', 'show', tap.name], { encoding: 'utf8' });
    const [{ address: text }] = JSON.parse(shown) as [{ address: string }];
    return { tap, mac: text.split(':').map((byte) => Number.parseInt(byte, 16)) };
  }

  /** Reads frames until one carries the IP protocol, and returns it; the others are released. */
  async function readProtocol(tap: TapInfo, protocol: number): Promise<number> {
    for (;;) {
      const slots = lab.slots(1, 65_536);
      const got = host.readFrames(tap.handle, slots, 0, 1);
      if (got === 1) {
        const bytes = lab.bytesOf(slots[0]!);
        if (bytes[12] === 8 && bytes[13] === 0 && bytes[23] === protocol) return slots[0]!;
      } else {
        expect(got).toBe(-ERRNO.EAGAIN);
        await lab.ready(tap.handle, READABLE);
      }
      lab.release(slots);
    }
  }

  it('writes frames into the host, checksum complete or left to be done', async () => {
    const { tap, mac } = open({});
    expect(tap.vnetHeader).toBe(true);
    expect(tap.name).toMatch(/^netemu\d+$/);
    const udp = host.udpOpen({ local: { address: HOST, port: 0 } });
    const { port } = host.localEndpoint(udp);
    const frames = lab.frames(
      udpFrame(mac, port, pattern(500), true),
      udpFrame(mac, port, pattern(501), false),
    );
    const { table } = lab.pool;
    table[frames[1]! + FACTS] = FACT_NEEDS_CSUM;
    table[frames[1]! + CSUM_START] = 34;
    table[frames[1]! + CSUM_OFFSET] = 6;
    expect(host.writeFrames(tap.handle, frames, 0, 2)).toBe(2);
    const got = lab.slots(2);
    await lab.receiveDatagrams(udp, got);
    expect(lab.bytesOf(got[0]!)).toEqual(pattern(500));
    expect(lab.bytesOf(got[1]!)).toEqual(pattern(501));
    lab.release(frames, got);
  });

  it('writes a GSO frame, from segments, which the host takes apart', async () => {
    const { tap, mac } = open({});
    const udp = host.udpOpen({ local: { address: HOST, port: 0 } });
    const { port } = host.localEndpoint(udp);
    const payload = pattern(3000);
    const whole = udpFrame(mac, port, payload, false);
    const region = lab.pool.addRegion(whole);
    const frames = lab.frames(whole.subarray(0, 200));
    lab.pool.borrow(frames[0]!, frames[0]!, region, 200, whole.length - 200);
    const { table } = lab.pool;
    table[frames[0]! + FACTS] = FACT_NEEDS_CSUM | (GSO_UDP_L4 << 8);
    table[frames[0]! + GSO_SIZE] = 1000;
    table[frames[0]! + HEADER_LENGTH] = 42;
    table[frames[0]! + CSUM_START] = 34;
    table[frames[0]! + CSUM_OFFSET] = 6;
    expect(host.writeFrames(tap.handle, frames, 0, 1)).toBe(1);
    const got = lab.slots(3);
    await lab.receiveDatagrams(udp, got);
    for (let i = 0; i < 3; i++)
      expect(lab.bytesOf(got[i]!)).toEqual(payload.subarray(i * 1000, (i + 1) * 1000));
    lab.release(frames, got);
  });

  it('reads frames with the facts of those offloads that netemu takes, and without them otherwise', async () => {
    const { tap } = open({});
    const udp = host.udpOpen({ remote: { address: GUEST, port: 4000 } });
    const sent = lab.frames(pattern(300));
    const { table } = lab.pool;
    for (const accepts of [ACCEPT_CSUM, 0]) {
      expect(host.tapOffloads(tap.handle, accepts)).toBe(true);
      expect(host.sendDatagrams(udp, sent, 0, 1)).toBe(1);
      const frame = await readProtocol(tap, 17);
      const bytes = lab.bytesOf(frame);
      expect(bytes.subarray(42)).toEqual(pattern(300));
      expect([...bytes.subarray(0, 6)]).toEqual(GUEST_MAC);
      if (accepts === 0) {
        expect(table[frame + FACTS]).toBe(0);
        const pseudo = pseudoSumV4(toNumber(HOST), toNumber(GUEST), 17, 308);
        expect(finishChecksum(sumBytes(bytes, 34, 308, pseudo))).toBe(0);
      } else {
        expect(table[frame + FACTS]).toBe(FACT_NEEDS_CSUM);
        expect([table[frame + CSUM_START], table[frame + CSUM_OFFSET]]).toEqual([34, 6]);
      }
      lab.pool.release(frame);
    }
    lab.release(sent);
  });

  it('reads a whole TCP segment of many packets as one frame', async () => {
    const { tap, mac } = open({});
    expect(host.tapOffloads(tap.handle, ACCEPT_CSUM | ACCEPT_TSO4 | ACCEPT_TSO6 | ACCEPT_ECN)).toBe(true);
    const client = host.tcpConnect({ address: GUEST, port: 80 });
    const syn = await readProtocol(tap, 6);
    const bytes = lab.bytesOf(syn);
    lab.pool.release(syn);
    // Answers the SYN by hand: SYN and ACK, window 65535, MSS 1460.
    const sequence =
      (bytes[38]! * 0x100_0000 + (bytes[39]! << 16) + (bytes[40]! << 8) + bytes[41]! + 1) >>> 0;
    const answer = new Uint8Array(58);
    answer.set([
      ...mac,
      ...GUEST_MAC,
      8,
      0,
      0x45,
      0,
      0,
      44,
      0,
      1,
      0,
      0,
      64,
      6,
      0,
      0,
      ...address(GUEST),
      ...address(HOST),
    ]);
    const header = internetChecksum(answer, 14, 20);
    answer.set([header >> 8, header & 0xff], 24);
    answer.set([0, 80, bytes[34]!, bytes[35]!, 0, 0, 0, 9], 34);
    answer.set([sequence >>> 24, (sequence >> 16) & 255, (sequence >> 8) & 255, sequence & 255], 42);
    answer.set([0x60, 0x12, 0xff, 0xff, 0, 0, 0, 0, 2, 4, 1460 >> 8, 1460 & 0xff], 46);
    const sum = finishChecksum(sumBytes(answer, 34, 24, pseudoSumV4(toNumber(GUEST), toNumber(HOST), 6, 24)));
    answer.set([sum >> 8, sum & 0xff], 50);
    const frames = lab.frames(answer);
    expect(host.writeFrames(tap.handle, frames, 0, 1)).toBe(1);
    await lab.ready(client, WRITABLE);
    expect(host.takeError(client)).toBe(0);
    const payload = pattern(10_000);
    expect(host.sendBytes(client, payload, 0, payload.length)).toBe(payload.length);
    for (;;) {
      const frame = await readProtocol(tap, 6);
      const facts = lab.pool.table[frame + FACTS]!;
      const size = lab.pool.table[frame + GSO_SIZE]!;
      const start = lab.pool.table[frame + CSUM_START]!;
      const length = lab.bytesOf(frame).length;
      lab.pool.release(frame);
      if (facts >> 8 === 0) continue; // the bare ACK
      expect(facts).toBe(FACT_NEEDS_CSUM | (GSO_TCPV4 << 8));
      expect([size, start]).toEqual([1460, 34]);
      expect(length).toBeGreaterThan(1514);
      break;
    }
    host.reset(client);
    lab.release(frames);
  });

  it('lets UDP send what the path cannot take as runs one by one', async () => {
    const { tap } = open({});
    const udp = host.udpOpen({ remote: { address: GUEST, port: 4000 } });
    // Longer than the MTU: the kernel refuses to group these, and fragments each.
    const sent = lab.frames(pattern(3000, 1), pattern(3000, 2), pattern(3000, 3), pattern(100), pattern(100));
    expect(host.sendDatagrams(udp, sent, 0, 5)).toBe(5);
    const lengths: number[] = [];
    while (lengths.length < 11) {
      const frame = await readProtocol(tap, 17);
      lengths.push(lab.bytesOf(frame).length - 34);
      lab.pool.release(frame);
    }
    expect(lengths.sort((a, b) => a - b)).toEqual([48, 48, 48, 108, 108, 1480, 1480, 1480, 1480, 1480, 1480]);
    lab.release(sent);
  });

  it('works without the header, and takes batches until there is no more', async () => {
    const { tap } = open({ vnetHeader: false });
    expect(tap.vnetHeader).toBe(false);
    const udp = host.udpOpen({ remote: { address: GUEST, port: 4000 } });
    const sent = lab.frames(...Array.from({ length: 20 }, (_, i) => pattern(200 + 10 * i)));
    for (let i = 0; i < 20; i++) expect(host.sendDatagrams(udp, sent, i, i + 1)).toBe(1);
    const slots = lab.slots(64);
    let count = 0;
    while (count < 20) {
      const got = host.readFrames(tap.handle, slots, count, 64);
      if (got > 0) count += got;
      else await turn();
    }
    const seen = [...slots.subarray(0, count)].filter((frame) => lab.bytesOf(frame)[23] === 17);
    for (const [i, frame] of seen.entries()) {
      expect(lab.bytesOf(frame).length).toBe(42 + 200 + 10 * i);
      expect(lab.pool.table[frame + FACTS]).toBe(0);
    }
    expect(host.readFrames(tap.handle, slots, count, 64)).toBe(-ERRNO.EAGAIN);
    lab.release(sent, slots);
  });

  it('has many queues when asked, each a handle', () => {
    const first = host.tapOpen({ name: 'netemuq%d', multiQueue: true });
    const second = host.tapOpen({ name: first.name, multiQueue: true });
    expect(second.name).toBe(first.name);
    expect(() => host.tapOpen({ name: first.name })).toThrow(HostIoError);
  });

  it('says what is wrong with a name, and drops frames for a link that is down', () => {
    expect(() => host.tapOpen({ name: 'much-too-long-a-name' })).toThrow(/Invalid argument/);
    const tap = host.tapOpen({ name: 'netemu%d' });
    const frames = lab.frames(pattern(60));
    expect(host.writeFrames(tap.handle, frames, 0, 1)).toBe(-ERRNO.EIO);
    expect(host.tapOffloads(host.eventFd(), ACCEPT_ALL)).toBe(false);
    expect(host.readFrames(tap.handle, Int32Array.of(3), 0, 1)).toBe(-ERRNO.EINVAL);
    expect(host.writeFrames(tap.handle, Int32Array.of(0), 0, 1)).toBe(-ERRNO.EINVAL);
    lab.release(frames);
  });
});
