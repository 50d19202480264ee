/**
 * The Debug service (api.md §7.7): counts and the server's own chain, remembered for five
 * seconds.
 */
import { SpiffeId } from '../../../../spiffe/spiffe-id.ts'
import { spiffeIdToProto } from '../../../../wire/convert/spiffe-id.ts'
import type {
  GetInfoResponse,
  GetInfoResponse_Cert,
} from '../../../../wire/gen/spire/api/server/debug/v1/debug.ts'
import type { Certificate } from '../../../../x509/certificate.ts'
import { formatName } from '../../../../x509/name.ts'
import { attempt } from '../../failure.ts'
import type { HandlerPorts } from '../../ports.ts'

const CACHE_MS = 5_000

type DebugPorts = Pick<
  HandlerPorts,
  'clock' | 'agentStore' | 'entryStore' | 'bundleStore' | 'identity'
>

export function createDebugHandlers(ports: DebugPorts) {
  const startedMs = ports.clock.monotonicMs()
  let cached: { readonly atMs: number; readonly response: Promise<GetInfoResponse> } | undefined
  return {
    /** Callers at the same time share one reading; a failed one is not kept. */
    getInfo: async (): Promise<GetInfoResponse> => {
      const nowMs = ports.clock.monotonicMs()
      if (cached === undefined || nowMs - cached.atMs >= CACHE_MS) {
        const uptime = Math.floor((nowMs - startedMs) / 1000)
        const fresh = { atMs: nowMs, response: readInfo(ports, uptime) }
        cached = fresh
        fresh.response.catch(() => {
          if (cached === fresh) cached = undefined
        })
      }
      return cached.response
    },
  }
}

async function readInfo(ports: DebugPorts, uptime: number): Promise<GetInfoResponse> {
  const [agentsCount, entriesCount, federatedBundlesCount, chain] = await Promise.all([
    attempt('failed to count agents', ports.agentStore.countAgents({})),
    attempt('failed to count entries', ports.entryStore.countEntries({})),
    // All bundles, the own one included: SPIRE counts so.
    attempt('failed to count bundles', ports.bundleStore.countBundles()),
    attempt('failed verification against bundle', ports.identity.verifiedChain()),
  ])
  const svidChain = chain.map(certificateInfo)
  return { svidChain, uptime, agentsCount, entriesCount, federatedBundlesCount }
}

function certificateInfo(certificate: Certificate): GetInfoResponse_Cert {
  return {
    id: idOf(certificate),
    expiresAt: BigInt(certificate.notAfter),
    subject: formatName(certificate.subject),
  }
}

/** Roots of other CAs need not carry a SPIFFE ID. */
function idOf(certificate: Certificate): GetInfoResponse_Cert['id'] {
  const [uri] = certificate.uriNames
  if (uri === undefined) return undefined
  try {
    return spiffeIdToProto(SpiffeId.parse(uri))
  } catch {
    return undefined
  }
}
