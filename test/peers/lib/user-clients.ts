/**
 * The programs that people use a network with, one list for every place that has netemu's user network: a namespace, a guest. Each checks what
 * it got against what the host has.
 */

import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { ANSWER_V4, ANSWER_V6, LONG_STRINGS } from './dns-server.ts';
import type { ScriptResult, Shell } from './netns.ts';
import { sha } from './servers.ts';
import type { UserServices } from './user-services.ts';

const FLOWS = 10_000;
/** What a QUIC client sends at first (RFC 9000 section 14.1). */
const DATAGRAM_BYTES = 1200;
/** The place's queues hold more datagrams than this. */
const WINDOW = 64;

/** Where the list runs; the network has the options of UserServices.netdevOptions. */
export interface Place {
  shell: Shell;
  /** What netemu has said. */
  said: () => string;
  ifname: string;
  /** As DHCP tells it; null: it does not, which means 1500. */
  mtu: number | null;
  /** A folder of the place's own, and the path of guest-programs/udp-flows.c there. */
  folder: string;
  udpFlows: string;
}

export interface Amounts {
  /** By curl, each way and family: fetched, and uploaded. */
  downBytes: number;
  upBytes: number;
  /** By each test of iperf3 over TCP. */
  iperfBytes: number;
  /** By ssh, there and back. */
  sshBytes: number;
}

/** Runs a program of the host's to its end with an input, while the servers of this process go on serving. */
function withInput(
  program: string,
  args: readonly string[],
  input: Uint8Array,
): Promise<{ status: number | null; output: Buffer }> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { stdio: ['pipe', 'pipe', 'inherit'] });
    const parts: Buffer[] = [];
    child.stdout.on('data', (part: Buffer) => parts.push(part));
    child.on('error', reject);
    child.on('close', (status) => resolve({ status, output: Buffer.concat(parts) }));
    child.stdin.on('error', () => {});
    child.stdin.end(input);
  });
}

export function userClients(at: () => Place, from: () => UserServices, amounts: Amounts): void {
  const run = (script: string): Promise<ScriptResult> => at().shell.run(script);
  const put = async (path: string, content: string): Promise<void> => {
    const text = Buffer.from(content).toString('base64');
    expect(await run(`echo ${text} | base64 -d >${path} && chmod 700 ${path}`)).toEqual({
      status: 0,
      output: '',
    });
  };

  describe('transfers', () => {
    it.each([
      ['IPv4', '10.0.2.2', 'httpPort'],
      ['IPv6', '[fec0::2]', 'http6Port'],
    ] as const)('curl fetches and uploads with the right hash by %s', async (family, host, port) => {
      const { downBytes, upBytes } = amounts;
      const url = `http://${host}:${from()[port]}`;
      const down = await run(`curl -g -sS ${url}/${downBytes} | sha256sum`);
      expect(down).toEqual({ status: 0, output: `${from().hashOf(downBytes)}  -\n` });
      const file = `${at().folder}/up`;
      const up = await run(
        `curl -g -sS -o ${file} ${url}/${upBytes} && curl -g -sS -T ${file} ${url}/${family}; status=$?; rm ${file}; exit $status`,
      );
      expect(up).toEqual({ status: 0, output: '' });
      expect(from().uploads.get(`/${family}`)).toBe(from().hashOf(upBytes));
    });

    it('tftp reads a file in blocks of 512, 1428 and 8192 bytes', async () => {
      const out = `${at().folder}/got`;
      for (const size of ['', '-b 1428', '-b 8192']) {
        const { output, status } = await run(
          `busybox tftp -g ${size} -r boot.img -l ${out} 10.0.2.2 && sha256sum <${out}`,
        );
        expect(output).toContain(from().bootSha);
        expect(status).toBe(0);
      }
      const { output } = await run(`tftp -m binary 10.0.2.2 -c get boot.img ${out} && sha256sum <${out}`);
      expect(output).toContain(from().bootSha);
      const missing = await run(`busybox tftp -g -r none -l ${out} 10.0.2.2`);
      expect(missing.output).toMatch(/not found/i);
      expect(missing.status).not.toBe(0);
    });

    it("smbclient puts and gets through the host's smbd", async () => {
      const { share } = from();
      const { folder } = at();
      const content = randomBytes(5_000_001);
      writeFileSync(join(share, 'given'), content);
      const { output, status } = await run(
        `cd ${folder} && smbclient //10.0.2.4/qemu -N -c 'get given; put given up; mkdir below; put given below/up; ls' && sha256sum <given`,
      );
      expect(output).toMatch(/^ {2}below +D +0 /m);
      expect(output).toMatch(/^ {2}up +A +5000001 /m);
      expect(output).toContain(sha(content));
      expect(status).toBe(0);
      for (const name of ['up', 'below/up'])
        expect(sha(readFileSync(join(share, name))), name).toBe(sha(content));
      writeFileSync(join(share, "the host's"), 'here');
      const again = await run(
        `smbclient //10.0.2.4/qemu -N -c "get \\"the host's\\" ${folder}/theirs" && cat ${folder}/theirs`,
      );
      expect(again.status).toBe(0);
      expect(again.output).toContain('here');
      const missing = await run("smbclient //10.0.2.4/qemu -N -c 'get nothing'");
      expect(missing.output).toContain('NT_STATUS_OBJECT_NAME_NOT_FOUND');
    });

    it('ssh: a server there is reached through forwards of both families: bytes there and back, and a status', async () => {
      const { folder, said } = at();
      await put(`${folder}/host-key`, from().key('host-key'));
      await put(`${folder}/user-key.pub`, from().key('user-key.pub'));
      const lines = [
        'Port 2222',
        `HostKey ${folder}/host-key`,
        `AuthorizedKeysFile ${folder}/user-key.pub`,
        `PidFile ${folder}/sshd.pid`,
        'StrictModes no',
        'UsePAM no',
        'PermitRootLogin prohibit-password',
      ];
      await put(`${folder}/sshd_config`, `${lines.join('\n')}\n`);
      expect(
        await run(`mkdir -p /run/sshd; /usr/sbin/sshd -f ${folder}/sshd_config -E ${folder}/sshd.log`),
      ).toEqual({ status: 0, output: '' });
      const ports = [...said().matchAll(/forwarding tcp (127\.0\.0\.1|\[::1\]):(\d+) to/g)];
      expect(ports.map(([, address]) => address)).toEqual(['127.0.0.1', '[::1]']);
      const options = ['StrictHostKeyChecking=no', 'UserKnownHostsFile=/dev/null', 'LogLevel=ERROR'];
      const ssh = (way: number, command: string, input = new Uint8Array(0)) =>
        withInput(
          'ssh',
          [
            ...['-p', ports[way]![2]!, '-i', from().keyFile],
            ...options.flatMap((option) => ['-o', option]),
            ...[`root@${ports[way]![1]!.replace(/[[\]]/g, '')}`, command],
          ],
          input,
        );
      const bytes = randomBytes(amounts.sshBytes);
      for (const way of [0, 1]) expect(sha((await ssh(way, 'cat', bytes)).output)).toBe(sha(bytes));
      const { output } = await ssh(0, `ip -o -4 addr show ${at().ifname}`);
      expect(output.toString()).toContain('10.0.2.15/24');
      expect((await ssh(1, 'exit 7')).status).toBe(7);
      await run(`kill $(cat ${folder}/sshd.pid)`);
    });
  });

  describe('names and leases', () => {
    it('dig asks over UDP and TCP, both families, and by resolv.conf', async () => {
      const { dns } = from();
      const tcpBefore = dns.tcpQueries;
      const { output } = await run(`dig +short name.test
        dig +short AAAA name.test
        dig +short +tcp name.test
        dig +short @fec0::3 name.test
        dig +short +tcp @fec0::3 name.test`);
      expect(output.trim().split('\n')).toEqual([ANSWER_V4, ANSWER_V6, ANSWER_V4, ANSWER_V4, ANSWER_V4]);
      expect(dns.tcpQueries - tcpBefore).toBe(2);
      expect(dns.udpQueries).toBeGreaterThanOrEqual(3);
    });

    it('an answer too long for a datagram comes by TCP; a name that is not there is not there', async () => {
      const { dns } = from();
      const before = dns.tcpQueries;
      const long = await run('dig +noedns +short TXT long.test');
      expect(long.output.match(/x{200}/g)).toHaveLength(LONG_STRINGS);
      expect(dns.tcpQueries).toBe(before + 1);
      expect((await run('dig nowhere.test')).output).toContain('status: NXDOMAIN');
    });

    it('udhcpc gets a lease', async () => {
      const { folder, ifname, mtu } = at();
      await put(
        `${folder}/lease`,
        '#!/bin/sh\nif [ "$1" = bound ]; then echo "$1 $ip/$mask $router $dns $domain $mtu"; fi\n',
      );
      const { output, status } = await run(
        `busybox udhcpc -i ${ifname} -n -q -f -O mtu -O domain -s ${folder}/lease`,
      );
      expect(output).toContain(`bound 10.0.2.15/24 10.0.2.2 10.0.2.3 net.test ${mtu ?? ''}\n`);
      expect(status).toBe(0);
    });

    it("ISC's dhclient gets one, and what goes with it", async () => {
      const { folder, ifname, mtu } = at();
      await put(`${folder}/dhclient`, `#!/bin/sh\nenv | grep -E '^(reason|new_)' >>${folder}/told\n`);
      // -1: one try; it goes to the background with its lease.
      const files = `-sf ${folder}/dhclient -lf ${folder}/leases -pf ${folder}/pid`;
      const { output, status } = await run(
        `touch ${folder}/leases; dhclient -1 ${files} ${ifname} && dhclient -x ${files} ${ifname}; status=$?; cat ${folder}/leases ${folder}/told; exit $status`,
      );
      expect(output).toContain('fixed-address 10.0.2.15;');
      expect(output).toContain('option routers 10.0.2.2;');
      expect(output).toContain('option domain-name-servers 10.0.2.3;');
      expect(output).toContain('option domain-name "net.test";');
      expect(output).toContain('reason=BOUND\n');
      expect(/new_interface_mtu=(\d+)/.exec(output)?.[1]).toBe(mtu?.toString());
      expect(output).toContain('new_host_name=guest\n');
      expect(output).toContain('new_domain_search=net.test. other.test.\n');
      expect(status).toBe(0);
    });

    it('and by DHCPv6 what has no lease: a name server, domains to search', async () => {
      const { folder, ifname } = at();
      await put(`${folder}/dhclient6`, `#!/bin/sh\nenv | grep -E '^(reason|new_)' >>${folder}/told6\n`);
      const files = `-sf ${folder}/dhclient6 -lf ${folder}/leases6 -pf ${folder}/pid6`;
      const { output, status } = await run(
        `touch ${folder}/leases6; dhclient -6 -S -1 ${files} ${ifname} && dhclient -6 -x ${files} ${ifname}; status=$?; cat ${folder}/told6; exit $status`,
      );
      expect(output).toContain('new_dhcp6_name_servers=fec0::3\n');
      expect(output).toContain('new_dhcp6_domain_search=net.test. other.test.\n');
      expect(status).toBe(0);
    });
  });

  describe('errors and states, as the host has them', () => {
    it('ping reaches the gateway by both families, with payloads up to 20,000 bytes', async () => {
      for (const target of ['10.0.2.2', 'fec0::2', '-s 20000 10.0.2.2', '-s 20000 fec0::2'])
        expect((await run(`ping -c 2 -i 0.01 -W 20 ${target}`)).output).toContain(
          '2 received, 0% packet loss',
        );
    });

    it('a packet that lives one hop too short comes back as an error', async () => {
      const { output } = await run('ping -c 1 -t 1 -W 20 192.0.2.1');
      expect(output).toMatch(/From 10\.0\.2\.2 .*Time to live exceeded/);
      const six = await run('ping -6 -c 1 -t 1 -W 20 2001:db8::1');
      expect(six.output).toMatch(/From fec0::2.* Time exceeded: Hop limit/);
    });

    it.each([
      ['UDP', ''],
      ['ICMP', '-I'],
      ['TCP', '-T -p 9'],
    ])('traceroute by %s ends at the gateway, and elsewhere hears of the first hop from it', async (_how, options) => {
      for (const [family, gateway, elsewhere] of [
        ['-4', '10.0.2.2', '192.0.2.1'],
        ['-6', 'fec0::2', '2001:db8::1'],
      ]) {
        const here = await run(`traceroute ${family} ${options} -n -q 1 -m 3 -w 20 ${gateway}`);
        expect(here.output.trim().split('\n').slice(1)).toEqual([
          expect.stringMatching(new RegExp(`^ ?1 {2}${gateway} {2}[\\d.]+ ms$`)),
        ]);
        const there = await run(`traceroute ${family} ${options} -n -q 1 -m 1 -w 20 ${elsewhere}`);
        expect(there.output).toMatch(new RegExp(`^ 1 {2}${gateway} {2}[\\d.]+ ms$`, 'm'));
      }
    });

    it('a datagram to a port that nobody has is refused', async () => {
      const { output } = await run(
        `dig +tries=1 +timeout=20 -p ${from().closedPorts[0]} @10.0.2.2 name.test`,
      );
      expect(output).toContain('connection refused');
    });

    /** What a connect from the host itself finds. */
    const state = (port: number): Promise<string> =>
      new Promise((resolve) => {
        const socket = connect(port, '127.0.0.1', () => {
          socket.destroy();
          resolve('open');
        });
        socket.on('error', () => resolve('closed'));
      });

    it("nmap's connect scan gives each port's true state", async () => {
      const { openPorts, closedPorts } = from();
      const ports = [...openPorts, ...closedPorts];
      const { output } = await run(`nmap -sT -Pn -n -oG - -p ${ports.join(',')} 10.0.2.2`);
      const seen = [...output.matchAll(/(\d+)\/(open|closed|filtered)\/tcp/g)].map(([, port, how]) => [
        port!,
        how!,
      ]);
      const truth = await Promise.all(ports.map(async (port) => [`${port}`, await state(port)]));
      expect(Object.fromEntries(seen)).toEqual(Object.fromEntries(truth));
      expect(seen.filter(([, how]) => how === 'open')).toHaveLength(openPorts.length);
    });

    it('what a rule forbids is filtered', async () => {
      const { output } = await run('nmap -sT -Pn -n -oG - -p 80,443 203.0.113.5');
      expect([...output.matchAll(/\d+\/filtered\/tcp/g)]).toHaveLength(2);
    });
  });

  describe('iperf3', () => {
    interface Sum {
      bytes: number;
      packets: number;
      lost_packets: number;
    }

    async function iperf3(options: string): Promise<{ sum: Sum; sum_received: Sum; sum_sent: Sum }> {
      const port = await from().iperf();
      const { output } = await run(`iperf3 -c 10.0.2.2 -p ${port} -i 0 -J ${options}`);
      const report = JSON.parse(output) as {
        error?: string;
        end: { sum: Sum; sum_received: Sum; sum_sent: Sum };
      };
      expect(report.error).toBeUndefined();
      return report.end;
    }

    it.each([
      ['up, 1 stream', ''],
      ['down, 1 stream', '-R'],
      ['up, 16 streams', '-P 16'],
      ['down, 16 streams', '-P 16 -R'],
    ])('TCP %s: all of it passes', async (_name, options) => {
      const { iperfBytes } = amounts;
      const { sum_received, sum_sent } = await iperf3(`-n ${iperfBytes} ${options}`);
      expect(sum_sent.bytes).toBeGreaterThanOrEqual(iperfBytes);
      // The receiver's count is taken when the sender says that it has sent; what is then on its way is not in it.
      expect(sum_received.bytes).toBeGreaterThan(iperfBytes / 2);
    });

    it.each([
      ['up, 1 stream', '-b 40M -n 5M'],
      ['down, 1 stream', '-b 40M -n 5M -R'],
      ['up, 16 streams', '-b 3M -n 5M -P 16'],
      ['down, 16 streams', '-b 3M -n 5M -P 16 -R'],
    ])('UDP %s: 5 MB are sent, and datagrams come in', async (_name, options) => {
      const { sum } = await iperf3(`-u -l 1400 ${options}`);
      expect(sum.packets).toBeGreaterThan(3000);
      // A sender that had to wait for a processor catches up in bursts, and of those as many are lost in the kernels' buffers as the machine is busy.
      expect(sum.packets - sum.lost_packets).toBeGreaterThan(500);
    });
  });

  it(`${FLOWS} flows of datagrams at once, as many QUIC clients: each is answered on its own, twice`, async () => {
    const { output, status } = await run(
      `${at().udpFlows} 10.0.2.2 ${from().echoPort} ${FLOWS} ${DATAGRAM_BYTES} ${WINDOW}`,
    );
    expect(output).toMatch(/^all, \d+ asked again\n$/);
    expect(status).toBe(0);
  });
}
