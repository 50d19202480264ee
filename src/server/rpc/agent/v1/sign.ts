/**
 * An agent's certificate: signed by the `control` cluster's intermediate, as everything under
 * `/spire/`.
 */
import { SignetError } from '../../../../base/error.ts'
import type { LogFields } from '../../../../base/ports.ts'
import { CLUSTER_CONTROL } from '../../../../ca/authority/authority.ts'
import type { Issuance, IssuedX509Svid } from '../../../../ca/issuance.ts'
import type { SpiffeId } from '../../../../spiffe/spiffe-id.ts'
import { sha256Field } from '../../audit.ts'
import { type CallContext, issuanceCaller } from '../../context.ts'
import { failed } from '../../failure.ts'

/**
 * Differs from SPIRE: the CSR's self-signature is checked. Every agent signs its request, and a
 * certificate for a key somebody else holds would bind that somebody to this node.
 */
export async function signAgentSvid(
  issuance: Issuance,
  spiffeId: SpiffeId,
  csr: Uint8Array,
  context: CallContext,
): Promise<IssuedX509Svid> {
  const order = {
    profile: 'agent',
    clusterId: CLUSTER_CONTROL.id,
    spiffeId,
    entryId: '',
    ttlSeconds: 0,
    dnsNames: [],
    csr,
    proof: true,
  } as const
  const caller = { ...issuanceCaller(context) }
  const [outcome] = await issuance.issueX509Svids([order], caller)
  if (outcome?.ok) return outcome.value
  throw signingError(outcome?.error)
}

function signingError(error: SignetError | undefined): SignetError {
  if (error?.kind !== 'invalid_argument') return failed('failed to sign X509 SVID', error)
  const text = error.message.replace(/^malformed CSR: /, '')
  return new SignetError('invalid_argument', error.code, `failed to parse CSR: ${text}`, {
    cause: error,
  })
}

export function csrAuditFields(csr: Uint8Array): LogFields {
  return { csr: sha256Field(csr) }
}
