import { expect, test } from 'vitest'
import type { LiveIssuer } from '../../../../src/ca/authority/issuers.ts'
import { isIssuedByLiveIssuer } from '../../../../src/server/listener/issuer-check.ts'
import { SpiffeId } from '../../../../src/spiffe/spiffe-id.ts'

const [LEAF, CONTROL, CLUSTER, DEAD, ROOT] = [1, 2, 3, 4, 5].map((byte) => ({
  subjectKeyId: new Uint8Array([byte]),
}))

const authorities = {
  isLiveIssuer: (id: string) => {
    const classes = { '02': 'reserved', '03': 'workload' } as const
    const leafIdClass = classes[id as keyof typeof classes]
    return leafIdClass && ({ leafIdClass } as LiveIssuer)
  },
}

test.each([
  ['/spire/agent/x', [LEAF, CONTROL, ROOT], true],
  ['/spire/server', [LEAF, CONTROL, ROOT], true],
  ['/spire', [LEAF, CONTROL, ROOT], true],
  ['/web', [LEAF, CLUSTER, ROOT], true],
  ['/spirex/web', [LEAF, CLUSTER, ROOT], true],
  ['/spire/agent/x', [LEAF, CLUSTER, ROOT], false],
  ['/web', [LEAF, CONTROL, ROOT], false],
  ['/web', [LEAF, DEAD, ROOT], false],
  ['/web', [LEAF, ROOT], false],
  ['/web', [LEAF], false],
  ['/web', [LEAF, CLUSTER, CLUSTER, ROOT], false],
  ['/web', [], false],
])('%s by a chain of %j: %s', (path, chain, allowed) => {
  const id = SpiffeId.parse(`spiffe://example.org${path}`)
  expect(isIssuedByLiveIssuer(authorities, chain as never, id)).toBe(allowed)
})
