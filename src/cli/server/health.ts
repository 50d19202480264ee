/** `healthcheck` and `debug getinfo` of the server. */
import { formatGoDuration } from '../../base/duration.ts'
import { goQuote } from '../../base/log-text.ts'
import {
  HealthCheckResponse_ServingStatus,
  HealthService,
} from '../../wire/gen/grpc/health/v1/health.ts'
import { DebugService } from '../../wire/gen/spire/api/server/debug/v1/debug.ts'
import { CliError, messageOf } from '../error.ts'
import { bool, output } from '../flags.ts'
import { rfc3339 } from '../output/go-text.ts'
import { answer } from '../output/proto-json.ts'
import type { Runnable } from '../program.ts'
import { print, type Session } from '../session.ts'
import { serverCommand } from './command.ts'
import { idToText } from './spiffe-id.ts'

export const serverHealthcheck: Runnable = serverCommand({
  name: 'healthcheck',
  flags: {
    shallow: bool('Accepted for SPIRE; the check is the same'),
    verbose: bool('Says what is done and why it failed'),
  },
  run: async (session, flags) => {
    if (flags.verbose) session.env.out('Checking server health...\n')
    const fault = await healthFault(session, flags.verbose, 'server')
    if (fault !== undefined) throw new CliError(`server is unhealthy: ${fault}`)
    session.env.out('Server is healthy.\n')
  },
})

/** Undefined when the peer serves. */
export async function healthFault(
  session: Session,
  isVerbose: boolean,
  who: 'server' | 'agent',
): Promise<string | undefined> {
  try {
    const { status } = await session.call(HealthService.check, { service: '' })
    if (status === HealthCheckResponse_ServingStatus.SERVING) return undefined
    return `${who} returned status ${goQuote(statusName(status))}`
  } catch (thrown) {
    if (isVerbose) session.env.err(`Failed to check health: ${messageOf(thrown)}\n`)
    return 'unable to determine health'
  }
}

function statusName(status: number): string {
  const known = Object.entries(HealthCheckResponse_ServingStatus)
  return known.find(([, value]) => value === status)?.[0] ?? String(status)
}

export const debugGetInfo: Runnable = serverCommand({
  name: 'debug getinfo',
  flags: { output: output() },
  run: async ({ env, call }, flags) => {
    const method = DebugService.getInfo
    const response = await call(method, {})
    print(env, flags.output, [answer(method, response)], () => {
      env.out('Server Debug Info:\n')
      env.out(`  Uptime:                  ${formatGoDuration(response.uptime * 1000)}\n`)
      env.out(`  Registered Agents:       ${response.agentsCount}\n`)
      env.out(`  Registration Entries:    ${response.entriesCount}\n`)
      env.out(`  Federated Bundles:       ${response.federatedBundlesCount}\n`)
      if (response.svidChain.length > 0) env.out('  SVID Chain:\n')
      for (const [index, certificate] of response.svidChain.entries()) {
        env.out(`    [${index}] SPIFFE ID:  ${idToText(certificate.id) || '(none)'}\n`)
        env.out(`        Subject:    ${certificate.subject}\n`)
        env.out(`        Expires At: ${rfc3339(Number(certificate.expiresAt))}\n`)
      }
    })
  },
})
