/** What a view becomes on the wire. */
import { generateKeyPairSync } from 'node:crypto'
import { expect, test } from 'vitest'
import type { TrustBundle } from '../../../src/agent/svid-cache/trust-bundles.ts'
import { jwtBundlesResponse } from '../../../src/agent/workload-api/responses.ts'
import { formatWorkloadJwks } from '../../../src/spiffe/jwks.ts'
import { JWTBundlesResponse } from '../../../src/wire/gen/workload.ts'
import { makeBundle } from '../../fakes/agent-cache.ts'

function bundleWithKeys(trustDomain: string, ...keyIds: string[]): TrustBundle {
  const jwtAuthorities = keyIds.map((keyId) => {
    const { publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
    const der = publicKey.export({ type: 'spki', format: 'der' })
    return { keyId, publicKey: new Uint8Array(der), expiresAt: 0, tainted: false }
  })
  return { ...makeBundle(trustDomain), jwtAuthorities, x509: new Uint8Array() }
}

test('JWT bundles are the workload-facing JWK Sets of the own and the federated domains', () => {
  const bundle = bundleWithKeys('example.org', 'b', 'a')
  const other = bundleWithKeys('other.org')
  const bytes = jwtBundlesResponse({ identities: [], bundle, federatedBundles: [other] })
  const { bundles } = JWTBundlesResponse.decode(bytes)
  const text = (name: string) => Buffer.from(bundles[name]!).toString()
  expect(Object.keys(bundles)).toEqual(['spiffe://example.org', 'spiffe://other.org'])
  expect(text('spiffe://example.org')).toBe(formatWorkloadJwks(bundle.jwtAuthorities))
  expect(text('spiffe://example.org').match(/"kid": "(\w)"/g)).toHaveLength(2)
  expect(JSON.parse(text('spiffe://other.org'))).toEqual({ keys: [] })
})
