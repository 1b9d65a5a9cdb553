/**
 * Runs the test groups named on the command line (`unit`, `peers`) one after the other and closes with one line for all:
 * `N passed, N failed, N skipped`. Exits 1 when a test failed, or when CI skipped one.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const CONFIGS: Record<string, string> = { unit: 'vitest.config.ts', peers: 'vitest.peers.config.ts' };

interface Totals {
  numPassedTests: number;
  numFailedTests: number;
  numPendingTests: number;
  numTodoTests: number;
  success: boolean;
}

const sum = { passed: 0, failed: 0, skipped: 0 };
const folder = mkdtempSync(join(tmpdir(), 'netemu-test-'));
try {
  for (const group of process.argv.slice(2)) {
    const config = CONFIGS[group];
    if (config === undefined) throw new Error(`no test group '${group}': ${Object.keys(CONFIGS).join(', ')}`);
    const output = join(folder, `${group}.json`);
    const args = [
      'run',
      '--config',
      config,
      '--reporter=default',
      '--reporter=json',
      `--outputFile.json=${output}`,
    ];
    const run = spawnSync('node_modules/.bin/vitest', args, { stdio: 'inherit' });
    let totals: Totals | undefined;
    try {
      totals = JSON.parse(readFileSync(output, 'utf8')) as Totals;
    } catch {
      // The runner died before it could report: that is a failure of its own.
    }
    sum.passed += totals?.numPassedTests ?? 0;
    sum.failed += totals?.numFailedTests ?? 0;
    sum.skipped += (totals?.numPendingTests ?? 0) + (totals?.numTodoTests ?? 0);
    // A file that could not be loaded, or an error outside any test, fails no counted test.
    if (run.status !== 0 && (totals?.numFailedTests ?? 0) === 0) sum.failed++;
  }
} finally {
  rmSync(folder, { recursive: true });
}
console.log(`${sum.passed} passed, ${sum.failed} failed, ${sum.skipped} skipped`);
process.exitCode = sum.failed > 0 || (sum.skipped > 0 && process.env.CI !== undefined) ? 1 : 0;
