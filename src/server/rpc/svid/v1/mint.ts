/**
 * Minting for administrators (api.md §7.4): SVIDs without an entry. Here alone names come from
 * the CSR, so each is checked as an entry's would be.
 */
import { SignetError } from '../../../../base/error.ts'
import { rfc3339 } from '../../../../base/time-text.ts'
import type { IssuedX509Svid } from '../../../../ca/issuance.ts'
import { SpiffeId } from '../../../../spiffe/spiffe-id.ts'
import type { TrustDomain } from '../../../../spiffe/trust-domain.ts'
import { checkDnsName, checkWildcardOverlap } from '../../../../wire/convert/dns-name.ts'
import { prefixed } from '../../../../wire/convert/prefixed.ts'
import {
  checkWorkloadId,
  spiffeIdToProto,
  workloadIdFromProto,
} from '../../../../wire/convert/spiffe-id.ts'
import type {
  MintJWTSVIDRequest,
  MintJWTSVIDResponse,
  MintX509SVIDRequest,
  MintX509SVIDResponse,
} from '../../../../wire/gen/spire/api/server/svid/v1/svid.ts'
import { parseCertificateRequest, requestedNames, requestedSubject } from '../../../../x509/csr.ts'
import { formatName, isEmptyName } from '../../../../x509/name.ts'
import { csrAuditFields } from '../../agent/v1/sign.ts'
import { type CallContext, issuanceCaller } from '../../context.ts'
import { attempt, failed, invalidArgument } from '../../failure.ts'
import type { HandlerPorts } from '../../ports.ts'
import { jwtDisabled } from './issue.ts'

type MintPorts = Pick<
  HandlerPorts,
  'trustDomain' | 'issuance' | 'defaultClusterId' | 'jwtSvidsDisabled'
>

interface MintRequest {
  readonly spiffeId: SpiffeId
  readonly dnsNames: readonly string[]
  /** DER Name; empty when the CSR names nobody. */
  readonly subject: Uint8Array
}

export async function mintX509Svid(
  ports: MintPorts,
  request: MintX509SVIDRequest,
  context: CallContext,
): Promise<MintX509SVIDResponse> {
  const { csr, ttl } = request
  context.audit.add(() => ({ ...csrAuditFields(csr), ttl }))
  if (csr.length === 0) throw invalidArgument('missing CSR')
  const asked = parseMintRequest(csr, ports.trustDomain)
  const svid = await sign(ports, csr, ttl, asked, context)
  context.audit.success(() => ({
    spiffe_id: asked.spiffeId.toString(),
    dns_name: asked.dnsNames.join(','),
    subject: formatName(asked.subject),
    expires_at: rfc3339(svid.notAfter),
  }))
  return {
    svid: {
      id: spiffeIdToProto(asked.spiffeId),
      certChain: [...svid.chain],
      expiresAt: BigInt(svid.notAfter),
      hint: '',
    },
  }
}

function parseMintRequest(csr: Uint8Array, trustDomain: TrustDomain): MintRequest {
  const parsed = prefixed('malformed CSR', () => {
    const request = parseCertificateRequest(csr)
    return { ...requestedNames(request), subject: requestedSubject(request) }
  })
  const [uri] = parsed.uriNames
  if (uri === undefined) throw invalidArgument('CSR URI SAN is required')
  if (parsed.uriNames.length > 1) throw invalidArgument('only one URI SAN is expected')
  const spiffeId = prefixed('CSR URI SAN is invalid', () =>
    checkWorkloadId(SpiffeId.parse(uri), trustDomain),
  )
  const dnsNames = prefixed('CSR DNS name is invalid', () => parsed.dnsNames.map(checkDnsName))
  prefixed('CSR DNS name contains a wildcard that covers another non-wildcard name', () =>
    checkWildcardOverlap(dnsNames),
  )
  return { spiffeId, dnsNames, subject: parsed.subject }
}

async function sign(
  ports: MintPorts,
  csr: Uint8Array,
  ttlSeconds: number,
  asked: MintRequest,
  context: CallContext,
): Promise<IssuedX509Svid> {
  const order = {
    profile: 'workload',
    clusterId: ports.defaultClusterId,
    spiffeId: asked.spiffeId,
    entryId: '',
    ttlSeconds,
    dnsNames: asked.dnsNames,
    csr,
    proof: true,
    ...(!isEmptyName(asked.subject) && { subject: asked.subject }),
  } as const
  const [outcome] = await ports.issuance.issueX509Svids([order], issuanceCaller(context), csr)
  if (outcome?.ok) return outcome.value
  throw signingError(outcome?.error)
}

function signingError(error: SignetError | undefined): SignetError {
  if (error?.code === 'bad_csr_signature') {
    const text = 'failed to verify CSR signature'
    return new SignetError('invalid_argument', error.code, text, { cause: error })
  }
  if (error?.kind === 'invalid_argument') return error
  return failed('failed to sign X509-SVID', error)
}

export async function mintJwtSvid(
  ports: MintPorts,
  request: MintJWTSVIDRequest,
  context: CallContext,
): Promise<MintJWTSVIDResponse> {
  if (ports.jwtSvidsDisabled) throw jwtDisabled()
  const { audience, ttl } = request
  context.audit.add(() => ({ ttl, ...(audience.length > 0 && { audience: audience.join(',') }) }))
  const spiffeId = prefixed('invalid SPIFFE ID', () =>
    workloadIdFromProto(request.id, ports.trustDomain),
  )
  context.audit.add(() => ({ spiffe_id: spiffeId.toString() }))
  if (audience.length === 0) throw invalidArgument('at least one audience is required')
  const order = {
    clusterId: ports.defaultClusterId,
    spiffeId,
    entryId: '',
    audience,
    ttlSeconds: ttl,
    includeJti: false,
  }
  const signing = ports.issuance.issueJwtSvid(order, issuanceCaller(context))
  const svid = await attempt('failed to sign JWT-SVID', signing)
  context.audit.success()
  return {
    svid: {
      token: svid.token,
      id: spiffeIdToProto(spiffeId),
      expiresAt: BigInt(svid.expiresAt),
      issuedAt: BigInt(svid.issuedAt),
      hint: '',
    },
  }
}
