/**
 * What `test/run.ts` needs to know of one vitest run, written as JSON to the file that `NETEMU_TEST_REPORT` names: the counts, and every failure with the first lines of
 * its reason and of the difference, those of a first attempt too whose second one passed.
 */
import { writeFileSync } from 'node:fs';
import { relative } from 'node:path';
import { stripVTControlCharacters } from 'node:util';
import type { SerializedError } from 'vitest';
import type { Reporter, TestCase, TestModule } from 'vitest/node';

export interface Report {
  passed: number;
  failed: number;
  skipped: number;
  failures: string[];
  /** Tests that passed at the second attempt, with why the first one failed. */
  repeated: string[];
}

const REASON_LINES = 30;

function describe(verdict: string, name: string, errors: readonly SerializedError[]): string {
  const text = errors.map((error) => `${error.message}\n${error.diff ?? error.stack ?? ''}`).join('\n');
  const lines = stripVTControlCharacters(text).split('\n').slice(0, REASON_LINES);
  return [`${verdict} ${name}`, ...lines].join('\n  ');
}

export default class ReportWriter implements Reporter {
  onTestRunEnd(modules: readonly TestModule[], unhandled: readonly SerializedError[]): void {
    const report: Report = { passed: 0, failed: 0, skipped: 0, failures: [], repeated: [] };
    const fail = (name: string, errors: readonly SerializedError[]): void => {
      report.failed++;
      report.failures.push(describe('FAILED', name, errors));
    };
    for (const module of modules) {
      const file = relative('.', module.moduleId);
      // A file that could not be loaded, or a hook of a whole file or suite, fails no test of its own.
      if (module.errors().length > 0) fail(file, module.errors());
      for (const suite of module.children.allSuites())
        if (suite.errors().length > 0) fail(`${file} > ${suite.fullName}`, suite.errors());
      for (const test of module.children.allTests()) this.#count(test, file, report, fail);
    }
    if (unhandled.length > 0) fail('outside any test', unhandled);
    writeFileSync(process.env.NETEMU_TEST_REPORT!, JSON.stringify(report));
  }

  #count(
    test: TestCase,
    file: string,
    report: Report,
    fail: (name: string, errors: readonly SerializedError[]) => void,
  ): void {
    const { state, errors } = test.result();
    if (state === 'passed') {
      report.passed++;
      if (test.diagnostic()?.flaky === true)
        report.repeated.push(
          describe('PASSED AT THE SECOND ATTEMPT', `${file} > ${test.fullName}`, errors ?? []),
        );
    } else if (state === 'failed') fail(`${file} > ${test.fullName}`, errors);
    else report.skipped++;
  }
}
