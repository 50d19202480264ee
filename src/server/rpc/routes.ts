/**
 * The routing table: every method of every service with who may call it and what it costs (api.md
 * §4, §7). Authorization is part of the lookup; what has no row here is not served, and a test
 * walks all generated services for methods without a row.
 */
import { HealthService } from '../../wire/gen/grpc/health/v1/health.ts'
import type { SyncRequest, SyncResponse } from '../../wire/gen/signet/sync/v1/sync.ts'
import { SyncService } from '../../wire/gen/signet/sync/v1/sync.ts'
import {
  AgentService,
  type RenewAgentRequest,
} from '../../wire/gen/spire/api/server/agent/v1/agent.ts'
import {
  BundleService,
  type PublishJWTAuthorityRequest,
} from '../../wire/gen/spire/api/server/bundle/v1/bundle.ts'
import { DebugService } from '../../wire/gen/spire/api/server/debug/v1/debug.ts'
import { EntryService } from '../../wire/gen/spire/api/server/entry/v1/entry.ts'
import { LocalAuthorityService } from '../../wire/gen/spire/api/server/localauthority/v1/localauthority.ts'
import { LoggerService } from '../../wire/gen/spire/api/server/logger/v1/logger.ts'
import { SVIDService } from '../../wire/gen/spire/api/server/svid/v1/svid.ts'
import { TrustDomainService } from '../../wire/gen/spire/api/server/trustdomain/v1/trustdomain.ts'
import type { BatchNewX509SvidRequest } from '../../wire/hot/batch-new-x509-svid.ts'
import type { NewJwtSvidRequest } from '../../wire/hot/new-jwt-svid.ts'
import type { AllowedCaller } from '../authz/authorize.ts'
import { createAttestHandler } from './agent/v1/attest.ts'
import { createAgentHandlers, renewalAuditFields } from './agent/v1/handlers.ts'
import { createJoinToken } from './agent/v1/join-token.ts'
import { createFederatedBundleHandlers } from './bundle/v1/federated.ts'
import { createBundleHandlers, publishAuditFields } from './bundle/v1/handlers.ts'
import type { CallContext } from './context.ts'
import { createDebugHandlers } from './debug/v1/handlers.ts'
import { createEntryHandlers } from './entry/v1/handlers.ts'
import { syncAuthorizedEntries } from './entry/v1/sync.ts'
import { createHealthHandlers } from './health/v1/handlers.ts'
import { createLoggerHandlers } from './logger/v1/handlers.ts'
import type { HandlerPorts } from './ports.ts'
import {
  type RateLimitRow,
  type Route,
  type Stream,
  stream,
  unary,
  unimplemented,
} from './route.ts'
import { batchNewX509SvidMethod, newJwtSvidMethod } from './svid/v1/codec.ts'
import { batchNewX509Svid, jwtAuditFields, newJwtSvid } from './svid/v1/issue.ts'
import { mintJwtSvid, mintX509Svid } from './svid/v1/mint.ts'

/** The push stream; `server/sync` implements it. */
export type SyncHandler = (
  stream: Stream<SyncRequest, SyncResponse>,
  context: CallContext,
) => Promise<void>

const ANY: readonly AllowedCaller[] = ['any']
const LOCAL: readonly AllowedCaller[] = ['local']
const LOCAL_ADMIN: readonly AllowedCaller[] = ['local', 'admin']
const LOCAL_ADMIN_AGENT: readonly AllowedCaller[] = ['local', 'admin', 'agent']
const AGENT: readonly AllowedCaller[] = ['agent']
const DOWNSTREAM: readonly AllowedCaller[] = ['downstream']

const ATTEST: RateLimitRow<void> = {
  name: 'attest',
  reason: 'attest agent rate limiting',
  cost: () => 1,
}
const CSR_BATCH: RateLimitRow<BatchNewX509SvidRequest> = {
  name: 'csr',
  reason: 'certificate signing rate limiting',
  cost: (request) => request.params.length,
}
const CSR_RENEW: RateLimitRow<RenewAgentRequest> = {
  name: 'csr',
  reason: 'renew agent rate limiting',
  cost: () => 1,
  auditFields: renewalAuditFields,
}
const JWT: RateLimitRow<NewJwtSvidRequest> = {
  name: 'jwt',
  reason: 'JWT signing request rate limiting',
  cost: () => 1,
  auditFields: jwtAuditFields,
}
const KEY: RateLimitRow<PublishJWTAuthorityRequest> = {
  name: 'key',
  reason: 'key publishing rate limiting',
  cost: () => 1,
  auditFields: publishAuditFields,
}
const POST = {
  name: 'post',
  reason: 'post status rate limiting',
  cost: () => 1,
} as const satisfies RateLimitRow<unknown>

/** SPIRE's own words. */
const WIT_LATER = 'WIT-SVID functionality is not yet implemented'
const WIT_DISABLED = 'WIT functionality is disabled'
const FEDERATION_LATER = 'federation relationships are not supported yet'
const ROTATION_LATER = 'rotation of authorities by hand is not supported yet'
const NESTING_LATER = 'downstream servers are not supported yet'
const HEALTH_CHECK_ONLY = 'only Check is supported'

/** On TCP: the six services of the server API, and the push stream. */
export function createTcpRoutes(ports: HandlerPorts, sync: SyncHandler): Route[] {
  return [
    ...agentRoutes(ports),
    ...bundleRoutes(ports),
    ...entryRoutes(ports),
    ...svidRoutes(ports),
    ...trustDomainRoutes(),
    ...localAuthorityRoutes(),
    stream(SyncService.subscribe, AGENT, sync),
  ]
}

/** On the admin socket: the same services, and those that never leave the machine. */
export function createUdsRoutes(ports: HandlerPorts): Route[] {
  return [
    ...agentRoutes(ports),
    ...bundleRoutes(ports),
    ...entryRoutes(ports),
    ...svidRoutes(ports),
    ...trustDomainRoutes(),
    ...localAuthorityRoutes(),
    ...privateRoutes(ports),
  ]
}

function agentRoutes(ports: HandlerPorts): Route[] {
  const handlers = createAgentHandlers(ports)
  const service = AgentService
  return [
    unary(service.countAgents, LOCAL_ADMIN, handlers.countAgents),
    unary(service.listAgents, LOCAL_ADMIN, handlers.listAgents),
    unary(service.getAgent, LOCAL_ADMIN, handlers.getAgent),
    unary(service.deleteAgent, LOCAL_ADMIN, handlers.deleteAgent),
    unary(service.banAgent, LOCAL_ADMIN, handlers.banAgent),
    stream(service.attestAgent, ANY, createAttestHandler(ports), ATTEST),
    unary(service.renewAgent, AGENT, handlers.renewAgent, CSR_RENEW),
    unary(service.createJoinToken, LOCAL_ADMIN, (r, context) => createJoinToken(ports, r, context)),
    unary(service.postStatus, AGENT, handlers.postStatus, POST),
  ]
}

function bundleRoutes(ports: HandlerPorts): Route[] {
  const handlers = createBundleHandlers(ports)
  const federated = createFederatedBundleHandlers(ports)
  const service = BundleService
  return [
    unary(service.countBundles, LOCAL_ADMIN, handlers.countBundles),
    unary(service.getBundle, ANY, handlers.getBundle),
    unary(service.appendBundle, LOCAL_ADMIN, handlers.appendBundle),
    unary(service.publishJwtAuthority, DOWNSTREAM, handlers.publishJwtAuthority, KEY),
    unimplemented(service.publishWitAuthority, DOWNSTREAM, WIT_LATER),
    unary(service.listFederatedBundles, LOCAL_ADMIN, handlers.listFederatedBundles),
    unary(service.getFederatedBundle, LOCAL_ADMIN_AGENT, handlers.getFederatedBundle),
    unary(service.batchCreateFederatedBundle, LOCAL_ADMIN, federated.batchCreateFederatedBundle),
    unary(service.batchUpdateFederatedBundle, LOCAL_ADMIN, federated.batchUpdateFederatedBundle),
    unary(service.batchSetFederatedBundle, LOCAL_ADMIN, federated.batchSetFederatedBundle),
    unary(service.batchDeleteFederatedBundle, LOCAL_ADMIN, federated.batchDeleteFederatedBundle),
  ]
}

function entryRoutes(ports: HandlerPorts): Route[] {
  const handlers = createEntryHandlers(ports)
  const service = EntryService
  return [
    unary(service.countEntries, LOCAL_ADMIN, handlers.countEntries),
    unary(service.listEntries, LOCAL_ADMIN, handlers.listEntries),
    unary(service.getEntry, LOCAL_ADMIN, handlers.getEntry),
    unary(service.batchCreateEntry, LOCAL_ADMIN, handlers.batchCreateEntry),
    unary(service.batchUpdateEntry, LOCAL_ADMIN, handlers.batchUpdateEntry),
    unary(service.batchDeleteEntry, LOCAL_ADMIN, handlers.batchDeleteEntry),
    unary(service.getAuthorizedEntries, AGENT, handlers.getAuthorizedEntries),
    stream(service.syncAuthorizedEntries, AGENT, (s, context) =>
      syncAuthorizedEntries(ports, s, context),
    ),
  ]
}

function svidRoutes(ports: HandlerPorts): Route[] {
  const service = SVIDService
  return [
    unary(service.mintX509Svid, LOCAL_ADMIN, (r, context) => mintX509Svid(ports, r, context)),
    unary(service.mintJwtsvid, LOCAL_ADMIN, (r, context) => mintJwtSvid(ports, r, context)),
    unimplemented(service.mintWitsvid, LOCAL_ADMIN, WIT_DISABLED),
    unary(
      batchNewX509SvidMethod,
      AGENT,
      (r, context) => batchNewX509Svid(ports, r, context),
      CSR_BATCH,
    ),
    unary(newJwtSvidMethod, AGENT, (r, context) => newJwtSvid(ports, r, context), JWT),
    unimplemented(service.batchNewWitsvid, AGENT, WIT_DISABLED),
    unimplemented(service.newDownstreamX509Ca, DOWNSTREAM, NESTING_LATER),
  ]
}

function trustDomainRoutes(): Route[] {
  const service = TrustDomainService
  return [
    unimplemented(service.listFederationRelationships, LOCAL_ADMIN, FEDERATION_LATER),
    unimplemented(service.getFederationRelationship, LOCAL_ADMIN, FEDERATION_LATER),
    unimplemented(service.batchCreateFederationRelationship, LOCAL_ADMIN, FEDERATION_LATER),
    unimplemented(service.batchUpdateFederationRelationship, LOCAL_ADMIN, FEDERATION_LATER),
    unimplemented(service.batchDeleteFederationRelationship, LOCAL_ADMIN, FEDERATION_LATER),
    unimplemented(service.refreshBundle, LOCAL_ADMIN, FEDERATION_LATER),
  ]
}

function localAuthorityRoutes(): Route[] {
  const service = LocalAuthorityService
  return [
    unimplemented(service.getJwtAuthorityState, LOCAL_ADMIN, ROTATION_LATER),
    unimplemented(service.prepareJwtAuthority, LOCAL_ADMIN, ROTATION_LATER),
    unimplemented(service.activateJwtAuthority, LOCAL_ADMIN, ROTATION_LATER),
    unimplemented(service.taintJwtAuthority, LOCAL_ADMIN, ROTATION_LATER),
    unimplemented(service.revokeJwtAuthority, LOCAL_ADMIN, ROTATION_LATER),
    unimplemented(service.getX509AuthorityState, LOCAL_ADMIN, ROTATION_LATER),
    unimplemented(service.prepareX509Authority, LOCAL_ADMIN, ROTATION_LATER),
    unimplemented(service.activateX509Authority, LOCAL_ADMIN, ROTATION_LATER),
    unimplemented(service.taintX509Authority, LOCAL_ADMIN, ROTATION_LATER),
    unimplemented(service.taintX509UpstreamAuthority, LOCAL_ADMIN, ROTATION_LATER),
    unimplemented(service.revokeX509Authority, LOCAL_ADMIN, ROTATION_LATER),
    unimplemented(service.revokeX509UpstreamAuthority, LOCAL_ADMIN, ROTATION_LATER),
    unimplemented(service.getWitAuthorityState, LOCAL_ADMIN, WIT_LATER),
    unimplemented(service.prepareWitAuthority, LOCAL_ADMIN, WIT_LATER),
    unimplemented(service.activateWitAuthority, LOCAL_ADMIN, WIT_LATER),
    unimplemented(service.taintWitAuthority, LOCAL_ADMIN, WIT_LATER),
    unimplemented(service.revokeWitAuthority, LOCAL_ADMIN, WIT_LATER),
  ]
}

function privateRoutes(ports: HandlerPorts): Route[] {
  const debug = createDebugHandlers(ports)
  const health = createHealthHandlers(ports)
  const logger = createLoggerHandlers(ports)
  return [
    unary(DebugService.getInfo, LOCAL, debug.getInfo),
    unary(LoggerService.getLogger, LOCAL, logger.getLogger),
    unary(LoggerService.setLogLevel, LOCAL, logger.setLogLevel),
    unary(LoggerService.resetLogLevel, LOCAL, logger.resetLogLevel),
    unary(HealthService.check, LOCAL, health.check),
    unimplemented(HealthService.list, LOCAL, HEALTH_CHECK_ONLY),
    unimplemented(HealthService.watch, LOCAL, HEALTH_CHECK_ONLY),
  ]
}
