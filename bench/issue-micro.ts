/**
 * The issuance pipeline alone: orders in, certificates out, with a ledger and (by default) a signer
 * that do nothing, so that what is left is parse, plan, encode, lint and release.
 *
 *   node bench/issue-micro.ts [--sign] [--batch 500] [--rounds 200]
 *
 * Prints CPU µs per SVID. `--sign` runs the node engine instead (signature, proof of possession).
 */
import { generateKeyPairSync, sign } from 'node:crypto'
import { parseArgs } from 'node:util'
import type { Log } from '../src/base/ports.ts'
import { createSystemRandom } from '../src/base/random.ts'
import type { X509SvidOrder } from '../src/ca/issuance.ts'
import { createX509Issuance } from '../src/ca/issue.ts'
import type { X509Issuer } from '../src/ca/issuer-source.ts'
import { DEFAULT_CA_SUBJECT, planRoot } from '../src/ca/profile/ca-plan.ts'
import { createNodeEngine } from '../src/ca/signer/node-engine.ts'
import { ITEM_WORDS, type Signer } from '../src/ca/signer/port.ts'
import { SpiffeId } from '../src/spiffe/spiffe-id.ts'
import { TrustDomain } from '../src/spiffe/trust-domain.ts'
import { createCertificateRequest } from '../src/x509/csr.ts'
import { encodeCertificate, encodeTbsCertificate } from '../src/x509/template.ts'

const { values } = parseArgs({
  options: {
    sign: { type: 'boolean', default: false },
    batch: { type: 'string', default: '500' },
    rounds: { type: 'string', default: '200' },
  },
})
const batchSize = Number(values.batch)
const rounds = Number(values.rounds)
const trustDomain = TrustDomain.parse('example.org')
const now = Math.floor(Date.now() / 1000)
const random = createSystemRandom()
const engine = createNodeEngine()

const log: Log = { debug() {}, info() {}, warn() {}, error: console.error, with: () => log }
const signature = new Uint8Array(71)
const idleSigner: Pick<Signer, 'sign'> = {
  sign: async ({ items }) => {
    const count = items.length / ITEM_WORDS
    return { status: new Uint8Array(count), signatures: new Array(count).fill(signature) }
  },
}
const issuance = createX509Issuance({
  clock: {
    nowSeconds: () => now,
    nowMs: () => now * 1000,
    monotonicMs: () => performance.now(),
    sleep: () => Promise.reject(new Error('unused')),
    every: () => ({ [Symbol.dispose]() {} }),
  },
  random,
  issuers: { x509Issuer: () => issuer },
  signer: values.sign ? engine : idleSigner,
  ledger: { record: async () => {}, recordFailure() {} },
  trustDomain,
  ttls: { x509SvidTtlSeconds: 3600, agentTtlSeconds: 3600, caTtlSeconds: 86_400 },
  log,
  metrics: { counter() {}, gauge() {}, sample() {} },
})
const issuer = makeIssuer()

const { orders, message } = makeOrders()
for (let i = 0; i < 20; i++) await issuance.issueX509Svids(orders, CALLER(), message)
const cpu = process.cpuUsage()
const started = performance.now()
for (let i = 0; i < rounds; i++) {
  const outcomes = await issuance.issueX509Svids(orders, CALLER(), message)
  if (!outcomes.every((outcome) => outcome.ok)) throw new Error('an order failed')
}
const wallUs = ((performance.now() - started) * 1000) / (rounds * batchSize)
const used = process.cpuUsage(cpu)
const cpuUs = (used.user + used.system) / (rounds * batchSize)
console.log(
  `batch ${batchSize}, ${values.sign ? 'node engine' : 'idle signer'}: ` +
    `${cpuUs.toFixed(2)} µs CPU, ${wallUs.toFixed(2)} µs wall per SVID`,
)

function CALLER() {
  return { callerId: 'spiffe://example.org/spire/agent/bench', requestId: 'bench' }
}

function makeIssuer(): X509Issuer {
  const pair = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const publicKey = new Uint8Array(pair.publicKey.export({ format: 'der', type: 'spki' }))
  const keyHandle = engine.importKey(pair.privateKey.export({ format: 'der', type: 'pkcs8' }))
  const validity = { notBefore: now - 10, notAfter: now + 86_400 }
  const request = { trustDomain, subject: DEFAULT_CA_SUBJECT, publicKey, validity }
  const tbs = encodeTbsCertificate(planRoot(random, request, 'ecdsa-sha256'))
  const certificate = encodeCertificate(tbs, 'ecdsa-sha256', sign('sha256', tbs, pair.privateKey))
  return {
    authority: {
      id: 1,
      clusterId: 2,
      kind: 'x509_intermediate',
      holder: '',
      state: 'active',
      authorityId: '',
      keyType: 'ec-p256',
      publicKey,
      certificate,
      issuerId: undefined,
      ...validity,
      generation: 'bench',
      sealed: undefined,
    },
    keyHandle,
    chain: [certificate],
  }
}

/** CSRs side by side in one buffer, as they lie in a received message. */
function makeOrders(): { orders: X509SvidOrder[]; message: Uint8Array } {
  const csrs: Uint8Array[] = []
  for (let i = 0; i < batchSize; i++) {
    const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
    const spki = new Uint8Array(publicKey.export({ format: 'der', type: 'spki' }))
    csrs.push(createCertificateRequest({ privateKey, publicKey: spki }))
  }
  const message = new Uint8Array(Buffer.concat(csrs))
  let start = 0
  const orders = csrs.map((csr, i): X509SvidOrder => {
    const view = message.subarray(start, start + csr.length)
    start += csr.length
    return {
      profile: 'workload',
      clusterId: 2,
      spiffeId: SpiffeId.parse(`spiffe://example.org/ns/default/sa/workload-${i}`),
      entryId: '11111111-2222-3333-4444-555555555555',
      ttlSeconds: 0,
      dnsNames: [],
      csr: view,
      proof: true,
    }
  })
  return { orders, message }
}
