/**
 * `api watch`: prints the X.509 context whenever it changes, until interrupted. A broken stream is
 * said and opened again with growing pauses, as go-spiffe does.
 */
import { type Client, Metadata } from '@grpc/grpc-js'
import type { SignetError } from '../../base/error.ts'
import { SpiffeWorkloadAPIService, type X509SVIDResponse } from '../../wire/gen/workload.ts'
import { fromGrpcError } from '../../wire/status.ts'
import { openUnixChannel } from '../../wire/transport/channel.ts'
import type { CliEnv } from '../env.ts'
import { messageOf, nextStep } from '../error.ts'
import { parseFlags, usageOf } from '../flags.ts'
import type { Runnable } from '../program.ts'
import { AGENT_SOCKET, socketFlags, socketPathOf } from '../socket.ts'
import { WORKLOAD_HEADER } from './command.ts'
import { identitiesText, readIdentities } from './x509-context.ts'

const RETRY_MS_MIN = 1_000
const RETRY_MS_MAX = 30_000
const FLAGS = socketFlags(AGENT_SOCKET)

export const watch: Runnable = {
  help: (env) => env.err(usageOf('watch', FLAGS)),
  run: async (args, env) => {
    const parsed = parseFlags('watch', FLAGS, args)
    if (!parsed.ok) {
      env.err(`${parsed.output}${parsed.message}\n`)
      return 1
    }
    let client: Client | undefined
    try {
      const path = socketPathOf(AGENT_SOCKET, parsed.values, env)
      client = openUnixChannel(path)
      await watchUntilInterrupted(client, path, env)
      return 0
    } catch (thrown) {
      env.err(`${messageOf(thrown)}\n`)
      return 1
    } finally {
      client?.close()
    }
  },
}

async function watchUntilInterrupted(client: Client, path: string, env: CliEnv): Promise<void> {
  let pauseMs = RETRY_MS_MIN
  let updatedMs = env.clock.monotonicMs()
  while (!env.interrupted.aborted) {
    const failure = await oneStream(client, env, (response) => {
      const nowMs = env.clock.monotonicMs()
      const identities = readIdentities(response, env.clock.nowSeconds())
      env.out(identitiesText(identities, nowMs - updatedMs))
      updatedMs = env.clock.monotonicMs()
      pauseMs = RETRY_MS_MIN
    })
    if (env.interrupted.aborted) return
    env.err(`${messageOf(failure)}\n`)
    env.hint(nextStep(failure, path) ?? '')
    // The agent told us that the call itself is wrong: trying again cannot help.
    if (failure.kind === 'invalid_argument') throw failure
    await env.clock.sleep(pauseMs, env.interrupted).catch(() => undefined)
    pauseMs = Math.min(pauseMs * 2, RETRY_MS_MAX)
  }
}

/** Resolves with why the stream ended. */
function oneStream(
  client: Client,
  env: CliEnv,
  onUpdate: (response: X509SVIDResponse) => void,
): Promise<SignetError> {
  const method = SpiffeWorkloadAPIService.fetchX509Svid
  const metadata = new Metadata()
  metadata.set(...WORKLOAD_HEADER)
  const stream = client.makeServerStreamRequest(
    method.path,
    method.requestSerialize,
    method.responseDeserialize,
    {},
    metadata,
  )
  const cancel = () => stream.cancel()
  env.interrupted.addEventListener('abort', cancel, { once: true })
  return new Promise<SignetError>((resolve) => {
    stream.on('data', (response: X509SVIDResponse) => {
      try {
        onUpdate(response)
      } catch (thrown) {
        env.err(`${messageOf(thrown)}\n`)
      }
    })
    stream.on('error', (error) => resolve(fromGrpcError(error)))
    stream.on('end', () => resolve(fromGrpcError(new Error('EOF'))))
  }).finally(() => env.interrupted.removeEventListener('abort', cancel))
}
