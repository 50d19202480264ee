/**
 * What a handler knows of the call it serves: who calls, for how long, under which request id.
 */
import { assert } from '../../base/assert.ts'
import type { Log } from '../../base/ports.ts'
import type { IssuanceCaller } from '../../ca/issuance.ts'
import type { AttestedAgent } from '../../spiffe/attested-agent.ts'
import type { RegistrationEntry } from '../../spiffe/registration-entry.ts'
import type { SpiffeId } from '../../spiffe/spiffe-id.ts'
import type { Connection } from '../connection.ts'
import type { Actor } from '../ports.ts'
import type { Audit } from './audit.ts'

export interface Caller {
  readonly kind: Actor['kind']
  /** What proved it (features.md §4.4, `authorized_via`). */
  readonly via: '' | 'transport' | 'config' | 'entries' | 'datastore'
  readonly spiffeId?: SpiffeId
  /** Set when the caller is authorised as an agent. */
  readonly agent?: AttestedAgent
  /** Set when the caller is authorised as a downstream server: at least one. */
  readonly downstreamEntries?: readonly RegistrationEntry[]
}

export interface CallContext {
  /** Full method path. */
  readonly method: string
  readonly connection: Connection
  readonly caller: Caller
  readonly requestId: string
  readonly actor: Actor
  readonly log: Log
  readonly audit: Audit
  /** Wall clock; Infinity when the call has none. */
  readonly deadlineMs: number
  /** Aborts when the client goes away; its reason is a SignetError. */
  readonly signal: AbortSignal
}

/** The routing table lets agents alone reach the handlers that ask. */
export function callingAgent(context: CallContext): AttestedAgent {
  assert(context.caller.agent !== undefined, 'the route admits agents only')
  return context.caller.agent
}

export function issuanceCaller(context: CallContext): IssuanceCaller {
  return { callerId: context.actor.id, requestId: context.requestId }
}

export function actorOf(caller: Caller, connection: Connection, requestId: string): Actor {
  return { kind: caller.kind, id: actorId(caller, connection), requestId }
}

function actorId(caller: Caller, connection: Connection): string {
  if (caller.spiffeId !== undefined) return caller.spiffeId.toString()
  if (connection.process !== undefined) return `uid:${connection.process.uid}`
  return connection.remoteIp
}
