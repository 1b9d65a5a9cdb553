import { defineConfig } from 'vitest/config';

// Tests with real programs: one file at a time, for a guest wants a core to itself and the namespaces' names are shared.
export default defineConfig({
  test: {
    include: ['test/peers/**/*.test.ts'],
    testTimeout: 600_000,
    hookTimeout: 900_000,
    fileParallelism: false,
    maxWorkers: 1,
    // A guest without KVM beside another program on two processors: one failure in some thousand tests is the machine's. It is told (test/run.ts), never silent.
    retry: 1,
  },
});
