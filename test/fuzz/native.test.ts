/**
 * The addon's core under AddressSanitizer and UndefinedBehaviorSanitizer: the fuzz targets of native/fuzz over their corpus and inputs made
 * from it, the same on every machine. libFuzzer looks for more in `make fuzz`.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { beforeAll, expect, it } from 'vitest';
import { FUZZ_TIMES } from './lib.ts';

const ROOT = new URL('../..', import.meta.url).pathname;
/** Where addresses are spread over more bits than a sanitizer of this age expects, its shadow may be in the way: without spreading it never is. */
const FIXED = spawnSync('setarch', ['-R', 'true']).status === 0 ? ['setarch', '-R'] : [];
const SEED = FUZZ_TIMES === 1 ? 1 : Date.now();

beforeAll(() => {
  execFileSync('make', ['--no-print-directory', '-C', join(ROOT, 'native'), 'replay'], { stdio: 'pipe' });
});

it.each([
  ['core', 20_000],
  ['address', 50_000],
])('hardening: %s does no wrong access, and a good frame passes after each input', (target, runs) => {
  const folder = join(ROOT, `fixtures/fuzz/native-${target}`);
  const files = readdirSync(folder).map((file) => join(folder, file));
  const program = join(ROOT, `native/build/fuzz/${target}-replay`);
  const crash = join(tmpdir(), `netemu-fuzz-${target}-${process.pid}`);
  const words = [...FIXED, program, `${runs * FUZZ_TIMES}`, `${SEED}`, crash, ...files];
  const { status, stdout, stderr } = spawnSync(words[0]!, words.slice(1), {
    encoding: 'utf8',
    // A sanitizer that looks for leaks cannot do so where the program may not be traced.
    env: { ...process.env, ASAN_OPTIONS: 'detect_leaks=0' },
  });
  expect(stderr).toBe('');
  expect(stdout).toBe(`${files.length} files, ${runs * FUZZ_TIMES} runs\n`);
  expect(status).toBe(0);
});
