import { defineConfig } from 'vitest/config'

/** `npm test` runs everything but the real peers, which have their own command. */
export default defineConfig({
  test: {
    projects: [
      {
        test: {
          name: 'unit',
          include: ['test/{tidy,unit,property,conformance,contract,fault}/**/*.test.ts'],
          testTimeout: 60_000,
          hookTimeout: 120_000,
        },
      },
      {
        test: {
          name: 'interop',
          include: ['test/interop/**/*.interop.ts'],
          testTimeout: 300_000,
          hookTimeout: 300_000,
          // Scenarios mostly wait for the peers' clocks.
          maxWorkers: 4,
        },
      },
    ],
    passWithNoTests: false,
  },
})
