/** Method: any plan for any profile under any kind of authority, encoded twice. */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { bytesEqual } from '../../../src/base/bytes.ts'
import { lintPlanned, loadProfile } from '../../../src/ca/lint/loaded-profile.ts'
import type { SvidProfileName } from '../../../src/ca/profile/profiles.ts'
import { planX509Svid, templateOf } from '../../../src/ca/profile/svid-plan.ts'
import type { SigningKeyType } from '../../../src/ca/signer/port.ts'
import { SpiffeId } from '../../../src/spiffe/spiffe-id.ts'
import { encodeName } from '../../../src/x509/name.ts'
import { encodeTbsCertificate } from '../../../src/x509/template.ts'
import { contextOf, NOW, newHierarchy, newKey } from '../../rigs/issuing.ts'

const PROFILES: [SvidProfileName, number, string][] = [
  ['workload', 2, ''],
  ['agent', 1, '/spire/agent'],
  ['server', 1, '/spire'],
  ['downstream_ca', 2, ''],
]
const KEYS = (['ec-p256', 'ec-p384', 'ec-p521', 'ed25519', 'rsa-2048', 'rsa-4096'] as const).map(
  (type) => newKey(type).publicKey,
)
const segment = fc.stringMatching(/^[A-Za-z0-9_-]{1,40}$/)
const label = fc.stringMatching(/^[a-z0-9-]{1,30}$/)
const dnsName = fc.array(label, { minLength: 1, maxLength: 6 }).map((labels) => labels.join('.'))
const bytes16 = fc.uint8Array({ minLength: 16, maxLength: 16 })

describe.each(['ec-p256', 'ec-p384', 'rsa-2048'] as SigningKeyType[])('%s authority', (keyType) => {
  test.each(PROFILES)(
    '%s: the mould equals the general encoder, and lints',
    (name, clusterId, prefix) => {
      // 2049-12-31 lies within, so both forms of time and their mixture occur.
      const validity = { notBefore: NOW - 1000, notAfter: 2_600_000_000 }
      const nested = name === 'downstream_ca'
      const { issuer } = newHierarchy({ clusterId, keyType, validity, nested })
      const context = contextOf(name, issuer)
      const loaded = loadProfile(context)
      const isWorkload = name === 'workload'
      const order = fc.record({
        segments: fc.array(segment, { minLength: 1, maxLength: 8 }),
        key: fc.constantFrom(...KEYS),
        dnsNames: fc.array(dnsName, { maxLength: isWorkload ? 8 : 0 }),
        subject: fc.constantFrom(
          undefined,
          encodeName({}),
          encodeName({ organization: ['Müller'], commonName: ['x'] }),
        ),
        ttlSeconds: fc.integer({ min: -1, max: 2 ** 31 - 1 }),
        serial: bytes16,
        offset: fc.nat({ max: 64 }),
      })
      fc.assert(
        fc.property(order, ({ segments, key, dnsNames, subject, ttlSeconds, serial, offset }) => {
          const path = nested
            ? ''
            : `${prefix}/${segments.filter((s) => s !== 'spire').join('/') || 'x'}`
          const random = { bytes: () => serial.slice() }
          const plan = planX509Svid(
            context,
            { now: NOW, random },
            {
              spiffeId: SpiffeId.parse(`spiffe://example.org${path}`),
              subjectPublicKeyInfo: key,
              dnsNames,
              ttlSeconds,
              ...(subject && isWorkload ? { subject } : {}),
            },
          )
          const arena = Buffer.alloc(offset + loaded.mould.sizeMax(plan), 0xaa)
          const end = loaded.mould.write(plan, arena, offset)
          expect(end).toBeLessThanOrEqual(arena.length)
          const general = encodeTbsCertificate(templateOf(context, plan))
          expect(bytesEqual(arena.subarray(offset, end), general)).toBe(true)
          lintPlanned(loaded, arena, { start: offset, end }, plan, { now: NOW, ttlSeconds })
        }),
        { numRuns: 150 },
      )
    },
  )
})
