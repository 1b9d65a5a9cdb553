/**
 * QEMU at the other end of every netdev that joins emulators, with a Linux guest inside: one virtio NIC for each. Behind netemu's end of a link lies a
 * user network, by a hub, so that what the guest reaches is the host: it pings the gateway, fetches random bytes and sends them back, and the
 * hashes must agree. Where a connection is a thing that
 * can end, netemu's link follows it. (QEMU tells its guest nothing of a connection.)
 */

import { spawn } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import { type AddressInfo, createServer as createTcpServer, type Server as TcpServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { nodeBackends } from '../../src/backends/index.ts';
import { parseNetdev } from '../../src/config/netdevs/index.ts';
import { SystemClock, seededRandom } from '../../src/core/clock.ts';
import { createNativeHostIo, type NativeHostIo } from '../../src/host-io/native.ts';
import { Network } from '../../src/network/network.ts';
import { nics } from '../../src/nic/index.ts';
import { type GuestResult, type QemuVersion, runGuest } from './lib/guest.ts';
import { prepare } from './lib/prepare.ts';

const MIB = 64;
const BLOB = randomBytes(1 << 20);

interface Link {
  readonly name: string;
  /** Netdev options of the two ends, without the id. `port` counts up, `folder` is ours. */
  readonly qemu: (port: number, folder: string) => string;
  readonly netemu: (port: number, folder: string) => string;
  /** netemu must be there first. */
  readonly netemuFirst?: boolean;
  /** netemu's end goes away and comes back while the guest runs. */
  readonly follows?: boolean;
  /** There is somebody at the other end, or nobody. */
  readonly isConnection?: boolean;
}

const inet = (key: string, port: number) => `${key}.type=inet,${key}.host=127.0.0.1,${key}.port=${port}`;
const unix = (key: string, path: string) => `${key}.type=unix,${key}.path=${path}`;

const LINKS: readonly Link[] = [
  {
    name: 'socket-connect',
    isConnection: true,
    qemu: (port) => `socket,connect=127.0.0.1:${port}`,
    netemu: (port) => `socket,listen=127.0.0.1:${port}`,
    netemuFirst: true,
  },
  {
    name: 'socket-udp',
    qemu: (port) => `socket,udp=127.0.0.1:${port},localaddr=127.0.0.1:${port + 1}`,
    netemu: (port) => `socket,udp=127.0.0.1:${port + 1},localaddr=127.0.0.1:${port}`,
  },
  {
    name: 'socket-mcast',
    qemu: (port) => `socket,mcast=230.0.0.7:${port},localaddr=127.0.0.1`,
    netemu: (port) => `socket,mcast=230.0.0.7:${port},localaddr=127.0.0.1`,
  },
  {
    name: 'stream-inet-reconnect',
    isConnection: true,
    qemu: (port) => `stream,${inet('addr', port)},RECONNECT`,
    netemu: (port) => `stream,server=on,${inet('addr', port)}`,
    netemuFirst: true,
    follows: true,
  },
  {
    name: 'stream-unix-server',
    isConnection: true,
    qemu: (_port, folder) => `stream,server=on,${unix('addr', join(folder, 'stream'))}`,
    netemu: (_port, folder) => `stream,${unix('addr', join(folder, 'stream'))},reconnect-ms=50`,
    follows: true,
  },
  {
    name: 'socket-listen',
    isConnection: true,
    qemu: (port) => `socket,listen=127.0.0.1:${port}`,
    netemu: (port) => `stream,${inet('addr', port)},reconnect-ms=50`,
    follows: true,
  },
  {
    name: 'dgram-inet',
    qemu: (port) => `dgram,${inet('local', port)},${inet('remote', port + 1)}`,
    netemu: (port) => `dgram,${inet('local', port + 1)},${inet('remote', port)}`,
  },
  {
    name: 'dgram-unix',
    qemu: (_port, folder) =>
      `dgram,${unix('local', join(folder, 'dq'))},${unix('remote', join(folder, 'dn'))}`,
    netemu: (_port, folder) =>
      `dgram,${unix('local', join(folder, 'dn'))},${unix('remote', join(folder, 'dq'))}`,
  },
  {
    name: 'dgram-mcast',
    qemu: (port) => `dgram,${inet('remote', port).replace('127.0.0.1', '230.0.0.8')},${inet('local', 0)}`,
    netemu: (port) => `dgram,${inet('remote', port).replace('127.0.0.1', '230.0.0.8')},${inet('local', 0)}`,
  },
  {
    name: 'l2tpv3-udp',
    qemu: (port) =>
      `l2tpv3,src=127.0.0.1,dst=127.0.0.1,udp=on,srcport=${port},dstport=${port + 1},txsession=0xabcd,rxsession=0x1234,cookie64=on,txcookie=0x1122334455667788,rxcookie=0x8877665544332211,counter=on,offset=8`,
    netemu: (port) =>
      `l2tpv3,src=127.0.0.1,dst=127.0.0.1,udp=on,srcport=${port + 1},dstport=${port},txsession=0x1234,rxsession=0xabcd,cookie64=on,txcookie=0x8877665544332211,rxcookie=0x1122334455667788,counter=on,offset=8`,
  },
  {
    name: 'l2tpv3-udp6-pincounter',
    qemu: (port) =>
      `l2tpv3,src=::1,dst=::1,ipv6=on,udp=on,srcport=${port},dstport=${port + 1},txsession=7,txcookie=5,rxcookie=6,counter=on,pincounter=on`,
    netemu: (port) =>
      `l2tpv3,src=::1,dst=::1,ipv6=on,udp=on,srcport=${port + 1},dstport=${port},txsession=7,txcookie=6,rxcookie=5,pincounter=on`,
  },
  {
    name: 'l2tpv3-ip',
    qemu: () => 'l2tpv3,src=127.0.0.1,dst=127.0.0.2,txsession=0x11,rxsession=0x22,txcookie=3,rxcookie=4',
    netemu: () => 'l2tpv3,src=127.0.0.2,dst=127.0.0.1,txsession=0x22,rxsession=0x11,txcookie=4,rxcookie=3',
  },
  {
    name: 'vde',
    qemu: (_port, folder) => `vde,sock=${join(folder, 'vde')}`,
    netemu: (_port, folder) => `vde,sock=${join(folder, 'vde')}`,
  },
];

describe.each(['7.2', '11.1'] as const)('QEMU %s', (version: QemuVersion) => {
  const folder = mkdtempSync(join(tmpdir(), 'netemu-qemu-'));
  const expected = createHash('md5');
  const uploads: string[] = [];
  const whileRunning: Record<string, boolean> = {};
  let result: GuestResult;
  let http: Server;
  let sink: TcpServer;
  let hostIo: NativeHostIo;
  let network: Network;
  let hash = '';
  let vdeSwitch: ReturnType<typeof spawn>;
  const basePort = 12_000 + ((process.pid * 64) % 7_000);

  const port = (i: number) => basePort + 2 * i;
  const net = (i: number) => 40 + i;
  const netemuNetdev = (i: number) => {
    const [type, ...rest] = LINKS[i]!.netemu(port(i), folder).split(',');
    return parseNetdev([type, `id=${LINKS[i]!.name}`, ...rest].join(','));
  };

  /** netemu's end of a link, on its hub. */
  async function open(i: number): Promise<void> {
    const { name } = LINKS[i]!;
    await network.openNetdev(netemuNetdev(i));
    await network.openNetdev(parseNetdev(`hubport,id=${name}-port,hubid=${i},netdev=${name}`));
  }

  function close(i: number): void {
    const { name } = LINKS[i]!;
    network.removeNetdev(`${name}-port`);
    network.removeNetdev(name);
  }

  beforeAll(async () => {
    await prepare(['vde', 'tools', `qemu-${version}`]);
    for (let i = 0; i < MIB; i++) expected.update(BLOB);
    hash = expected.digest('hex');
    http = createServer((_request, response) => {
      response.setHeader('content-length', MIB << 20);
      let sent = 0;
      const more = (): void => {
        while (sent < MIB) {
          sent++;
          if (!response.write(BLOB)) {
            response.once('drain', more);
            return;
          }
        }
        response.end();
      };
      more();
    });
    await new Promise<void>((resolve) => http.listen(0, '127.0.0.1', resolve));
    sink = createTcpServer({ allowHalfOpen: true }, (socket) => {
      const md5 = createHash('md5');
      socket.on('error', () => {});
      socket.on('data', (data) => md5.update(data));
      socket.on('end', () => {
        const digest = md5.digest('hex');
        uploads.push(digest);
        socket.end(`${digest}\n`);
      });
    });
    await new Promise<void>((resolve) => sink.listen(0, '127.0.0.1', resolve));
    vdeSwitch = spawn('vde_switch', ['-s', join(folder, 'vde')], { stdio: ['pipe', 'ignore', 'ignore'] });
    hostIo = createNativeHostIo();
    network = new Network({
      clock: new SystemClock(() => performance.now()),
      random: seededRandom(1),
      backends: nodeBackends,
      nics,
      hostIo,
    });
    hostIo.drive(network.loop);
    for (const i of LINKS.keys()) {
      await network.openNetdev(parseNetdev(`user,id=user${i},ipv6=off,ipv4=on,net=10.0.${net(i)}.0/24`));
      await network.openNetdev(parseNetdev(`hubport,id=user${i}-port,hubid=${i},netdev=user${i}`));
      if (LINKS[i]!.netemuFirst) await open(i);
    }
    const httpPort = (http.address() as AddressInfo).port;
    const sinkPort = (sink.address() as AddressInfo).port;
    const script: Record<string, string> = {
      start: 'modprobe virtio_pci; modprobe virtio_net; modprobe af_packet; host open',
    };
    for (const [i, { name, follows }] of LINKS.entries()) {
      const gateway = `10.0.${net(i)}.2`;
      script[name] = `set -e
for device in /sys/class/net/*; do
  if [ "$(cat $device/address)" = 52:54:00:00:01:${(i + 16).toString(16)} ]; then nic=\${device##*/}; fi
done
ip addr add 10.0.${net(i)}.15/24 dev $nic
ip link set $nic up
busybox ping -c 3 -i 0.2 -w 20 ${gateway}
busybox wget -q -O /tmp/blob http://${gateway}:${httpPort}/
busybox md5sum </tmp/blob
busybox nc ${gateway} ${sinkPort} </tmp/blob
rm /tmp/blob
${
  follows
    ? `host close ${i}
host open ${i}
n=0
until busybox ping -c 1 -W 1 ${gateway} || [ $n = 30 ]; do n=$((n+1)); done
[ $n -lt 30 ]`
    : ''
}
ip link set $nic down
`;
    }
    script.end = 'host states';
    result = await runGuest({
      qemu: version,
      memoryMiB: 512,
      timeoutMs: 840_000,
      args: LINKS.flatMap(({ qemu }, i) => {
        const [type, ...rest] = qemu(port(i), folder)
          .replace('RECONNECT', version === '7.2' ? 'reconnect=1' : 'reconnect-ms=100')
          .split(',');
        const options = rest.filter((option) => version !== '7.2' || !option.startsWith('reconnect'));
        return [
          ...['-netdev', [type, `id=n${i}`, ...options].join(',')],
          ...['-device', `virtio-net-pci,netdev=n${i},mac=52:54:00:00:01:${(i + 16).toString(16)},romfile=`],
        ];
      }),
      script,
      host: {
        async open(which) {
          for (const i of LINKS.keys()) {
            if (which === '' ? !LINKS[i]!.netemuFirst : i === Number(which)) await open(i);
          }
          return 'done';
        },
        states() {
          for (const [name, netdev] of network.netdevs) whileRunning[name] = netdev.ports[0]!.linkUp;
          return 'done';
        },
        close(which) {
          close(Number(which));
          return 'done';
        },
      },
    });
  }, 900_000);

  afterAll(() => {
    network.close();
    expect(hostIo.stats().openHandles).toBe(0);
    expect(network.pool.free).toBe(network.pool.capacity);
    hostIo.shutdown();
    http.close();
    sink.close();
    vdeSwitch.kill('SIGKILL');
    rmSync(folder, { recursive: true, force: true });
  });

  it.each(LINKS)('$name: ping, and 64 MiB each way with the right hash', ({ name, follows }) => {
    const step = result.steps.find((one) => one.name === name);
    const output = step?.output ?? '';
    expect(output).toContain('3 packets received');
    expect(output.split(hash).length - 1, output).toBe(2);
    if (!follows || canComeBack(name)) expect(step?.status, output).toBe(0);
  });

  // QEMU 7.2's stream has no reconnect: its client's connection is made once.
  const canComeBack = (name: string): boolean => !(version === '7.2' && name === 'stream-inet-reconnect');

  it.each(
    LINKS.filter(({ name, follows }) => follows && canComeBack(name)),
  )('$name: carries frames again when netemu’s end comes back', ({ name }) => {
    expect(result.ok(name)).toContain('1 packets received');
  });

  it('took netemu’s links up with it, and down when it ended', () => {
    for (const { name, isConnection } of LINKS) {
      if (!isConnection || !canComeBack(name)) continue;
      expect(whileRunning[name], `${name} while QEMU ran`).toBe(true);
      expect(network.netdevs.get(name)!.ports[0]!.linkUp, `${name} after its end`).toBe(false);
    }
  });
});
