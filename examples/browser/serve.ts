/**
 * Serves index.html, a page with a whole PC in it, and the network behind its NIC: the page's frames come by WebSocket to a switch in here, and the user network on the
 * same hub takes them on to this host's sockets. Only pages of this server get in.
 *
 *     npx tsx examples/browser/serve.ts KERNEL [INITRD [COMMAND LINE]]
 *
 * KERNEL is a 32-bit Linux, with a driver for e1000 in it or in INITRD. Needs SeaBIOS (Debian's seabios package).
 */

import { readFileSync, realpathSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import {
  createHostIo,
  type DeviceInput,
  Network,
  nics,
  nodeBackends,
  SystemClock,
  seededRandom,
} from '../../src/index.ts';

export interface PageOptions {
  kernel: string;
  initrd?: string | undefined;
  append?: string | undefined;
  /** The NIC in the page; its netdev is the page's. */
  device?: DeviceInput;
  /** 0: the system chooses. */
  port?: number;
}

export async function serve({ kernel, initrd, append, device, port = 0 }: PageOptions) {
  const root = fileURLToPath(new URL('../..', import.meta.url));
  const bundle = await build({
    stdin: {
      contents: `export * from './src/browser.ts'; export * from './src/guest/v86/index.ts';`,
      resolveDir: root,
    },
    bundle: true,
    write: false,
    format: 'esm',
    platform: 'browser',
    logLevel: 'silent',
  });
  const settings = {
    relay: '',
    device: device ?? { driver: 'e1000' },
    append: append ?? 'console=ttyS0 tsc=reliable mitigations=off',
    memoryBytes: 256 << 20,
    hasInitrd: initrd !== undefined,
  };
  const files: Record<string, [type: string, read: () => Uint8Array | string]> = {
    '/': ['text/html', () => readFileSync(new URL('index.html', import.meta.url))],
    '/netemu.js': ['text/javascript', () => bundle.outputFiles[0]!.contents],
    '/libv86.js': ['text/javascript', () => readFileSync(`${root}node_modules/v86/build/libv86.js`)],
    '/v86.wasm': ['application/wasm', () => readFileSync(`${root}node_modules/v86/build/v86.wasm`)],
    '/settings.json': ['application/json', () => JSON.stringify(settings)],
    '/bios.bin': ['application/octet-stream', () => readFileSync('/usr/share/seabios/bios.bin')],
    '/vgabios.bin': ['application/octet-stream', () => readFileSync('/usr/share/seabios/vgabios-stdvga.bin')],
    '/kernel': ['application/octet-stream', () => readFileSync(kernel)],
    '/initrd': ['application/octet-stream', () => readFileSync(initrd ?? '')],
  };
  const site = createServer((request, response) => {
    const file = files[request.url ?? ''];
    if (file === undefined) {
      response.writeHead(404).end();
      return;
    }
    const bytes = Buffer.from(file[1]());
    response.writeHead(200, { 'content-type': file[0], 'content-length': bytes.length }).end(bytes);
  });
  await new Promise<void>((resolve) => site.listen(port, '127.0.0.1', resolve));
  const origin = `http://127.0.0.1:${(site.address() as AddressInfo).port}`;

  const hostIo = createHostIo({ implementation: 'auto' });
  const network = new Network({
    clock: new SystemClock(() => performance.now()),
    random: seededRandom(Date.now()),
    backends: nodeBackends,
    nics,
    hostIo,
  });
  hostIo.drive(network.loop);
  const relay = await network.addNetdev({
    type: 'websocket',
    id: 'w',
    listen: '127.0.0.1:0',
    origin: [origin],
  });
  await network.addNetdev({ type: 'user', id: 'u' });
  for (const id of ['w', 'u'])
    await network.addNetdev({ type: 'hubport', id: `${id}p`, hubid: 0, netdev: id });
  settings.relay = `ws://${/listen=([^,]+)/.exec(relay.describe())![1]}/`;
  return {
    url: `${origin}/`,
    network,
    close() {
      site.closeAllConnections();
      site.close();
      network.close();
      hostIo.shutdown();
    },
  };
}

if (process.argv[1] !== undefined && realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) {
  const [kernel, initrd, ...append] = process.argv.slice(2);
  if (kernel === undefined) {
    console.error('usage: npx tsx examples/browser/serve.ts KERNEL [INITRD [COMMAND LINE]]');
    process.exit(1);
  }
  const page = await serve({ kernel, initrd, append: append.join(' ') || undefined, port: 8000 });
  console.log(`open ${page.url}`);
}
