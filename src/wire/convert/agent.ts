/** Attested agents on the wire (api.md §6, §7.1). */
import type { AttestedAgent } from '../../spiffe/attested-agent.ts'
import type { AgentMask, Agent as AgentProto } from '../gen/spire/api/types/agent.ts'
import { selectorsToProto } from './selector.ts'
import { spiffeIdToProto } from './spiffe-id.ts'

/** No mask keeps everything; the id is always kept. */
export function agentToProto(agent: AttestedAgent, mask?: AgentMask): AgentProto {
  const keep = (bit: keyof AgentMask): boolean => mask === undefined || mask[bit]
  return {
    id: spiffeIdToProto(agent.id),
    attestationType: keep('attestationType') ? agent.attestationType : '',
    x509svidSerialNumber: keep('x509svidSerialNumber') ? agent.serialNumber : '',
    x509svidExpiresAt: keep('x509svidExpiresAt') ? BigInt(agent.expiresAt) : 0n,
    selectors: keep('selectors') ? selectorsToProto(agent.selectors) : [],
    banned: keep('banned') && agent.serialNumber === '',
    canReattest: keep('canReattest') && agent.canReattest,
    agentVersion: keep('agentVersion') ? agent.agentVersion : '',
  }
}
