/**
 * What a node or workload attestor is. The two halves of a node attestor share a type name and a
 * payload, never code: the server half judges what the agent half says (features.md §2.2).
 */
import type { ProcessHandle } from '../base/os/process-handle.ts'
import type { Selector } from '../spiffe/selector.ts'
import type { SpiffeId } from '../spiffe/spiffe-id.ts'

export interface NodeAttestation {
  readonly agentId: SpiffeId
  /** Types equal the attestor's; the server de-duplicates and stores them. */
  readonly selectors: readonly Selector[]
  readonly canReattest: boolean
  /** The cluster the evidence names; undefined leaves it to the server's configuration. */
  readonly clusterId?: number
}

export interface NodeAttestationContext {
  /** Bounded by ATTESTATION_BYTES_MAX at the door. */
  readonly payload: Uint8Array
  /** Sends a challenge and waits for its response; rejects when the stream ends. */
  readonly challenge: (data: Uint8Array) => Promise<Uint8Array>
  /** Numeric address of the peer, empty when unknown. */
  readonly remoteIp: string
}

export interface NodeAttestorServer {
  /** Also the selectors' type and the first segment of the default agent ID path. */
  readonly type: string
  /** Rejects with a SignetError whose kind and text reach the agent. */
  attest(context: NodeAttestationContext): Promise<NodeAttestation>
}

/** One attestation from the agent's side: the first message, then an answer per challenge. */
export interface NodeAttestationSession {
  readonly payload: Uint8Array
  respond(challenge: Uint8Array): Promise<Uint8Array>
}

export interface NodeAttestorAgent {
  readonly type: string
  /** A fresh session each time: files are read again, so replaced certificates count. */
  attest(): Promise<NodeAttestationSession>
}

/** `unix` says what it reads of the process by a narrower type, `UnixProcess`; all take the handle. */
export interface WorkloadAttestor {
  /** Also the selectors' type: `unix`, `k8s`, `docker` … */
  readonly name: string
  /** The process is held for the whole call, so its pid cannot be recycled. */
  attest(process: ProcessHandle): Promise<readonly Selector[]>
}

/** A certificate that a node presents, with the key it proves to hold. */
export interface PresentedIdentity {
  /** DER, leaf first. */
  readonly certificates: readonly Uint8Array[]
  /** PKCS #8, DER. */
  readonly privateKey: Uint8Array
}
