/**
 * The Bundle service (api.md §7.2), the own trust domain's part and the reading of foreign ones.
 */
import type { LogFields } from '../../../../base/ports.ts'
import type { TrustDomain } from '../../../../spiffe/trust-domain.ts'
import {
  bundleToProto,
  jwtAuthoritiesFromProto,
  jwtAuthoritiesToProto,
  x509AuthoritiesFromProto,
} from '../../../../wire/convert/bundle.ts'
import { prefixed } from '../../../../wire/convert/prefixed.ts'
import type {
  AppendBundleRequest,
  CountBundlesRequest,
  CountBundlesResponse,
  GetBundleRequest,
  GetFederatedBundleRequest,
  ListFederatedBundlesRequest,
  ListFederatedBundlesResponse,
  PublishJWTAuthorityRequest,
  PublishJWTAuthorityResponse,
} from '../../../../wire/gen/spire/api/server/bundle/v1/bundle.ts'
import type { Bundle } from '../../../../wire/gen/spire/api/types/bundle.ts'
import type { CallContext } from '../../context.ts'
import { attempt, invalidArgument, notFound } from '../../failure.ts'
import { pageOf } from '../../page.ts'
import type { HandlerPorts } from '../../ports.ts'
import { jwtAuthoritiesFields, jwtAuthorityFields, x509AuthoritiesFields } from './audit-fields.ts'
import { foreignTrustDomain } from './trust-domain.ts'

type BundlePorts = Pick<HandlerPorts, 'trustDomain' | 'bundleStore' | 'bundles'>

export function createBundleHandlers(ports: BundlePorts) {
  return {
    countBundles: (request: CountBundlesRequest, context: CallContext) =>
      countBundles(ports, request, context),
    getBundle: (request: GetBundleRequest, context: CallContext) =>
      getBundle(ports, request, context),
    appendBundle: (request: AppendBundleRequest, context: CallContext) =>
      appendBundle(ports, request, context),
    publishJwtAuthority: (request: PublishJWTAuthorityRequest, context: CallContext) =>
      publishJwtAuthority(ports, request, context),
    listFederatedBundles: (request: ListFederatedBundlesRequest, context: CallContext) =>
      listFederatedBundles(ports, request, context),
    getFederatedBundle: (request: GetFederatedBundleRequest, context: CallContext) =>
      getFederatedBundle(ports, request, context),
  }
}

async function countBundles(
  ports: BundlePorts,
  _request: CountBundlesRequest,
  context: CallContext,
): Promise<CountBundlesResponse> {
  const count = await attempt('failed to count bundles', ports.bundleStore.countBundles())
  context.audit.success()
  return { count }
}

/** The hottest call of all: every agent, every sync; so it is answered from memory. */
async function getBundle(
  ports: BundlePorts,
  request: GetBundleRequest,
  context: CallContext,
): Promise<Bundle> {
  context.audit.add(() => ownDomain(ports.trustDomain))
  const bundle = await attempt('failed to fetch bundle', ports.bundles.ownBundle())
  if (bundle === undefined) throw notFound('bundle not found')
  context.audit.success()
  return bundleToProto(bundle, request.outputMask)
}

/** WIT authorities alone are refused and otherwise ignored, as in SPIRE. */
async function appendBundle(
  ports: BundlePorts,
  request: AppendBundleRequest,
  context: CallContext,
): Promise<Bundle> {
  context.audit.add(() => ({
    ...jwtAuthoritiesFields(request.jwtAuthorities),
    ...x509AuthoritiesFields(request.x509Authorities),
  }))
  if (request.jwtAuthorities.length === 0 && request.x509Authorities.length === 0) {
    throw invalidArgument('no authorities to append')
  }
  const addition = {
    trustDomain: ports.trustDomain.name,
    jwtAuthorities: prefixed('failed to convert JWT authority', () =>
      jwtAuthoritiesFromProto(request.jwtAuthorities),
    ),
    x509Authorities: prefixed('failed to convert X.509 authority', () =>
      x509AuthoritiesFromProto(request.x509Authorities),
    ),
  }
  const appending = ports.bundleStore.appendBundle(addition, context.actor)
  const bundle = await attempt('failed to append bundle', appending)
  context.audit.success()
  return bundleToProto(bundle, request.outputMask)
}

export function publishAuditFields({ jwtAuthority }: PublishJWTAuthorityRequest): LogFields {
  return jwtAuthority === undefined ? {} : jwtAuthorityFields(jwtAuthority)
}

/** Without an upstream authority a downstream's key goes into the own bundle. */
async function publishJwtAuthority(
  ports: BundlePorts,
  request: PublishJWTAuthorityRequest,
  context: CallContext,
): Promise<PublishJWTAuthorityResponse> {
  const key = request.jwtAuthority
  if (key === undefined) throw invalidArgument('missing JWT authority')
  context.audit.add(() => publishAuditFields(request))
  const jwtAuthorities = prefixed('invalid JWT authority', () => jwtAuthoritiesFromProto([key]))
  const addition = { trustDomain: ports.trustDomain.name, x509Authorities: [], jwtAuthorities }
  const publishing = ports.bundleStore.appendBundle(addition, context.actor)
  const bundle = await attempt('failed to publish JWT key', publishing)
  context.audit.success()
  return { jwtAuthorities: jwtAuthoritiesToProto(bundle.jwtAuthorities) }
}

/** The own bundle is left out after paging, so a page may be short while a token follows. */
async function listFederatedBundles(
  ports: BundlePorts,
  request: ListFederatedBundlesRequest,
  context: CallContext,
): Promise<ListFederatedBundlesResponse> {
  const listing = ports.bundleStore.listBundles(pageOf(request))
  const page = await attempt('failed to list bundles', listing)
  context.audit.success()
  const foreign = page.rows.filter((bundle) => bundle.trustDomain !== ports.trustDomain.name)
  return {
    bundles: foreign.map((bundle) => bundleToProto(bundle, request.outputMask)),
    nextPageToken: page.nextToken,
  }
}

async function getFederatedBundle(
  ports: BundlePorts,
  request: GetFederatedBundleRequest,
  context: CallContext,
): Promise<Bundle> {
  context.audit.add(() => ({ trust_domain_id: request.trustDomain }))
  const trustDomain = foreignTrustDomain(
    request.trustDomain,
    ports.trustDomain,
    "getting a federated bundle for the server's own trust domain is not allowed",
  )
  const fetching = ports.bundleStore.getBundle(trustDomain.name)
  const bundle = await attempt('failed to fetch bundle', fetching)
  if (bundle === undefined) throw notFound('bundle not found')
  context.audit.success()
  return bundleToProto(bundle, request.outputMask)
}

function ownDomain(trustDomain: TrustDomain) {
  return { trust_domain_id: trustDomain.name }
}
