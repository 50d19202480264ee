/** `api fetch jwt` and `api validate jwt` (features.md §3.3). */
import { SignetError } from '../../base/error.ts'
import { SpiffeWorkloadAPIService } from '../../wire/gen/workload.ts'
import { CliError, isDialFailure, messageOf } from '../error.ts'
import { commaList, output, text } from '../flags.ts'
import { answer } from '../output/proto-json.ts'
import type { Runnable } from '../program.ts'
import { print } from '../session.ts'
import { workloadCommand } from './command.ts'

export const fetchJwt: Runnable = workloadCommand({
  name: 'fetch jwt',
  flags: {
    audience: commaList('Audiences, separated by commas'),
    spiffeID: text('Only the SVID of this SPIFFE ID'),
    output: output(),
    format: { ...output(), usage: 'Deprecated; use -output' },
  },
  run: async ({ env, first, call }, flags) => {
    if (flags.audience.length === 0) throw new CliError('audience must be specified')
    const bundlesMethod = SpiffeWorkloadAPIService.fetchJwtBundles
    const bundles = await first(bundlesMethod, {}).catch((thrown) => {
      // Only opening the stream is explained; what the agent answers stands for itself.
      if (!isDialFailure(thrown)) throw thrown
      throw new CliError(`failed to receive JWT bundles: ${messageOf(thrown)}`)
    })
    const svidMethod = SpiffeWorkloadAPIService.fetchJwtsvid
    const svids = await call(svidMethod, {
      audience: [...flags.audience],
      spiffeId: flags.spiffeID,
    })
    const answers = [answer(svidMethod, svids), answer(bundlesMethod, bundles)]
    print(env, flags.output ?? flags.format, answers, () => {
      for (const { spiffeId, svid, hint } of svids.svids) {
        env.out(`token(${spiffeId}):\n\t${svid}\n`)
        if (hint !== '') env.out(`hint(${spiffeId}):\n\t${hint}\n`)
      }
      // Differs from SPIRE: sorted, where SPIRE prints them in random order.
      for (const trustDomain of Object.keys(bundles.bundles).sort()) {
        const jwks = Buffer.from(bundles.bundles[trustDomain]!).toString()
        env.out(`bundle(${trustDomain}):\n\t${jwks}\n`)
      }
    })
  },
})

export const validateJwt: Runnable = workloadCommand({
  name: 'validate jwt',
  flags: {
    audience: text('Audience that the SVID must have'),
    svid: text('The SVID'),
    output: output(),
  },
  run: async ({ env, call }, flags) => {
    if (flags.audience === '') throw new CliError('audience must be specified')
    if (flags.svid === '') throw new CliError('svid must be specified')
    const method = SpiffeWorkloadAPIService.validateJwtsvid
    const request = { audience: flags.audience, svid: flags.svid }
    const response = await call(method, request).catch((thrown) => {
      throw new CliError(refusal(thrown))
    })
    print(env, flags.output, [answer(method, response)], () => {
      env.out('SVID is valid.\n')
      env.out(`SPIFFE ID : ${response.spiffeId}\n`)
      env.out(`Claims    : ${JSON.stringify(sorted(response.claims ?? {}))}\n`)
    })
  },
})

function refusal(thrown: unknown): string {
  if (thrown instanceof SignetError && thrown.kind === 'invalid_argument') {
    return `SVID is not valid: ${thrown.message}`
  }
  return `unable to validate JWT SVID: ${messageOf(thrown)}`
}

function sorted(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sorted)
  if (typeof value !== 'object' || value === null) return value
  const entries = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1))
  return Object.fromEntries(entries.map(([key, inner]) => [key, sorted(inner)]))
}
