/**
 * One node attestation (api.md §7.1, §11.2): AttestAgent without a client certificate, challenges
 * answered by the node attestor, then GetBundle on the same connection, so that the SVID and the
 * bundle come from one verified server.
 */
import type { Client } from '@grpc/grpc-js'
import type { NodeAttestationSession } from '../../attestors/contract.ts'
import { SignetError } from '../../base/error.ts'
import { ATTESTATION_CHALLENGES_MAX } from '../../base/limits.ts'
import type { Clock } from '../../base/ports.ts'
import type { Bundle } from '../../spiffe/bundle.ts'
import type { TrustDomain } from '../../spiffe/trust-domain.ts'
import { isConnectionText } from '../../wire/connection-text.ts'
import {
  AgentService,
  type AttestAgentResponse_Result,
} from '../../wire/gen/spire/api/server/agent/v1/agent.ts'
import { BundleService } from '../../wire/gen/spire/api/server/bundle/v1/bundle.ts'
import { openBidi } from '../../wire/transport/bidi.ts'
import { callOptions, callUnary } from '../../wire/transport/call.ts'
import {
  isUnknownAuthority,
  openServerChannel,
  probeServerLeaf,
} from '../../wire/transport/channel.ts'
import { bundleFromProto } from './convert.ts'
import { chainOf, prefixedError } from './server-client.ts'

/** A challenge may make the attestor talk to hardware or another service. */
const ATTESTATION_TIMEOUT_MS = 60_000

const UNTRUSTED =
  ' (the trust bundle of this agent is not that of the server: see its "bundle show")'
const NOT_CONNECTED =
  ' (is the server running, and are server_address, server_port and trust_domain its own?)'

export interface AttestOptions {
  readonly host: string
  readonly port: number
  readonly trustDomain: TrustDomain
  /** undefined: insecure bootstrap. */
  readonly roots: readonly Uint8Array[] | undefined
  readonly attestorType: string
  readonly session: NodeAttestationSession
  readonly csr: Uint8Array
  readonly clock: Clock
}

export interface AttestResult {
  readonly chain: readonly Uint8Array[]
  readonly reattestable: boolean
  readonly bundle: Bundle
}

export async function attestAgent(options: AttestOptions): Promise<AttestResult> {
  // In an insecure bootstrap the server that answers first is the only one talked to.
  const roots = options.roots ?? [await explained(probeServerLeaf(options))]
  const client = openServerChannel({ ...options, roots, certificate: undefined })
  try {
    const result = await exchange(client, options)
    const request = { outputMask: undefined }
    const bundle = await callUnary(client, BundleService.getBundle, request, options).catch(
      (error: unknown) => {
        throw prefixedError('failed to get updated bundle', error)
      },
    )
    return {
      chain: chainOf(result.svid),
      reattestable: result.reattestable,
      bundle: bundleFromProto(bundle),
    }
  } finally {
    client.close()
  }
}

async function exchange(
  client: Client,
  { attestorType, session, csr, clock }: AttestOptions,
): Promise<AttestAgentResponse_Result> {
  const deadline = callOptions({ clock, timeoutMs: ATTESTATION_TIMEOUT_MS })
  const stream = openBidi(client, AgentService.attestAgent, deadline)
  try {
    const data = { type: attestorType, payload: session.payload }
    stream.send({ params: { data, params: { csr } } })
    for (let challenges = 0; challenges <= ATTESTATION_CHALLENGES_MAX; challenges++) {
      const response = await explained(stream.receive())
      if (response === undefined) throw broken('attestation stream ended without a result')
      // Presence decides: a challenge may be empty.
      if (response.challenge === undefined) {
        stream.end()
        if (response.result === undefined) throw broken('attest response is missing SVID')
        return response.result
      }
      stream.send({ challengeResponse: await session.respond(response.challenge) })
    }
    throw broken('too many attestation challenges')
  } finally {
    stream.cancel()
  }
}

/** A failure with SPIRE's lead-in, and what to look at where the text alone does not say it. */
async function explained<T>(answer: Promise<T>): Promise<T> {
  try {
    return await answer
  } catch (error) {
    if (!(error instanceof SignetError)) throw error
    if (!isConnectionText(error.message)) {
      throw prefixedError('failed to receive attestation response', error)
    }
    throw prefixedError(
      'could not open attestation stream to SPIRE server',
      error,
      isUnknownAuthority(error) ? UNTRUSTED : NOT_CONNECTED,
    )
  }
}

function broken(text: string): SignetError {
  return new SignetError('internal', 'attestation_protocol_broken', text)
}
