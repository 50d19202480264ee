/** spire.agent.debug.v1.Debug on the admin socket (api.md §12.3). */
import type { ServerUnaryCall, sendUnaryData } from '@grpc/grpc-js'
import { SignetError, toSignetError } from '../../base/error.ts'
import type { Clock, Metrics } from '../../base/ports.ts'
import { SpiffeId } from '../../spiffe/spiffe-id.ts'
import { spiffeIdToProto } from '../../wire/convert/spiffe-id.ts'
import {
  DebugService,
  type GetInfoRequest,
  type GetInfoResponse,
  type GetInfoResponse_Cert,
} from '../../wire/gen/spire/api/agent/debug/v1/debug.ts'
import { toGrpcStatus } from '../../wire/status.ts'
import { type Certificate, parseCertificate } from '../../x509/certificate.ts'
import { formatName } from '../../x509/name.ts'
import { verifyChain } from '../../x509/path.ts'
import { createApiMeter } from './call-meter.ts'

/** As SPIRE: the chain is verified at most this often. */
const ANSWER_KEPT_MS = 5_000

export interface DebugFacts {
  readonly chain: readonly Uint8Array[]
  readonly roots: readonly Uint8Array[]
  readonly uptimeSeconds: number
  readonly x509SvidCount: number
  readonly jwtSvidCount: number
  readonly lastSyncSuccess: number
}

export function debugImplementation(
  ports: { readonly clock: Clock; readonly metrics: Metrics },
  facts: () => DebugFacts,
) {
  const { clock } = ports
  const meter = createApiMeter(ports, 'debug_api', 'debug')
  let kept: { readonly answer: GetInfoResponse; readonly madeMs: number } | undefined
  const answer = async () => {
    const nowMs = clock.monotonicMs()
    if (kept === undefined || nowMs - kept.madeMs >= ANSWER_KEPT_MS) {
      kept = { answer: describe(facts(), clock), madeMs: nowMs }
    }
    return kept.answer
  }
  return {
    async getInfo(
      _call: ServerUnaryCall<GetInfoRequest, GetInfoResponse>,
      callback: sendUnaryData<GetInfoResponse>,
    ) {
      try {
        callback(null, await meter(DebugService.getInfo.path, answer))
      } catch (error) {
        callback(toGrpcStatus(toSignetError(error)))
      }
    },
  }
}

function describe(facts: DebugFacts, clock: Clock): GetInfoResponse {
  return {
    svidChain: verifiedChain(facts, clock).map(toCert),
    uptime: Math.floor(facts.uptimeSeconds),
    svidsCount: facts.x509SvidCount,
    lastSyncSuccess: BigInt(facts.lastSyncSuccess),
    cachedX509SvidsCount: facts.x509SvidCount,
    cachedJwtSvidsCount: facts.jwtSvidCount,
    cachedSvidstoreX509SvidsCount: 0,
  }
}

function verifiedChain(facts: DebugFacts, clock: Clock): readonly Certificate[] {
  const [leaf, ...intermediates] = facts.chain.map(parseCertificate)
  const roots = facts.roots.map(parseCertificate)
  try {
    return verifyChain({ leaf: leaf!, intermediates, roots, now: clock.nowSeconds() })[0]!
  } catch (error) {
    const text = `failed to verify agent SVID: ${toSignetError(error).message}`
    throw new SignetError('internal', 'agent_svid_unverified', text, { cause: error })
  }
}

function toCert(certificate: Certificate): GetInfoResponse_Cert {
  return {
    id: idOf(certificate),
    expiresAt: BigInt(certificate.notAfter),
    subject: formatName(certificate.subject),
  }
}

function idOf({ uriNames }: Certificate): GetInfoResponse_Cert['id'] {
  try {
    return uriNames.length === 1 ? spiffeIdToProto(SpiffeId.parse(uriNames[0]!)) : undefined
  } catch {
    return undefined
  }
}
