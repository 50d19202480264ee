import { generateKeyPairSync } from 'node:crypto'
import { rootCertificates } from 'node:tls'
import { describe, expect, test } from 'vitest'
import { SignetError } from '../../../../src/base/error.ts'
import { createFederatedBundleHandlers } from '../../../../src/server/rpc/bundle/v1/federated.ts'
import { createBundleHandlers } from '../../../../src/server/rpc/bundle/v1/handlers.ts'
import type { HandlerPorts } from '../../../../src/server/rpc/ports.ts'
import type { Bundle } from '../../../../src/spiffe/bundle.ts'
import { bundleToProto } from '../../../../src/wire/convert/bundle.ts'
import { BundleMask, JWTKey } from '../../../../src/wire/gen/spire/api/types/bundle.ts'
import { ADMIN, contextOf, portsWith } from './rig.ts'

const away = new SignetError('unavailable', 'database', 'database is unavailable')
const missing = new SignetError('not_found', 'x', 'hidden')
const CERTIFICATE = new Uint8Array(
  Buffer.from(rootCertificates[0]!.replace(/-----[^-]+-----|\s/g, ''), 'base64'),
)
const PUBLIC_KEY = new Uint8Array(
  generateKeyPairSync('ec', { namedCurve: 'P-256' }).publicKey.export({
    format: 'der',
    type: 'spki',
  }),
)
const KEY = JWTKey.create({ publicKey: PUBLIC_KEY, keyId: 'kid', expiresAt: 9n })

function bundleOf(trustDomain: string, change: Partial<Bundle> = {}): Bundle {
  return {
    trustDomain,
    x509Authorities: [{ certificate: CERTIFICATE, tainted: true }],
    jwtAuthorities: [{ keyId: 'kid', publicKey: PUBLIC_KEY, expiresAt: 9, tainted: false }],
    refreshHintSeconds: 60,
    sequenceNumber: 4n,
    ...change,
  }
}

const OWN = bundleOf('example.org')
const FOREIGN = bundleOf('other.org')

type Store = Partial<HandlerPorts['bundleStore']>

const handlersWith = (bundleStore: Store, rest: Parameters<typeof portsWith>[0] = {}) =>
  createBundleHandlers(portsWith({ bundleStore, ...rest }))

describe('the own bundle', () => {
  test('GetBundle shows taint, and masks', async () => {
    const bundles = { ownBundle: async () => OWN }
    const { getBundle } = handlersWith({}, { bundles })
    const get = (outputMask: BundleMask | undefined) => getBundle({ outputMask }, contextOf(ADMIN))
    expect((await get(undefined)).x509Authorities[0]?.tainted).toBe(true)
    expect(await get(BundleMask.create({ sequenceNumber: true }))).toMatchObject({
      trustDomain: 'example.org',
      sequenceNumber: 4n,
      x509Authorities: [],
      refreshHint: 0n,
    })
  })

  test.each<[() => Promise<Bundle | undefined>, object]>([
    [async () => undefined, { kind: 'not_found', message: 'bundle not found' }],
    [
      () => Promise.reject(away),
      { kind: 'unavailable', message: 'failed to fetch bundle: database is unavailable' },
    ],
  ])('GetBundle fails: %#', async (ownBundle, expected) => {
    const { getBundle } = handlersWith({}, { bundles: { ownBundle } })
    const getting = getBundle({ outputMask: undefined }, contextOf(ADMIN))
    await expect(getting).rejects.toMatchObject(expected)
  })

  test('AppendBundle drops taint and appends to the own trust domain', async () => {
    const appended: unknown[] = []
    const { appendBundle } = handlersWith({
      appendBundle: async (addition) => {
        appended.push(addition)
        return OWN
      },
    })
    const request = {
      x509Authorities: [{ asn1: CERTIFICATE, tainted: true }],
      jwtAuthorities: [{ ...KEY, tainted: true }],
      witAuthorities: [],
      outputMask: undefined,
    }
    expect(await appendBundle(request, contextOf(ADMIN))).toEqual(bundleToProto(OWN))
    expect(appended).toEqual([
      {
        trustDomain: 'example.org',
        x509Authorities: [{ certificate: CERTIFICATE, tainted: false }],
        jwtAuthorities: OWN.jwtAuthorities,
      },
    ])
  })

  const bare = {
    x509Authorities: [],
    jwtAuthorities: [],
    witAuthorities: [],
    outputMask: undefined,
  }
  test.each([
    [bare, 'no authorities to append'],
    [{ ...bare, witAuthorities: [KEY] }, 'no authorities to append'],
    [
      { ...bare, x509Authorities: [{ asn1: Uint8Array.of(1), tainted: false }] },
      /^failed to convert X.509 authority: malformed DER/,
    ],
    [
      { ...bare, jwtAuthorities: [{ ...KEY, keyId: '' }] },
      'failed to convert JWT authority: missing key ID',
    ],
  ])('AppendBundle refuses: %#', async (request, message) => {
    const { appendBundle } = handlersWith({})
    await expect(appendBundle(request, contextOf(ADMIN))).rejects.toThrow(message)
  })

  test('PublishJWTAuthority answers with the full list of keys', async () => {
    const { publishJwtAuthority } = handlersWith({
      appendBundle: async ({ jwtAuthorities }) => {
        expect(jwtAuthorities).toEqual(OWN.jwtAuthorities)
        return bundleOf('example.org', {
          jwtAuthorities: [...OWN.jwtAuthorities, { ...OWN.jwtAuthorities[0]!, keyId: 'older' }],
        })
      },
    })
    const { jwtAuthorities } = await publishJwtAuthority({ jwtAuthority: KEY }, contextOf(ADMIN))
    expect(jwtAuthorities.map((key) => key.keyId)).toEqual(['kid', 'older'])
    await expect(
      publishJwtAuthority({ jwtAuthority: undefined }, contextOf(ADMIN)),
    ).rejects.toMatchObject({ kind: 'invalid_argument', message: 'missing JWT authority' })
    await expect(
      publishJwtAuthority({ jwtAuthority: { ...KEY, keyId: '' } }, contextOf(ADMIN)),
    ).rejects.toMatchObject({ message: 'invalid JWT authority: missing key ID' })
  })
})

describe('foreign bundles, read', () => {
  test('CountBundles counts all', async () => {
    const { countBundles } = handlersWith({ countBundles: async () => 3 })
    expect(await countBundles({}, contextOf(ADMIN))).toEqual({ count: 3 })
  })

  test('ListFederatedBundles leaves the own one out, even of a page', async () => {
    const { listFederatedBundles } = handlersWith({
      listBundles: async () => ({ rows: [OWN], nextToken: '1' }),
    })
    const request = { outputMask: undefined, pageSize: 1, pageToken: '' }
    expect(await listFederatedBundles(request, contextOf(ADMIN))).toEqual({
      bundles: [],
      nextPageToken: '1',
    })
  })

  test.each([
    ['other.org', undefined],
    ['spiffe://other.org', undefined],
    ['absent.org', { kind: 'not_found', message: 'bundle not found' }],
    [
      'example.org',
      {
        kind: 'invalid_argument',
        message: "getting a federated bundle for the server's own trust domain is not allowed",
      },
    ],
    [
      'Bad',
      {
        kind: 'invalid_argument',
        message: expect.stringMatching(/^trust domain argument is not valid: /),
      },
    ],
  ])('GetFederatedBundle of %s', async (trustDomain, error) => {
    const { getFederatedBundle } = handlersWith({
      getBundle: async (name) => (name === 'other.org' ? FOREIGN : undefined),
    })
    const getting = getFederatedBundle({ trustDomain, outputMask: undefined }, contextOf(ADMIN))
    if (error === undefined) expect(await getting).toEqual(bundleToProto(FOREIGN))
    else await expect(getting).rejects.toMatchObject(error)
  })
})

describe('foreign bundles, written', () => {
  const proto = bundleToProto(FOREIGN)
  const batch = { bundle: [proto], outputMask: undefined, inputMask: undefined }
  const federatedWith = (bundleStore: Store) =>
    createFederatedBundleHandlers(portsWith({ bundleStore }))
  const fail = (error: SignetError) => () => Promise.reject(error)

  test('results come in order, each with a status', async () => {
    const { batchSetFederatedBundle } = federatedWith({
      setBundle: async (bundle) => bundle,
    })
    const bad = { ...proto, jwtAuthorities: [{ ...KEY, keyId: '' }] }
    const own = { ...proto, trustDomain: 'example.org' }
    const context = contextOf(ADMIN)
    const { results } = await batchSetFederatedBundle(
      { bundle: [bad, proto, own, { ...proto, trustDomain: '' }], outputMask: undefined },
      context,
    )
    expect(results.map(({ status }) => status)).toEqual([
      {
        code: 3,
        message: 'failed to convert bundle: unable to parse JWT authority: missing key ID',
      },
      { code: 0, message: 'OK' },
      {
        code: 3,
        message: "setting a federated bundle for the server's own trust domain is not allowed",
      },
      { code: 3, message: 'trust domain argument is not valid: trust domain is missing' },
    ])
    expect(results[1]?.bundle?.x509Authorities[0]?.tainted).toBe(false)
    expect(results[0]?.bundle).toBeUndefined()
    expect(context.records).toHaveLength(4)
    expect(context.records[1]?.fields).toMatchObject({
      trust_domain_id: 'other.org',
      'x509_authorities_asn1_sha256.0': expect.stringMatching(/^[0-9a-f]{64}$/),
    })
  })

  test.each<[string, Store, number, string]>([
    [
      'batchCreateFederatedBundle',
      { createBundle: fail(new SignetError('already_exists', 'x', 'hidden')) },
      6,
      'bundle already exists',
    ],
    [
      'batchCreateFederatedBundle',
      { createBundle: fail(away) },
      14,
      'unable to create bundle: database is unavailable',
    ],
    ['batchUpdateFederatedBundle', { updateBundle: fail(missing) }, 5, 'bundle not found'],
    [
      'batchUpdateFederatedBundle',
      { updateBundle: fail(away) },
      14,
      'failed to update bundle: database is unavailable',
    ],
    [
      'batchSetFederatedBundle',
      { setBundle: fail(away) },
      14,
      'failed to set bundle: database is unavailable',
    ],
  ])('%s that fails: %#', async (method, store, code, message) => {
    const handlers = federatedWith(store)
    const run = handlers[method as 'batchUpdateFederatedBundle']
    const { results } = await run(batch, contextOf(ADMIN))
    expect(results).toEqual([{ status: { code, message }, bundle: undefined }])
  })

  test('an update changes what its mask names, and masks what it answers', async () => {
    const patches: unknown[] = []
    const { batchUpdateFederatedBundle } = federatedWith({
      updateBundle: async (patch) => {
        patches.push(patch)
        return FOREIGN
      },
    })
    const { results } = await batchUpdateFederatedBundle(
      {
        bundle: [proto],
        inputMask: BundleMask.create({ refreshHint: true }),
        outputMask: BundleMask.create(),
      },
      contextOf(ADMIN),
    )
    expect(patches).toEqual([{ trustDomain: 'other.org', refreshHintSeconds: 60 }])
    expect(results[0]?.bundle).toMatchObject({ trustDomain: 'other.org', sequenceNumber: 0n })
  })

  test.each([
    [0, 'restrict'],
    [1, 'delete'],
    [2, 'dissociate'],
  ] as const)('delete mode %i is %s', async (mode, name) => {
    const deleted: string[] = []
    const { batchDeleteFederatedBundle } = federatedWith({
      deleteBundle: async (trustDomain, how) => void deleted.push(`${trustDomain} ${how}`),
    })
    const request = { trustDomains: ['spiffe://other.org'], mode }
    expect(await batchDeleteFederatedBundle(request, contextOf(ADMIN))).toEqual({
      results: [{ status: { code: 0, message: 'OK' }, trustDomain: 'spiffe://other.org' }],
    })
    expect(deleted).toEqual([`other.org ${name}`])
  })

  test('deletion fails per item and echoes the name as given', async () => {
    const bound = new SignetError('failed_precondition', 'x', 'datastore-sql: cannot delete')
    const outcomes: Record<string, SignetError> = { 'gone.org': missing, 'bound.org': bound }
    const { batchDeleteFederatedBundle } = federatedWith({
      deleteBundle: (name) => Promise.reject(outcomes[name]),
    })
    const trustDomains = ['gone.org', 'bound.org', 'example.org', '']
    const { results } = await batchDeleteFederatedBundle(
      { trustDomains, mode: 0 },
      contextOf(ADMIN),
    )
    expect(results.map(({ trustDomain }) => trustDomain)).toEqual(trustDomains)
    expect(results.map(({ status }) => `${status?.code} ${status?.message}`)).toEqual([
      '5 bundle not found',
      '9 failed to delete federated bundle: datastore-sql: cannot delete',
      '3 removing the bundle for the server trust domain is not allowed',
      '3 trust domain argument is not valid: trust domain is missing',
    ])
  })

  test('an unknown mode is refused before anything is deleted', async () => {
    const { batchDeleteFederatedBundle } = federatedWith({})
    const request = { trustDomains: ['other.org'], mode: 3 as 0 }
    await expect(batchDeleteFederatedBundle(request, contextOf(ADMIN))).rejects.toMatchObject({
      kind: 'invalid_argument',
      message: 'failed to parse deletion mode: unhandled delete mode "3"',
    })
  })
})
