/**
 * A frame as one line of text, for the comparison of two networks that were asked the same: all that a client sees, without what is random by nature (IP
 * identifiers, initial sequence numbers, ports that a server chose, timestamps' values).
 */

import { formatIpv4, formatIpv6, formatMac, toHex, u16be, u32be } from '../../../src/wire/bytes.ts';
import { TcpOptions } from '../../../src/wire/tcp.ts';

const FLAGS = ['FIN', 'SYN', 'RST', 'PSH', 'ACK', 'URG', 'ECE', 'CWR'];
const text = (bytes: Uint8Array): string => {
  const printable = bytes.length > 0 && bytes.every((byte) => byte >= 32 && byte < 127);
  if (!printable) return bytes.length > 48 ? `${bytes.length} bytes` : toHex(bytes, 0, bytes.length);
  return `'${new TextDecoder().decode(bytes)}'`;
};

export class FrameText {
  /** The first sequence number each side of a connection used, by its addresses and ports. */
  readonly #first = new Map<string, number>();
  /** Ports that servers chose: shown as 'X'. */
  readonly #chosen = new Set<number>();
  /** Show what only a few scenarios ask for: IP's TTL and DF. */
  headers = false;

  line(frame: Uint8Array): string {
    const type = u16be(frame, 12);
    const to = formatMac(frame, 0);
    const group = frame[0]! & 1 ? ` to ${to}` : '';
    if (type === 0x0806) return `${this.#arp(frame)}${group}`;
    if (type === 0x0800) return `${this.#v4(frame)}${group}`;
    if (type === 0x86dd) return `${this.#v6(frame)}${group}`;
    return `type ${type.toString(16)}, ${frame.length} bytes${group}`;
  }

  #arp(f: Uint8Array): string {
    const what = u16be(f, 20) === 2 ? 'reply' : u16be(f, 20) === 1 ? 'request' : `operation ${u16be(f, 20)}`;
    return `ARP ${what} ${formatIpv4(u32be(f, 28))} at ${formatMac(f, 22)}, for ${formatIpv4(u32be(f, 38))}`;
  }

  #v4(f: Uint8Array): string {
    const src = formatIpv4(u32be(f, 26));
    const dst = formatIpv4(u32be(f, 30));
    const at = 14 + (f[14]! & 15) * 4;
    const end = 14 + u16be(f, 16);
    const fragment = u16be(f, 20) & 0x3fff;
    const more = this.headers ? ` ttl ${f[22]} df ${(f[20]! >> 6) & 1}` : '';
    if (fragment !== 0)
      return `${src} ${dst} fragment ${fragment & 0x1fff}${fragment & 0x2000 ? '+' : ''}, ${end - at} bytes`;
    return this.#transport(f[23]!, f, at, end, src, dst) + more;
  }

  #v6(f: Uint8Array): string {
    const src = formatIpv6(f.subarray(22, 38));
    const dst = formatIpv6(f.subarray(38, 54));
    const end = 54 + u16be(f, 18);
    const more = this.headers ? ` hops ${f[21]}` : '';
    return this.#transport(f[20]!, f, 54, end, src, dst) + more;
  }

  #transport(protocol: number, f: Uint8Array, at: number, end: number, src: string, dst: string): string {
    const place = `${src} ${dst}`;
    if (protocol === 1) return `ICMP ${place} ${this.#icmp(f, at, end)}`;
    if (protocol === 58) return `ICMPv6 ${place} ${this.#icmp6(f, at, end)}`;
    if (protocol === 17) return this.#udp(f, at, end, src, dst);
    if (protocol === 6) return this.#tcp(f, at, end, src, dst);
    return `protocol ${protocol} ${place}, ${end - at} bytes`;
  }

  #icmp(f: Uint8Array, at: number, end: number): string {
    const type = f[at]!;
    const code = f[at + 1];
    if (type === 0 || type === 8)
      return `echo ${type === 0 ? 'reply' : 'request'} id ${u16be(f, at + 4)} seq ${u16be(f, at + 6)} ${text(f.subarray(at + 8, end))}`;
    const quote = at + 8;
    const about = `${formatIpv4(u32be(f, quote + 12))} ${formatIpv4(u32be(f, quote + 16))} protocol ${f[quote + 9]}`;
    return `type ${type} code ${code} about ${about}, ${end - quote} bytes quoted`;
  }

  #icmp6(f: Uint8Array, at: number, end: number): string {
    const type = f[at]!;
    if (type === 128 || type === 129)
      return `echo ${type === 129 ? 'reply' : 'request'} id ${u16be(f, at + 4)} seq ${u16be(f, at + 6)} ${text(f.subarray(at + 8, end))}`;
    if (type === 134) {
      const fields = `hops ${f[at + 4]} flags ${f[at + 5]!.toString(16)} lifetime ${u16be(f, at + 6)} reachable ${u32be(f, at + 8)} retrans ${u32be(f, at + 12)}`;
      return `router advertisement ${fields} options ${this.#ndOptions(f, at + 16, end)}`;
    }
    if (type === 135 || type === 136) {
      const name = type === 135 ? 'solicitation' : 'advertisement';
      const target = formatIpv6(f.subarray(at + 8, at + 24));
      return `neighbour ${name} flags ${(f[at + 4]! >> 5).toString(2)} ${target} options ${this.#ndOptions(f, at + 24, end)}`;
    }
    if (type < 128) {
      const quote = at + 8;
      const about = `${formatIpv6(f.subarray(quote + 8, quote + 24))} ${formatIpv6(f.subarray(quote + 24, quote + 40))} next ${f[quote + 6]}`;
      return `type ${type} code ${f[at + 1]} about ${about}, ${end - quote} bytes quoted`;
    }
    return `type ${type} code ${f[at + 1]}, ${end - at} bytes`;
  }

  #ndOptions(f: Uint8Array, from: number, end: number): string {
    const list: string[] = [];
    for (let at = from; at + 8 <= end && f[at + 1]! > 0; at += 8 * f[at + 1]!) {
      list.push(`${f[at]}=${toHex(f, at + 2, 8 * f[at + 1]! - 2)}`);
    }
    return `{${list.sort().join(' ')}}`;
  }

  #port(port: number): string {
    // Both choose a port for what has none of its own: a TFTP transfer, a connection from the host.
    return this.#chosen.has(port) ? 'X' : `${port}`;
  }

  choose(port: number): void {
    this.#chosen.add(port);
  }

  #udp(f: Uint8Array, at: number, end: number, src: string, dst: string): string {
    const from = u16be(f, at);
    const to = u16be(f, at + 2);
    const payload = f.subarray(at + 8, at + u16be(f, at + 4));
    const where = `${src}:${this.#port(from)} ${dst}:${this.#port(to)}`;
    const sum = u16be(f, at + 6) === 0 ? ' no checksum' : '';
    const length = at + u16be(f, at + 4) === end ? '' : ' length lies';
    if (from === 67) return `DHCP ${where} ${this.#dhcp(payload)}${sum}`;
    if (from === 547) return `DHCPv6 ${where} ${this.#dhcp6(payload)}`;
    if (from === 53)
      return `DNS ${where} id ${u16be(payload, 0)} flags ${toHex(payload, 2, 2)} answers ${u16be(payload, 6)}, ${payload.length} bytes`;
    if (to >= 6900 && to < 7000) return `TFTP ${where} ${this.#tftp(payload)}`;
    return `UDP ${where} ${text(payload)}${sum}${length}`;
  }

  #tftp(p: Uint8Array): string {
    const operation = u16be(p, 0);
    if (operation === 3) return `data ${u16be(p, 2)}, ${p.length - 4} bytes`;
    if (operation === 5) {
      return `error ${u16be(p, 2)} ${text(p.subarray(4, p.length - 1))}`;
    }
    if (operation === 6) {
      const words = new TextDecoder('latin1').decode(p.subarray(2)).split('\0');
      return `options ${words.slice(0, -1).join(' ')}`;
    }
    return `operation ${operation}, ${p.length} bytes`;
  }

  #dhcp(p: Uint8Array): string {
    const field = (at: number): string => formatIpv4(u32be(p, at));
    const string = (at: number, size: number): string =>
      new TextDecoder('latin1').decode(p.subarray(at, at + size)).replace(/\0.*$/s, '');
    const parts = [
      `op ${p[0]} xid ${toHex(p, 4, 4)} flags ${toHex(p, 10, 2)}`,
      `ciaddr ${field(12)} yiaddr ${field(16)} siaddr ${field(20)} giaddr ${field(24)}`,
      `chaddr ${formatMac(p, 28)} sname '${string(44, 64)}' file '${string(108, 128)}'`,
    ];
    const options: string[] = [];
    for (let at = 240; at < p.length && p[at] !== 255; ) {
      if (p[at] === 0) {
        at++;
        continue;
      }
      options.push(`${String(p[at]).padStart(3, '0')}=${toHex(p, at + 2, p[at + 1]!)}`);
      at += 2 + p[at + 1]!;
    }
    return `${parts.join(' ')} options {${options.sort().join(' ')}}`;
  }

  #dhcp6(p: Uint8Array): string {
    const options: string[] = [];
    for (let at = 4; at + 4 <= p.length; at += 4 + u16be(p, at + 2)) {
      options.push(`${u16be(p, at)}=${toHex(p, at + 4, u16be(p, at + 2))}`);
    }
    return `type ${p[0]} transaction ${toHex(p, 1, 3)} options {${options.sort().join(' ')}}`;
  }

  #tcp(f: Uint8Array, at: number, end: number, src: string, dst: string): string {
    const flags = f[at + 13]!;
    const names = FLAGS.filter((_, i) => flags & (1 << i)).join(' ');
    const header = (f[at + 12]! >> 4) * 4;
    const key = `${src} ${u16be(f, at)} ${dst} ${u16be(f, at + 2)}`;
    const seq = u32be(f, at + 4);
    if (flags & 2) this.#first.set(key, seq);
    const first = this.#first.get(key);
    const options = new TcpOptions();
    options.parse(f, at + 20, at + header);
    const list: string[] = [];
    if (options.mss > 0) list.push(`mss ${options.mss}`);
    if (options.windowScale >= 0) list.push(`scale ${options.windowScale}`);
    if (options.sackPermitted) list.push('sack');
    if (options.hasTimestamps) list.push('timestamps');
    if (options.sackCount > 0) list.push(`${options.sackCount} blocks`);
    // How a window moves with the data in between is each one's own affair.
    const told = u16be(f, at + 14);
    const window = (flags & 2) !== 0 || ((flags & 4) === 0 && told === 0) ? ` window ${told}` : '';
    const payload = f.subarray(at + header, end);
    const data = payload.length === 0 ? '' : ` ${text(payload)}`;
    const relative = first === undefined ? seq : (seq - first) >>> 0;
    // Acknowledgements of the client's own numbers, which start at 1000.
    const ack = flags & 16 ? ` ack ${u32be(f, at + 8)}` : '';
    const where = `${src}:${this.#port(u16be(f, at))} ${dst}:${u16be(f, at + 2)}`;
    return `TCP ${where} ${names} seq ${relative}${ack}${window} {${list.join(', ')}}${data}`;
  }
}
