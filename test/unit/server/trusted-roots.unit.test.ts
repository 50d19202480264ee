import { expect, test } from 'vitest'
import { createTrustedRoots } from '../../../src/server/trusted-roots.ts'
import type { Bundle } from '../../../src/spiffe/bundle.ts'
import { createMemoryLog } from '../../fakes/memory-log.ts'
import { makeAuthority } from '../../rigs/certificates.ts'

test('roots are parsed once per bundle, bad ones left out, tainted ones kept', async () => {
  const { der } = await makeAuthority('root', 'spiffe://example.org')
  const bundle = (tainted: boolean) =>
    ({
      x509Authorities: [
        { certificate: new Uint8Array([1]), tainted: false },
        { certificate: der, tainted },
      ],
    }) as unknown as Bundle
  let held: Bundle | undefined
  const log = createMemoryLog()
  const roots = createTrustedRoots((name) => (name === 'example.org' ? held : undefined), log)
  expect(roots('example.org')).toBeUndefined()
  held = bundle(false)
  const first = roots('example.org')
  expect(first?.map((root) => Buffer.from(root.der))).toEqual([Buffer.from(der)])
  expect(roots('example.org')).toBe(first)
  expect(log.lines).toHaveLength(1)
  held = bundle(true)
  expect(roots('example.org')).toHaveLength(1)
  expect(roots('example.org')).not.toBe(first)
  expect(roots('other.org')).toBeUndefined()
})
