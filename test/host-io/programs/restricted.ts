/**
 * Restricts the files of its process to FOLDER (read) and OUT (write), when threads of every kind have been running for a while, and prints
 * what each of them then gets: of a file inside, of one outside, of a symbolic link that leads outside. JSON on one line.
 */
import {
  closeSync,
  openSync,
  readFileSync,
  readSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { readdir, readFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { Worker } from 'node:worker_threads';
import { createNativeHostIo } from '../../../src/host-io/native.ts';

const [folder, out, outside] = process.argv.slice(2) as [string, string, string];
const host = createNativeHostIo();
const code = (error: unknown): string => (error as NodeJS.ErrnoException).code ?? String(error);
const attempt = (act: () => unknown): unknown => {
  try {
    return act() ?? 'done';
  } catch (error) {
    return code(error);
  }
};
const inWorker = `const { parentPort } = require('node:worker_threads');
parentPort.on('message', (path) => {
  let result;
  try { result = require('node:fs').readFileSync(path, 'utf8'); } catch (error) { result = error.code; }
  parentPort.postMessage(result);
});`;
const ask = (worker: Worker, path: string): Promise<unknown> =>
  new Promise((resolve) => {
    worker.once('message', resolve);
    worker.postMessage(path);
  });
/** All threads of libuv's pool, and more. */
const many = (path: string): Promise<unknown[]> =>
  Promise.all(Array.from({ length: 16 }, () => readFile(path, 'utf8').catch(code)));

await many(`${outside}/file`);
const before = new Worker(inWorker, { eval: true });
await ask(before, `${outside}/file`);
const opened = openSync(`${outside}/file`, 'r');
host.restrictFiles([
  { path: folder, may: 'read' },
  { path: out, may: 'write' },
  { path: out, may: 'bind' },
  { path: '/proc', may: 'read' },
  { path: `${folder}/there-is-none`, may: 'write' },
]);
const after = new Worker(inWorker, { eval: true });
const readings: Record<string, unknown> = {};
for (const path of [`${folder}/file`, `${folder}/link`, `${outside}/file`]) {
  readings[path.slice(path.lastIndexOf('/', path.lastIndexOf('/') - 1) + 1)] = {
    sync: attempt(() => readFileSync(path, 'utf8')),
    async: [...new Set(await many(path))],
    workerBefore: await ask(before, path),
    workerAfter: await ask(after, path),
  };
}
const bound = (path: string): Promise<unknown> =>
  new Promise((resolve) => {
    const server = createServer()
      .on('error', (error) => resolve(code(error)))
      .listen(path, () => server.close(() => resolve('done')));
  });
const result = {
  readings,
  list: await readdir(outside).catch(code),
  stillOpen: readSync(opened, Buffer.alloc(10)),
  writeInside: attempt(() => writeFileSync(`${out}/new`, 'x')),
  writeReadable: attempt(() => writeFileSync(`${folder}/file`, 'x')),
  make: attempt(() => writeFileSync(`${folder}/new`, 'x')),
  rename: attempt(() => renameSync(`${out}/new`, `${folder}/moved`)),
  remove: attempt(() => rmSync(`${outside}/file`)),
  link: attempt(() => symlinkSync(outside, `${out}/way-out`)),
  throughOwnLink: attempt(() => readFileSync(`${out}/way-out/file`, 'utf8')),
  bindInside: await bound(`${out}/socket`),
  bindOutside: await bound(`${outside}/socket`),
};
closeSync(opened);
await Promise.all([before.terminate(), after.terminate()]);
host.shutdown();
process.stdout.write(`${JSON.stringify(result)}\n`);
