/**
 * Runs the test groups named on the command line (`unit`, `peers`) one after the other, tells every failure, and every test that needed a second attempt, once more (the end of a log is often all that is kept of it), and closes with one
 * line for all: `N passed, N failed, N skipped`. Exits 1 when a test failed, or when CI skipped one.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Report } from './reporter.ts';

const CONFIGS: Record<string, string> = { unit: 'vitest.config.ts', peers: 'vitest.peers.config.ts' };

const sum: Report = { passed: 0, failed: 0, skipped: 0, failures: [], repeated: [] };
const folder = mkdtempSync(join(tmpdir(), 'netemu-test-'));
try {
  for (const group of process.argv.slice(2)) {
    const config = CONFIGS[group];
    if (config === undefined) throw new Error(`no test group '${group}': ${Object.keys(CONFIGS).join(', ')}`);
    const output = join(folder, `${group}.json`);
    const args = ['run', '--config', config, '--reporter=default', '--reporter=./test/reporter.ts'];
    const env = { ...process.env, NETEMU_TEST_REPORT: output };
    const run = spawnSync('node_modules/.bin/vitest', args, { stdio: 'inherit', env });
    let report: Report = { passed: 0, failed: 0, skipped: 0, failures: [], repeated: [] };
    try {
      report = JSON.parse(readFileSync(output, 'utf8')) as Report;
    } catch {
      // The runner died before it could report: that is a failure of its own.
    }
    if (run.status !== 0 && report.failed === 0) {
      report.failed = 1;
      report.failures.push(`FAILED ${group}: the runner ended with ${run.signal ?? run.status}`);
    }
    sum.passed += report.passed;
    sum.failed += report.failed;
    sum.skipped += report.skipped;
    sum.failures.push(...report.failures);
    sum.repeated.push(...report.repeated);
  }
} finally {
  rmSync(folder, { recursive: true });
}
for (const text of [...sum.repeated, ...sum.failures]) console.log(`${text}\n`);
console.log(`${sum.passed} passed, ${sum.failed} failed, ${sum.skipped} skipped`);
process.exitCode = sum.failed > 0 || (sum.skipped > 0 && process.env.CI !== undefined) ? 1 : 0;
