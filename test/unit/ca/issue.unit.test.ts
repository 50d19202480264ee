import { sign } from 'node:crypto'
import fc from 'fast-check'
import { beforeEach, describe, expect, test } from 'vitest'
import { bytesEqual } from '../../../src/base/bytes.ts'
import type { Outcome } from '../../../src/base/error.ts'
import { SignetError } from '../../../src/base/error.ts'
import type { IssuedX509Svid, X509SvidOrder } from '../../../src/ca/issuance.ts'
import { createX509Issuance } from '../../../src/ca/issue.ts'
import type { X509Issuer } from '../../../src/ca/issuer-source.ts'
import { createNodeEngine } from '../../../src/ca/signer/node-engine.ts'
import { ITEM_STATUS, type SigningBatch, type SigningResults } from '../../../src/ca/signer/port.ts'
import { SpiffeId } from '../../../src/spiffe/spiffe-id.ts'
import { parseCertificate } from '../../../src/x509/certificate.ts'
import {
  createCertificateRequest,
  encodeCertificateRequestInfo,
  parseCertificateRequest,
} from '../../../src/x509/csr.ts'
import {
  contextTag,
  encodeOctetBits,
  encodeOid,
  encodeSmallUnsigned,
  sequence,
  tlv,
} from '../../../src/x509/der.ts'
import { encodeName, formatName } from '../../../src/x509/name.ts'
import { SIGNATURE_ALGORITHMS } from '../../../src/x509/oid.ts'
import { verifyChain } from '../../../src/x509/path.ts'
import { FakeClock } from '../../fakes/fake-clock.ts'
import { createMemoryLedger } from '../../fakes/memory-ledger.ts'
import { createMemoryLog, createMemoryMetrics } from '../../fakes/memory-log.ts'
import { createSeededRandom } from '../../fakes/seeded-random.ts'
import { NOW, newCsr, newHierarchy, newKey, TD } from '../../rigs/issuing.ts'

const CALLER = { callerId: 'spiffe://example.org/spire/agent/a', requestId: 'r1' }
const engine = createNodeEngine()
const workloads = newHierarchy({ engine })
const control = newHierarchy({ engine, clusterId: 1 })
const csr = newCsr()

function order(change: Partial<X509SvidOrder> = {}): X509SvidOrder {
  return {
    profile: 'workload',
    clusterId: 2,
    spiffeId: SpiffeId.parse('spiffe://example.org/w'),
    entryId: 'entry-1',
    ttlSeconds: 0,
    dnsNames: [],
    csr,
    proof: true,
    ...change,
  }
}

const AGENT: Partial<X509SvidOrder> = {
  profile: 'agent',
  clusterId: 1,
  entryId: '',
  spiffeId: SpiffeId.parse('spiffe://example.org/spire/agent/x509pop/a'),
  proof: false,
}

function setUp() {
  const clock = new FakeClock(NOW)
  const ledger = createMemoryLedger()
  const log = createMemoryLog()
  const metrics = createMemoryMetrics()
  const issuers = new Map<number, X509Issuer>([
    [1, control.issuer],
    [2, workloads.issuer],
  ])
  const signer = { sign: (batch: SigningBatch): Promise<SigningResults> => engine.sign(batch) }
  const issuance = createX509Issuance({
    clock,
    ledger,
    log,
    metrics,
    signer,
    random: createSeededRandom(),
    trustDomain: TD,
    ttls: { x509SvidTtlSeconds: 3600, agentTtlSeconds: 1800, caTtlSeconds: 86_400 },
    issuers: {
      x509Issuer(clusterId) {
        const issuer = issuers.get(clusterId)
        if (issuer) return issuer
        throw new SignetError('unavailable', 'initializing', 'server is initializing')
      },
    },
  })
  const issue = (orders: readonly X509SvidOrder[], requests?: Uint8Array) =>
    issuance.issueX509Svids(orders, CALLER, requests)
  return { clock, ledger, log, metrics, issuers, signer, issue }
}

let s: ReturnType<typeof setUp>
beforeEach(() => {
  s = setUp()
})

function issued(outcome: Outcome<IssuedX509Svid> | undefined): IssuedX509Svid {
  if (!outcome?.ok) throw outcome?.error ?? new Error('no outcome')
  return outcome.value
}

const codes = (outcomes: readonly Outcome<IssuedX509Svid>[]) =>
  outcomes.map((outcome) => (outcome.ok ? 'ok' : `${outcome.error.kind}/${outcome.error.code}`))

describe('what is issued', () => {
  test('chains to the root, and is what the order and the ledger say', async () => {
    const [outcome] = await s.issue([order({ dnsNames: ['a.b'], ttlSeconds: 600 })])
    const svid = issued(outcome)
    const [leaf, intermediate] = svid.chain.map((der) => parseCertificate(der))
    const root = parseCertificate(workloads.root)
    const found = verifyChain({
      leaf: leaf!,
      intermediates: [intermediate!],
      roots: [root],
      now: NOW,
    })
    expect(found).toHaveLength(1)
    // The root is not sent.
    expect(svid.chain).toHaveLength(2)
    const oids = [
      ...Buffer.from(svid.chain[0]!)
        .toString('hex')
        .matchAll(/0603551d(..)/g),
    ]
    expect(oids.map((oid) => Number.parseInt(oid[1]!, 16))).toEqual([15, 37, 19, 14, 35, 17])
    expect(leaf!.uriNames).toEqual(['spiffe://example.org/w'])
    expect(leaf!.dnsNames).toEqual(['a.b'])
    expect(formatName(leaf!.subject)).toBe('CN=a.b,O=SPIRE,C=US')
    expect([leaf!.notBefore, leaf!.notAfter]).toEqual([NOW - 10, NOW + 600])
    expect([svid.notBefore, svid.notAfter]).toEqual([NOW - 10, NOW + 600])
    expect(bytesEqual(leaf!.serialNumber, svid.serialNumber)).toBe(true)
    expect(s.ledger.rows).toMatchObject([
      {
        kind: 'x509_workload',
        clusterId: 2,
        authorityId: 102,
        spiffeId: 'spiffe://example.org/w',
        entryId: 'entry-1',
        ...CALLER,
        notBefore: NOW - 10,
        notAfter: NOW + 600,
      },
    ])
    expect(bytesEqual(s.ledger.rows[0]!.serialNumber, svid.serialNumber)).toBe(true)
    expect(s.metrics.counters.get('server_ca.sign.x509_svid')).toBe(1)
  })

  test.each([
    ['workload', {}, 3600, 'x509_workload'],
    ['agent', AGENT, 1800, 'x509_agent'],
    [
      'server',
      {
        ...AGENT,
        profile: 'server',
        spiffeId: SpiffeId.parse('spiffe://example.org/spire/server'),
      },
      3600,
      'x509_server',
    ],
  ] as const)('%s certificates live as long as configured', async (_name, change, ttl, kind) => {
    const [outcome] = await s.issue([order(change)])
    expect(issued(outcome).notAfter).toBe(NOW + ttl)
    expect(s.ledger.rows[0]!.kind).toBe(kind)
  })

  test('a downstream CA, under an issuer that may', async () => {
    const nested = newHierarchy({ engine, clusterId: 3, nested: true })
    s.issuers.set(3, nested.issuer)
    const spiffeId = SpiffeId.parse('spiffe://example.org')
    const ca = order({ profile: 'downstream_ca', spiffeId })
    const outcomes = await s.issue([
      { ...ca, clusterId: 3 },
      { ...ca, clusterId: 2 },
    ])
    expect(codes(outcomes)).toEqual(['ok', 'failed_precondition/issuer_signs_no_ca'])
    expect(parseCertificate(issued(outcomes[0]).chain[0]!).isCa).toBe(true)
    expect(s.ledger.rows.map((row) => row.kind)).toEqual(['x509_ca'])
    expect(s.metrics.counters.get('server_ca.sign.x509_ca_svid')).toBe(1)
  })

  test('MintX509SVID’s subject, with the first DNS name over its common name', async () => {
    const subject = encodeName({ organization: ['Acme'], commonName: ['x'] })
    const outcomes = await s.issue([order({ subject }), order({ subject, dnsNames: ['a.b'] })])
    const subjects = outcomes.map((o) => formatName(parseCertificate(issued(o).chain[0]!).subject))
    expect(subjects).toEqual(['CN=x,O=Acme', 'CN=a.b,O=Acme'])
  })

  test('several profiles and clusters in one batch, in order', async () => {
    const outcomes = await s.issue([order(), order(AGENT), order({ clusterId: 9 }), order()])
    expect(codes(outcomes)).toEqual(['ok', 'ok', 'unavailable/initializing', 'ok'])
    expect(parseCertificate(issued(outcomes[1]).chain[0]!).uriNames[0]).toContain('/spire/agent/')
    expect(issued(outcomes[1]).chain[1]).toBe(control.issuer.chain[0])
  })

  test('nothing for no orders', async () => {
    expect(await s.issue([])).toEqual([])
    expect(s.ledger.rows).toEqual([])
  })

  test('a new issuing certificate replaces the old one’s profile', async () => {
    await s.issue([order()])
    const next = newHierarchy({ engine, seed: 'next' })
    s.issuers.set(2, next.issuer)
    const svid = issued((await s.issue([order()]))[0])
    const [leaf, own] = svid.chain.map((der) => parseCertificate(der))
    const roots = [parseCertificate(next.root)]
    expect(verifyChain({ leaf: leaf!, intermediates: [own!], roots, now: NOW })).toHaveLength(1)
  })
})

describe('of a CSR only the key counts (T-S4)', () => {
  test('subject, names and extensions asked for change nothing', async () => {
    const key = newKey()
    const plain = issued((await setUp().issue([order({ csr: createCertificateRequest(key) })]))[0])
    const text = fc.stringMatching(/^[a-z/:.]{1,20}$/)
    const asked = fc.record({
      subject: fc.constantFrom(
        encodeName({}),
        encodeName({ commonName: ['root'], country: ['DE'] }),
      ),
      uriNames: fc.array(text, { maxLength: 3 }),
      dnsNames: fc.array(text, { maxLength: 3 }),
    })
    await fc.assert(
      fc.asyncProperty(asked, async (names) => {
        const csrOf = createCertificateRequest({ ...key, ...names })
        const other = issued((await setUp().issue([order({ csr: csrOf })]))[0])
        const tbs = (svid: IssuedX509Svid) => Buffer.from(parseCertificate(svid.chain[0]!).tbs)
        expect(tbs(other)).toEqual(tbs(plain))
      }),
      { numRuns: 30 },
    )
  })

  test('attributes that are not even well-formed change nothing either', async () => {
    const key = newKey()
    const info = sequence(
      encodeSmallUnsigned(0),
      encodeName({}),
      key.publicKey,
      tlv(contextTag(0, true), Uint8Array.of(0xff, 0xff, 0xff)),
    )
    const { identifier, hash } = SIGNATURE_ALGORITHMS['ecdsa-sha256']
    const strange = sequence(info, identifier, encodeOctetBits(sign(hash, info, key.privateKey)))
    expect(codes(await s.issue([order({ csr: strange })]))).toEqual(['ok'])
  })
})

describe('one bad order spoils only itself', () => {
  const cut = csr.subarray(0, csr.length - 1)
  const forged = csr.slice()
  forged[forged.length - 1] = forged[forged.length - 1]! ^ 1
  const offCurve = csr.slice()
  const { publicKey } = parseCertificateRequest(csr)
  const lastOfKey = publicKey.offset + publicKey.length - 1
  offCurve[lastOfKey] = offCurve[lastOfKey]! ^ 1
  const rsa1024 = createCsrUnchecked()

  const BAD: [string, Partial<X509SvidOrder>, string][] = [
    ['cut', { csr: cut }, 'invalid_argument/malformed_csr'],
    ['empty', { csr: new Uint8Array() }, 'invalid_argument/malformed_csr'],
    ['forged', { csr: forged }, 'invalid_argument/bad_csr_signature'],
    ['off curve', { csr: offCurve }, 'invalid_argument/malformed_csr'],
    ['off curve, no proof', { csr: offCurve, proof: false }, 'invalid_argument/malformed_csr'],
    ['RSA-1024', { csr: rsa1024 }, 'invalid_argument/weak_key'],
    ['another class of ID', { spiffeId: AGENT.spiffeId! }, 'permission_denied/id_not_allowed'],
    ['agent by a cluster', { ...AGENT, clusterId: 2 }, 'internal/lint_failed'],
    ['bad DNS name', { dnsNames: ['a b'] }, 'invalid_argument/bad_dns_name'],
    ['a cluster without issuer', { clusterId: 9 }, 'unavailable/initializing'],
  ]

  test.each(BAD)('%s, at each place', async (_name, change, code) => {
    for (const at of [0, 2, 4]) {
      const orders = Array.from({ length: 5 }, (_, i) => order(i === at ? change : {}))
      const outcomes = await s.issue(orders)
      expect(codes(outcomes)).toEqual(orders.map((_, i) => (i === at ? code : 'ok')))
    }
  })

  test('a CSR that is signed with SHA-1 proves nothing', async () => {
    const key = newKey()
    const info = encodeCertificateRequestInfo(encodeName({}), key.publicKey, {
      uriNames: [],
      dnsNames: [],
    })
    const signed = (algorithm: Uint8Array, hash: string) =>
      sequence(info, algorithm, encodeOctetBits(sign(hash, info, key.privateKey)))
    const sha1 = signed(sequence(encodeOid('1.2.840.10045.4.1')), 'sha1')
    const sha256 = signed(SIGNATURE_ALGORITHMS['ecdsa-sha256'].identifier, 'sha256')
    const outcomes = await s.issue([order({ csr: sha1 }), order({ csr: sha256 })])
    expect(codes(outcomes)).toEqual(['invalid_argument/bad_csr_signature', 'ok'])
  })

  test('without a proof asked for, the self-signature does not matter', async () => {
    expect(codes(await s.issue([order({ csr: forged, proof: false })]))).toEqual(['ok'])
  })

  test('a failed proof has its row, and a second one', async () => {
    const outcomes = await s.issue([order(), order({ csr: forged })])
    expect(codes(outcomes)).toEqual(['ok', 'invalid_argument/bad_csr_signature'])
    expect(outcomes[1]).toMatchObject({ error: { message: 'invalid CSR signature' } })
    expect(s.ledger.rows).toHaveLength(2)
    expect(s.ledger.failures).toEqual([{ rows: [s.ledger.rows[1]], reason: 'bad_csr_signature' }])
  })

  test('the texts are those that clients know', async () => {
    const [bad] = await s.issue([order({ csr: cut })])
    expect(bad).toMatchObject({ error: { message: expect.stringMatching(/^malformed CSR: /) } })
  })

  function createCsrUnchecked(): Uint8Array {
    const key = newKey('rsa-1024' as 'rsa-2048')
    const info = sequence(encodeSmallUnsigned(0), encodeName({}), key.publicKey, tlv(0xa0))
    const { identifier, hash } = SIGNATURE_ALGORITHMS['rsa-sha256']
    return sequence(info, identifier, encodeOctetBits(sign(hash, info, key.privateKey)))
  }
})

describe('nothing is released before row and signature (I3)', () => {
  test('a ledger that waits holds the answer back', async () => {
    const release = s.ledger.hold()
    let done = false
    const answer = s.issue([order()]).then((outcomes) => {
      done = true
      return outcomes
    })
    // The signature takes one turn of the loop; ten later nothing may have come.
    for (let turn = 0; turn < 10; turn++) await new Promise((resolve) => setImmediate(resolve))
    expect(done).toBe(false)
    release()
    expect(codes(await answer)).toEqual(['ok'])
  })

  test('without the ledger nothing leaves', async () => {
    s.ledger.down = true
    const outcomes = await s.issue([order(), order({ csr: new Uint8Array(3) }), order()])
    expect(codes(outcomes)).toEqual([
      'unavailable/ledger_unavailable',
      'invalid_argument/malformed_csr',
      'unavailable/ledger_unavailable',
    ])
    expect(outcomes[0]).toMatchObject({ error: { retryAfterSeconds: 1 } })
    expect(outcomes.some((outcome) => outcome.value !== undefined)).toBe(false)
    s.ledger.down = false
    expect(codes(await s.issue([order()]))).toEqual(['ok'])
  })

  test('a foreign error of the ledger becomes unavailable, its text hidden', async () => {
    s.ledger.record = async () => {
      throw new Error('password=secret')
    }
    const [outcome] = await s.issue([order()])
    expect(outcome).toMatchObject({
      error: { kind: 'unavailable', message: 'failed to record issuance' },
    })
  })

  test('a signer that gives up fails the batch, with second rows', async () => {
    s.signer.sign = async () => {
      throw new Error('signer gone')
    }
    expect(codes(await s.issue([order(), order()]))).toEqual([
      'internal/signing_failed',
      'internal/signing_failed',
    ])
    expect(s.ledger.failures[0]!.rows).toHaveLength(2)
    s.signer.sign = async () => {
      throw new SignetError('unavailable', 'signer_away', 'signer is away')
    }
    expect(codes(await s.issue([order()]))).toEqual(['unavailable/signer_away'])
  })

  test.each([
    ['digestMismatch', ITEM_STATUS.digestMismatch],
    ['failed', ITEM_STATUS.failed],
    ['ok without a signature', ITEM_STATUS.ok],
  ])('an item that ends as %s is not released', async (_name, status) => {
    s.signer.sign = async (batch) => {
      const results = await engine.sign(batch)
      results.status[1] = status
      return {
        ...results,
        signatures: results.signatures.map((sig, i) => (i === 1 ? new Uint8Array() : sig)),
      }
    }
    const outcomes = await s.issue([order(), order(), order()])
    expect(codes(outcomes)).toEqual(['ok', 'internal/signing_failed', 'ok'])
    expect(s.ledger.failures.map((failure) => failure.rows[0])).toEqual([s.ledger.rows[1]])
    expect(s.log.lines.some((line) => line.level === 'error')).toBe(true)
  })

  test('bytes changed after the linter reach no signature', async () => {
    s.signer.sign = (batch) => {
      batch.messages[40] = batch.messages[40]! ^ 1
      return engine.sign(batch)
    }
    expect(codes(await s.issue([order()]))).toEqual(['internal/signing_failed'])
  })

  test('rows carry the digest of exactly what was signed', async () => {
    const batches: SigningBatch[] = []
    s.signer.sign = (batch) => {
      batches.push({ ...batch, digests: batch.digests.slice() })
      return engine.sign(batch)
    }
    await s.issue([order(), order()])
    const digests = s.ledger.rows.map((row) => Buffer.from(row.tbsSha256))
    expect(Buffer.concat(digests)).toEqual(Buffer.from(batches[0]!.digests))
  })
})

describe('buffers', () => {
  test('CSRs are signed for in the message they came in, wherever they lie', async () => {
    const csrs = [newCsr(), newCsr(newKey('rsa-2048')), newCsr(newKey('ed25519'))]
    const message = Buffer.concat([Buffer.alloc(11), csrs[0]!, Buffer.alloc(2), csrs[1]!, csrs[2]!])
    let at = 11
    const orders = csrs.map((one, i) => {
      const view = message.subarray(at, at + one.length)
      at += one.length + (i === 0 ? 2 : 0)
      return order({ csr: view })
    })
    const seen: Uint8Array[] = []
    s.signer.sign = (batch) => {
      seen.push(batch.requests)
      return engine.sign(batch)
    }
    expect(codes(await s.issue(orders, message))).toEqual(['ok', 'ok', 'ok'])
    expect(seen[0]).toBe(message)
  })

  test('CSRs from elsewhere are copied together', async () => {
    const orders = [order({ csr: newCsr() }), order({ csr: newCsr(newKey('ec-p384')) })]
    expect(codes(await s.issue(orders))).toEqual(['ok', 'ok'])
    expect(codes(await s.issue(orders, new Uint8Array(10)))).toEqual(['ok', 'ok'])
  })

  test('concurrent batches do not share an arena', async () => {
    const batches = Array.from({ length: 20 }, (_, batch) =>
      s.issue(
        Array.from({ length: 3 }, (_, i) =>
          order({ spiffeId: SpiffeId.parse(`spiffe://example.org/b${batch}/i${i}`) }),
        ),
      ),
    )
    const names = (await Promise.all(batches)).flatMap((outcomes) =>
      outcomes.map((outcome) => parseCertificate(issued(outcome).chain[0]!).uriNames[0]),
    )
    expect(new Set(names).size).toBe(60)
    expect(names[59]).toBe('spiffe://example.org/b19/i2')
  })

  test('what was released stays as it is when its arena is used again', async () => {
    const svid = issued((await s.issue([order()]))[0])
    const before = Buffer.from(svid.chain[0]!)
    await s.issue(Array.from({ length: 8 }, () => order()))
    expect(Buffer.from(svid.chain[0]!)).toEqual(before)
  })

  test('500 in a batch are 500 different certificates', async () => {
    const outcomes = await s.issue(Array.from({ length: 500 }, () => order({ proof: false })))
    const serials = outcomes.map((outcome) =>
      Buffer.from(issued(outcome).serialNumber).toString('hex'),
    )
    expect(new Set(serials).size).toBe(500)
  })
})
