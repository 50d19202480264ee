/**
 * Stored bundles of foreign trust domains: the batch calls of the Bundle service (api.md §7.2).
 */
import { type Outcome, SignetError, toSignetError } from '../../../../base/error.ts'
import { TwoForms } from '../../../../base/log-text.ts'
import type { Bundle } from '../../../../spiffe/bundle.ts'
import {
  bundleFromProto,
  bundlePatchFromProto,
  bundleToProto,
} from '../../../../wire/convert/bundle.ts'
import { prefixed } from '../../../../wire/convert/prefixed.ts'
import type {
  BatchCreateFederatedBundleRequest,
  BatchCreateFederatedBundleResponse,
  BatchDeleteFederatedBundleRequest,
  BatchDeleteFederatedBundleResponse,
  BatchSetFederatedBundleRequest,
  BatchSetFederatedBundleResponse,
  BatchUpdateFederatedBundleRequest,
  BatchUpdateFederatedBundleResponse,
} from '../../../../wire/gen/spire/api/server/bundle/v1/bundle.ts'
import type {
  BundleMask,
  Bundle as BundleProto,
} from '../../../../wire/gen/spire/api/types/bundle.ts'
import type { BundleStore } from '../../../ports.ts'
import { itemStatus } from '../../batch.ts'
import type { CallContext } from '../../context.ts'
import { failed, invalidArgument, notFound } from '../../failure.ts'
import { checkBatch } from '../../page.ts'
import type { HandlerPorts } from '../../ports.ts'
import { bundleAuditFields } from './audit-fields.ts'
import { foreignTrustDomain } from './trust-domain.ts'

type FederatedPorts = Pick<HandlerPorts, 'trustDomain' | 'bundleStore'>
type DeleteMode = Parameters<BundleStore['deleteBundle']>[1]

/** By number of BatchDeleteFederatedBundleRequest.Mode. */
const DELETE_MODES: readonly DeleteMode[] = ['restrict', 'delete', 'dissociate']

export function createFederatedBundleHandlers(ports: FederatedPorts) {
  return {
    batchCreateFederatedBundle: (
      request: BatchCreateFederatedBundleRequest,
      context: CallContext,
    ): Promise<BatchCreateFederatedBundleResponse> =>
      eachBundle(ports, request.bundle, undefined, request.outputMask, context, {
        verb: 'creating',
        run: (proto) => ports.bundleStore.createBundle(converted(proto), context.actor),
        explain: creationError,
      }),
    batchUpdateFederatedBundle: (
      request: BatchUpdateFederatedBundleRequest,
      context: CallContext,
    ): Promise<BatchUpdateFederatedBundleResponse> =>
      eachBundle(ports, request.bundle, request.inputMask, request.outputMask, context, {
        verb: 'updating',
        run: (proto) => {
          const patch = prefixed('failed to convert bundle', () =>
            bundlePatchFromProto(proto, request.inputMask),
          )
          return ports.bundleStore.updateBundle(patch, context.actor)
        },
        explain: (error) => missingOr('failed to update bundle', error),
      }),
    batchSetFederatedBundle: (
      request: BatchSetFederatedBundleRequest,
      context: CallContext,
    ): Promise<BatchSetFederatedBundleResponse> =>
      eachBundle(ports, request.bundle, undefined, request.outputMask, context, {
        verb: 'setting',
        run: (proto) => ports.bundleStore.setBundle(converted(proto), context.actor),
        explain: (error) => failed('failed to set bundle', error),
      }),
    batchDeleteFederatedBundle: (
      request: BatchDeleteFederatedBundleRequest,
      context: CallContext,
    ) => batchDelete(ports, request, context),
  }
}

interface BundleAction {
  /** As in `<verb> a federated bundle for the server's own trust domain is not allowed`. */
  readonly verb: string
  /** Throws at once for what can't be converted, rejects with what the store says. */
  run(proto: BundleProto): Promise<Bundle>
  explain(error: SignetError): SignetError
}

/** One after the other: there are few, and each is its own transaction. */
async function eachBundle(
  ports: FederatedPorts,
  protos: readonly BundleProto[],
  inputMask: BundleMask | undefined,
  outputMask: BundleMask | undefined,
  context: CallContext,
  action: BundleAction,
) {
  checkBatch(protos)
  const results = []
  for (const proto of protos) {
    const outcome = await outcomeOf(ports, proto, action)
    const error = outcome.ok ? undefined : outcome.error
    context.audit.item(error, () => bundleAuditFields(proto, inputMask))
    results.push({
      status: itemStatus(context, error),
      bundle: outcome.ok ? bundleToProto(outcome.value, outputMask) : undefined,
    })
  }
  return { results }
}

async function outcomeOf(
  ports: FederatedPorts,
  proto: BundleProto,
  action: BundleAction,
): Promise<Outcome<Bundle>> {
  let running: Promise<Bundle>
  try {
    const rule = "a federated bundle for the server's own trust domain is not allowed"
    const text = `${action.verb} ${rule}`
    foreignTrustDomain(proto.trustDomain, ports.trustDomain, text)
    running = action.run(proto)
  } catch (thrown) {
    return { ok: false, error: toSignetError(thrown) }
  }
  try {
    return { ok: true, value: await running }
  } catch (thrown) {
    return { ok: false, error: action.explain(toSignetError(thrown)) }
  }
}

function converted(proto: BundleProto): Bundle {
  return prefixed('failed to convert bundle', () => bundleFromProto(proto))
}

function creationError(error: SignetError): SignetError {
  if (error.kind !== 'already_exists') return failed('unable to create bundle', error)
  return new SignetError('already_exists', 'bundle_exists', 'bundle already exists')
}

function missingOr(what: string, error: SignetError): SignetError {
  return error.kind === 'not_found' ? notFound('bundle not found') : failed(what, error)
}

async function batchDelete(
  ports: FederatedPorts,
  request: BatchDeleteFederatedBundleRequest,
  context: CallContext,
): Promise<BatchDeleteFederatedBundleResponse> {
  const mode = DELETE_MODES[request.mode]
  if (mode === undefined) {
    throw invalidArgument(`failed to parse deletion mode: unhandled delete mode "${request.mode}"`)
  }
  checkBatch(request.trustDomains)
  const results = []
  for (const trustDomain of request.trustDomains) {
    const error = await deletionError(ports, trustDomain, mode, context)
    const shownMode = new TwoForms(mode.toUpperCase(), request.mode)
    context.audit.item(error, () => ({ trust_domain_id: trustDomain, mode: shownMode }))
    results.push({ status: itemStatus(context, error), trustDomain })
  }
  return { results }
}

async function deletionError(
  ports: FederatedPorts,
  name: string,
  mode: DeleteMode,
  context: CallContext,
): Promise<SignetError | undefined> {
  try {
    const text = 'removing the bundle for the server trust domain is not allowed'
    const trustDomain = foreignTrustDomain(name, ports.trustDomain, text)
    await ports.bundleStore.deleteBundle(trustDomain.name, mode, context.actor)
    return undefined
  } catch (thrown) {
    const error = toSignetError(thrown)
    if (error.kind === 'invalid_argument') return error
    return missingOr('failed to delete federated bundle', error)
  }
}
