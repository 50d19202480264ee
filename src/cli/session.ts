/** One command's connection to an API socket, and how it prints. */
import { type Client, Metadata, type MethodDefinition } from '@grpc/grpc-js'
import { fromGrpcError } from '../wire/status.ts'
import { callOptions, callUnary } from '../wire/transport/call.ts'
import { openUnixChannel } from '../wire/transport/channel.ts'
import type { CliEnv } from './env.ts'
import { CliError, nextStep, withShownPath } from './error.ts'
import type { OutputFormat } from './flags.ts'
import { type Answer, protoJsonLine } from './output/proto-json.ts'

/** Batches of thousands of entries take their time; a server that hangs is left in the end. */
const CALL_TIMEOUT_MS = 5 * 60_000

export interface Session {
  readonly env: CliEnv
  call<Request, Response>(
    method: MethodDefinition<Request, Response>,
    request: Request,
  ): Promise<Response>
  /** The first message of a stream, which is closed then. */
  first<Request, Response>(
    method: MethodDefinition<Request, Response>,
    request: Request,
  ): Promise<Response>
  readonly client: Client
  readonly metadata: Metadata
}

export interface SessionOptions {
  readonly path: string
  /** How a failure to connect names the socket; the path by default. */
  readonly shownPath?: string
  readonly timeoutMs?: number
  /** Workload API calls carry `workload.spiffe.io: true`. */
  readonly header?: readonly [string, string]
}

export async function withSession<T>(
  env: CliEnv,
  options: SessionOptions,
  use: (session: Session) => Promise<T>,
): Promise<T> {
  const client = openUnixChannel(options.path)
  const metadata = new Metadata()
  if (options.header !== undefined) metadata.set(...options.header)
  const failure = (thrown: unknown) => {
    env.hint(nextStep(thrown, options.path) ?? '')
    return withShownPath(thrown, options.path, options.shownPath ?? options.path)
  }
  const settings = { clock: env.clock, timeoutMs: options.timeoutMs ?? CALL_TIMEOUT_MS, metadata }
  try {
    return await use({
      env,
      client,
      metadata,
      call: (method, request) =>
        callUnary(client, method, request, settings).catch((thrown) => {
          throw failure(thrown)
        }),
      first: (method, request) =>
        new Promise((resolve, reject) => {
          const stream = client.makeServerStreamRequest(
            method.path,
            method.requestSerialize,
            method.responseDeserialize,
            request,
            metadata,
            callOptions(settings),
          )
          stream.once('data', (response) => {
            resolve(response)
            stream.cancel()
          })
          stream.on('error', (error) => {
            reject(failure(fromGrpcError(error)))
          })
          // Go's Recv ends with the bare word.
          stream.once('end', () => reject(new CliError('EOF')))
        }),
    })
  } finally {
    client.close()
  }
}

/** Prints answers as JSON, or with the command's own pretty form. */
export function print(
  env: CliEnv,
  format: OutputFormat | undefined,
  answers: readonly Answer[],
  pretty: () => void,
): void {
  if (format === 'json') env.out(protoJsonLine(answers))
  else pretty()
}
