/**
 * Issues X509-SVIDs and downstream CAs: parse CSR → plan → encode → lint → (ledger rows ∥ proof of
 * possession and signature) → release (design.md §3).
 *
 * Nothing is released before its row is durable and its signature made (I3): a failing ledger fails
 * the whole batch, a failing item only itself. Owns the arenas and the loaded profiles; it sees no
 * private key and trusts nothing of a CSR but its public key.
 */
import { type Outcome, SignetError, toSignetError } from '../base/error.ts'
import { LARGE_BATCH_ITEMS, LARGE_BATCHES_AT_ONCE, LARGE_TURN_ITEMS } from '../base/limits.ts'
import type { Clock, EpochSeconds, Log, Metrics, Random } from '../base/ports.ts'
import type { TrustDomain } from '../spiffe/trust-domain.ts'
import { type CertificateRequest, sliceOf } from '../x509/csr.ts'
import { headerSize, TAG, writeHeader } from '../x509/der.ts'
import { SIGNATURE_ALGORITHMS } from '../x509/oid.ts'
import type { Issuance, IssuanceCaller, IssuedX509Svid, X509SvidOrder } from './issuance.ts'
import type { IssuerSource, X509Issuer } from './issuer-source.ts'
import type { Ledger, LedgerRow } from './ledger.ts'
import { LintedBatch } from './lint/linted-batch.ts'
import type { LoadedProfile } from './lint/loaded-profile.ts'
import { createProfileCache, type ProfileCache, type SvidTtls } from './lint/profile-cache.ts'
import { parseRequest, proofError, type RequestBuffer, requestBuffer } from './order-requests.ts'
import { type ArenaPool, createArenaPool } from './profile/arena-pool.ts'
import { SERIAL_BYTES } from './profile/serial-number.ts'
import { planX509Svid, type SvidPlan } from './profile/svid-plan.ts'
import { ITEM_STATUS, type Signer, type SigningResults } from './signer/port.ts'
import { proofAlgorithm } from './signer/proof.ts'
import { createTurns } from './turns.ts'

export interface X509IssuanceParts {
  readonly clock: Clock
  readonly random: Random
  readonly issuers: Pick<IssuerSource, 'x509Issuer'>
  readonly signer: Pick<Signer, 'sign'>
  readonly ledger: Ledger
  readonly trustDomain: TrustDomain
  readonly ttls: SvidTtls
  readonly log: Log
  readonly metrics: Metrics
}

interface Bench extends X509IssuanceParts {
  readonly profiles: ProfileCache
  readonly arenas: ArenaPool
}

/** One order on its way; `position` is its place in the answer. */
interface Job {
  readonly position: number
  readonly order: X509SvidOrder
  readonly request: CertificateRequest
  /** Where the CSR starts in the buffer that the proofs refer to. */
  readonly requestStart: number
  readonly issuer: X509Issuer
  readonly profile: LoadedProfile
  readonly plan: SvidPlan
}

type Outcomes = Outcome<IssuedX509Svid>[]

export function createX509Issuance(parts: X509IssuanceParts): Pick<Issuance, 'issueX509Svids'> {
  const bench = {
    ...parts,
    profiles: createProfileCache(parts.trustDomain, parts.ttls),
    arenas: createArenaPool(),
  }
  const turns = createTurns(LARGE_BATCHES_AT_ONCE, LARGE_TURN_ITEMS)
  return {
    issueX509Svids: (orders, caller, requests) => {
      const issue = () => issueBatch(bench, orders, caller, requests)
      return orders.length < LARGE_BATCH_ITEMS ? issue() : turns.take(orders.length, issue)
    },
  }
}

async function issueBatch(
  bench: Bench,
  orders: readonly X509SvidOrder[],
  caller: IssuanceCaller,
  received: Uint8Array | undefined,
): Promise<Outcomes> {
  const now = bench.clock.nowSeconds()
  const outcomes: Outcomes = new Array(orders.length)
  const requests = requestBuffer(orders, received)
  const planned = planAll(bench, orders, requests, now, outcomes)
  if (planned.length === 0) return outcomes
  const size = planned.reduce((sum, { profile, plan }) => sum + profile.mould.sizeMax(plan), 0)
  const arena = bench.arenas.take(size)
  const linted = LintedBatch.of(arena, planned.length)
  const jobs = encodeAll(bench, planned, arena, linted, now, outcomes)
  if (jobs.length === 0) {
    bench.arenas.giveBack(arena)
    return outcomes
  }
  const rows = jobs.map((job, index) => ledgerRow(job, caller, linted.digest(index)))
  // The rows leave first: PostgreSQL works while this process signs.
  const [recorded, signed] = await Promise.allSettled([
    bench.ledger.record(rows),
    bench.signer.sign(linted.toSigningBatch(requests.bytes)),
  ])
  if (recorded.status === 'rejected') {
    const error = ledgerError(recorded.reason)
    for (const job of jobs) outcomes[job.position] = { ok: false, error }
  } else if (signed.status === 'rejected') {
    failAll(bench, jobs, rows, signed.reason, outcomes)
  } else {
    release(bench, jobs, rows, linted, signed.value, outcomes)
  }
  // A signer that gave up may still be reading; its arena is left to the garbage collector.
  if (signed.status === 'fulfilled') bench.arenas.giveBack(arena)
  return outcomes
}

function planAll(
  bench: Bench,
  orders: readonly X509SvidOrder[],
  requests: RequestBuffer,
  now: EpochSeconds,
  outcomes: Outcomes,
): Job[] {
  const jobs: Job[] = []
  // Drawn at once: 500 draws of 16 bytes cost more than one of 8000.
  const serials = bench.random.bytes(orders.length * SERIAL_BYTES)
  for (let position = 0; position < orders.length; position++) {
    const order = orders[position]!
    const start = position * SERIAL_BYTES
    const random = { bytes: (size: number) => serials.subarray(start, start + size) }
    try {
      const csr = requests.csrs[position]!
      const request = parseRequest(csr, order.proof)
      const issuer = bench.issuers.x509Issuer(order.clusterId)
      const profile = bench.profiles.get(issuer, order.profile)
      const plan = planX509Svid(
        profile.context,
        { now, random },
        {
          spiffeId: order.spiffeId,
          subjectPublicKeyInfo: sliceOf(request.bytes, request.publicKey),
          dnsNames: order.dnsNames,
          ttlSeconds: order.ttlSeconds,
          ...(order.subject ? { subject: order.subject } : {}),
        },
      )
      const requestStart = csr.byteOffset - requests.bytes.byteOffset
      jobs.push({ position, order, request, requestStart, issuer, profile, plan })
    } catch (thrown) {
      outcomes[position] = { ok: false, error: toSignetError(thrown) }
    }
  }
  return jobs
}

/** Encodes and lints; returns the jobs that passed, in the order of the linted batch. */
function encodeAll(
  bench: Bench,
  planned: readonly Job[],
  arena: Buffer,
  linted: LintedBatch,
  now: EpochSeconds,
  outcomes: Outcomes,
): Job[] {
  const jobs: Job[] = []
  let start = 0
  for (const job of planned) {
    const { order, issuer, profile, plan } = job
    try {
      const end = profile.mould.write(plan, arena, start)
      const ordered = { now, ttlSeconds: order.ttlSeconds }
      const index = linted.add(profile, issuer.keyHandle, { start, end }, plan, ordered)
      if (order.proof) setProof(linted, index, job)
      jobs.push(job)
      start = end
    } catch (thrown) {
      const error = toSignetError(thrown)
      bench.log.error('Refused to sign an X509 SVID that does not pass the linter', {
        spiffe_id: plan.spiffeId,
        code: error.code,
        ...error.fields,
      })
      outcomes[job.position] = { ok: false, error }
    }
  }
  return jobs
}

function setProof(linted: LintedBatch, index: number, { request, requestStart }: Job): void {
  linted.setProof(index, {
    infoOffset: requestStart + request.info.offset,
    infoLength: request.info.length,
    publicKeyOffset: requestStart + request.publicKey.offset,
    publicKeyLength: request.publicKey.length,
    signatureOffset: requestStart + request.signature.offset,
    signatureLength: request.signature.length,
    proofAlgorithm: proofAlgorithm(request.signatureAlgorithm),
  })
}

function ledgerRow(job: Job, caller: IssuanceCaller, tbsSha256: Uint8Array): LedgerRow {
  const { order, issuer, profile, plan } = job
  return {
    kind: profile.context.profile.ledgerKind,
    clusterId: order.clusterId,
    authorityId: issuer.authority.id,
    serialNumber: plan.serialNumber,
    spiffeId: plan.spiffeId,
    entryId: order.entryId,
    callerId: caller.callerId,
    requestId: caller.requestId,
    notBefore: plan.validity.notBefore,
    notAfter: plan.validity.notAfter,
    publicKeySha256: plan.publicKeySha256,
    tbsSha256,
  }
}

function release(
  bench: Bench,
  jobs: readonly Job[],
  rows: readonly LedgerRow[],
  linted: LintedBatch,
  results: SigningResults,
  outcomes: Outcomes,
): void {
  const certificates = assembleAll(jobs, linted, results)
  let [leaves, cas] = [0, 0]
  for (let index = 0; index < jobs.length; index++) {
    const job = jobs[index]!
    const certificate = certificates[index]
    if (certificate) {
      outcomes[job.position] = { ok: true, value: issued(job, certificate) }
      if (job.profile.context.profile.isCa) cas++
      else leaves++
    } else {
      const error = itemError(bench, job, results.status[index])
      bench.ledger.recordFailure([rows[index]!], error.code)
      outcomes[job.position] = { ok: false, error }
    }
  }
  if (leaves > 0) bench.metrics.counter('server_ca.sign.x509_svid', leaves)
  if (cas > 0) bench.metrics.counter('server_ca.sign.x509_ca_svid', cas)
}

/**
 * RFC 5280 §4.1: TBSCertificate ‖ signatureAlgorithm ‖ signatureValue, for all items that were
 * signed. They are views of one buffer: a buffer each costs as much as encoding them.
 */
function assembleAll(
  jobs: readonly Job[],
  linted: LintedBatch,
  { status, signatures }: SigningResults,
): (Uint8Array | undefined)[] {
  const isSigned = (index: number) =>
    status[index] === ITEM_STATUS.ok && (signatures[index]?.length ?? 0) > 0
  const bodies = jobs.map(({ profile }, index) => {
    if (!isSigned(index)) return 0
    const bits = signatures[index]!.length + 1
    const fixed = identifierOf(profile).length + headerSize(bits) + bits
    return linted.message(index).length + fixed
  })
  const out = new Uint8Array(bodies.reduce((sum, body) => sum + headerSize(body) + body, 0))
  let pos = 0
  return jobs.map(({ profile }, index) => {
    if (!isSigned(index)) return undefined
    const start = pos
    const signature = signatures[index]!
    const tbs = linted.message(index)
    const identifier = identifierOf(profile)
    pos = writeHeader(out, pos, TAG.sequence, bodies[index]!)
    out.set(tbs, pos)
    out.set(identifier, pos + tbs.length)
    pos += tbs.length + identifier.length
    pos = writeHeader(out, pos, TAG.bitString, signature.length + 1)
    out.set(signature, pos + 1)
    pos += signature.length + 1
    return out.subarray(start, pos)
  })
}

function identifierOf(profile: LoadedProfile): Uint8Array {
  return SIGNATURE_ALGORITHMS[profile.context.issuer.signatureAlgorithm].identifier
}

function issued({ order, issuer, plan }: Job, certificate: Uint8Array): IssuedX509Svid {
  return {
    spiffeId: order.spiffeId,
    chain: [certificate, ...issuer.chain],
    serialNumber: plan.serialNumber,
    notBefore: plan.validity.notBefore,
    notAfter: plan.validity.notAfter,
  }
}

/**
 * A proof that fails is the caller's fault; which fault is found out only here, off the fast path.
 */
function itemError(bench: Bench, job: Job, status: number | undefined): SignetError {
  if (status === ITEM_STATUS.proofFailed) return proofError(job.plan.subjectPublicKeyInfo)
  bench.log.error('Failed to sign X509 SVID', { spiffe_id: job.plan.spiffeId, status })
  return new SignetError('internal', 'signing_failed', 'failed to sign X509 SVID')
}

function failAll(
  bench: Bench,
  jobs: readonly Job[],
  rows: readonly LedgerRow[],
  reason: unknown,
  outcomes: Outcomes,
): void {
  const unavailable = reason instanceof SignetError && reason.kind === 'unavailable'
  const error = unavailable
    ? reason
    : new SignetError('internal', 'signing_failed', 'failed to sign X509 SVID', { cause: reason })
  bench.log.error('Failed to sign X509 SVID', { error: reason, count: jobs.length })
  bench.ledger.recordFailure(rows, error.code)
  for (const job of jobs) outcomes[job.position] = { ok: false, error }
}

/**
 * I11: no issuance without its rows. Whether they were committed is unknown: a row means may
 * exist.
 */
function ledgerError(reason: unknown): SignetError {
  if (reason instanceof SignetError && reason.kind === 'unavailable') return reason
  return new SignetError('unavailable', 'ledger_unavailable', 'failed to record issuance', {
    cause: reason,
    retryAfterSeconds: 1,
  })
}
