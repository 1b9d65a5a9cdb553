import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    exclude: ['test/peers/**', 'node_modules/**'],
    // A watchdog for what hangs; no test compares against the wall clock.
    testTimeout: 120_000,
    hookTimeout: 120_000,
  },
});
