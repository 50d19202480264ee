/**
 * The server's own X509-SVID, `spiffe://<td>/spire/server`: what the TCP door shows. Issued
 * through the same pipeline and ledger as everybody's, by the `control` cluster, for a key that is
 * made here and never leaves this process. Renewed at half of its life, and at once when its
 * issuer is replaced or its root is tainted.
 */
import { generateKeyPair, type KeyObject } from 'node:crypto'
import { promisify } from 'node:util'
import { bytesEqual, toDecimal } from '../base/bytes.ts'
import { SignetError } from '../base/error.ts'
import { countCall } from '../base/metrics.ts'
import type { Clock, Log, Metrics, Random } from '../base/ports.ts'
import { rfc3339 } from '../base/time-text.ts'
import { newUuid } from '../base/uuid.ts'
import { CLUSTER_CONTROL } from '../ca/authority/authority.ts'
import type { Issuance } from '../ca/issuance.ts'
import type { IssuerSource } from '../ca/issuer-source.ts'
import type { SigningKeyType } from '../ca/signer/port.ts'
import type { Bundle } from '../spiffe/bundle.ts'
import { serverId } from '../spiffe/spiffe-id.ts'
import type { TrustDomain } from '../spiffe/trust-domain.ts'
import { type Certificate, parseCertificate } from '../x509/certificate.ts'
import { createCertificateRequest } from '../x509/csr.ts'
import { verifyChain } from '../x509/path.ts'
import type { ServerCertificate } from './listener/tls-door.ts'

/** SPIRE's interval. */
const CHECK_MS = 5_000

const generate = promisify(generateKeyPair)

export interface ServerSvidParts {
  readonly trustDomain: TrustDomain
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
  readonly metrics: Metrics
  readonly issuance: Pick<Issuance, 'issueX509Svids'>
  readonly issuers: Pick<IssuerSource, 'x509Issuer'>
  /** The own bundle as known now. */
  readonly bundle: () => Bundle | undefined
  readonly keyType: SigningKeyType
}

export interface ServerSvid {
  /** Throws unavailable before the first one. */
  current(): ServerCertificate
  /** Leaf first, root last. Throws when no root of the bundle verifies it. */
  verifiedChain(): Promise<readonly Certificate[]>
  /** Renews if it is time; rejects when that failed, and the old one stays. */
  step(): Promise<boolean>
  /** Steps until the signal aborts. Never rejects. */
  run(signal: AbortSignal): Promise<void>
}

interface Held {
  readonly certificate: ServerCertificate
  readonly chain: readonly Certificate[]
  readonly issuerId: number
}

export function createServerSvid(
  parts: ServerSvidParts,
  onChange: (certificate: ServerCertificate) => void,
): ServerSvid {
  let held: Held | undefined
  let renewing: Promise<boolean> | undefined
  const renew = async (): Promise<boolean> => {
    const reason = reasonToRotate(parts, held)
    if (reason === undefined) return false
    if (reason === 'tainted') {
      parts.log.info(
        'Server SVID signed using a tainted authority, forcing rotation of the Server SVID',
      )
    }
    const done = countCall(parts.metrics, parts.clock, 'svid.rotate')
    try {
      held = await issue(parts)
    } catch (error) {
      done('Unavailable')
      throw error
    }
    done('OK')
    onChange(held.certificate)
    return true
  }
  // The timer and a change of authorities may come together: one renewal is enough.
  const step = (): Promise<boolean> => {
    renewing ??= renew().finally(() => {
      renewing = undefined
    })
    return renewing
  }
  return {
    current() {
      if (held) return held.certificate
      throw new SignetError('unavailable', 'server_initializing', 'server is initializing')
    },
    async verifiedChain() {
      const [leaf, ...intermediates] = held?.chain ?? []
      if (leaf === undefined) {
        throw new SignetError('unavailable', 'server_initializing', 'server is initializing')
      }
      const roots = rootsOf(parts.bundle())
      return verifyChain({ leaf, intermediates, roots, now: parts.clock.nowSeconds() })[0]!
    },
    step,
    async run(signal) {
      while (!signal.aborted) {
        try {
          await step()
        } catch (error) {
          parts.log.error('Could not rotate server SVID', { error })
        }
        await parts.clock.sleep(CHECK_MS, signal).catch(() => {})
      }
    },
  }
}

type Reason = 'first' | 'due' | 'issuer_replaced' | 'tainted'

function reasonToRotate(parts: ServerSvidParts, held: Held | undefined): Reason | undefined {
  const leaf = held?.chain[0]
  if (held === undefined || leaf === undefined) return 'first'
  const issuer = currentIssuer(parts)
  const isReplaced = issuer !== undefined && issuer.authority.id !== held.issuerId
  // Before the issuer was replaced too, a new one would hang on the same tainted root.
  if (isReplaced) return endsAtTaintedRoot(parts, held) ? 'tainted' : 'issuer_replaced'
  const halfLife = leaf.notBefore + (leaf.notAfter - leaf.notBefore) / 2
  return parts.clock.nowSeconds() >= halfLife ? 'due' : undefined
}

function currentIssuer({ issuers }: ServerSvidParts) {
  try {
    return issuers.x509Issuer(CLUSTER_CONTROL.id)
  } catch {
    // None can be used now: what we have is the best there is.
    return undefined
  }
}

function endsAtTaintedRoot(parts: ServerSvidParts, { chain }: Held): boolean {
  const tainted = parts.bundle()?.x509Authorities.filter((authority) => authority.tainted) ?? []
  const top = chain[chain.length - 1]
  return tainted.some(({ certificate }) => {
    const root = parseCertificate(certificate)
    return top !== undefined && bytesEqual(root.subject, top.issuer)
  })
}

async function issue(parts: ServerSvidParts): Promise<Held> {
  const keys = await generateKeys(parts.keyType)
  const issuerId = parts.issuers.x509Issuer(CLUSTER_CONTROL.id).authority.id
  const id = serverId(parts.trustDomain)
  const csr = createCertificateRequest({ ...keys, uriNames: [id.toString()] })
  const [outcome] = await parts.issuance.issueX509Svids(
    [
      {
        profile: 'server',
        clusterId: CLUSTER_CONTROL.id,
        spiffeId: id,
        entryId: '',
        ttlSeconds: 0,
        dnsNames: [],
        csr,
        proof: true,
      },
    ],
    { callerId: id.toString(), requestId: newUuid(parts.random) },
  )
  if (outcome === undefined || !outcome.ok) throw outcome?.error ?? new Error('no outcome')
  const { chain, serialNumber, notAfter } = outcome.value
  parts.log.debug('Signed X509 SVID', {
    spiffe_id: id.toString(),
    serial_num: toDecimal(serialNumber),
    expiration: rfc3339(notAfter),
  })
  return {
    certificate: {
      chain,
      privateKeyPem: keys.privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
    },
    chain: chain.map(parseCertificate),
    issuerId,
  }
}

async function generateKeys(type: SigningKeyType): Promise<{
  readonly privateKey: KeyObject
  /** DER SubjectPublicKeyInfo. */
  readonly publicKey: Uint8Array
}> {
  const { privateKey, publicKey } = type.startsWith('rsa-')
    ? await generate('rsa', { modulusLength: type === 'rsa-4096' ? 4096 : 2048 })
    : await generate('ec', { namedCurve: type === 'ec-p384' ? 'P-384' : 'P-256' })
  return { privateKey, publicKey: publicKey.export({ type: 'spki', format: 'der' }) }
}

function rootsOf(bundle: Bundle | undefined): Certificate[] {
  return bundle?.x509Authorities.map(({ certificate }) => parseCertificate(certificate)) ?? []
}
