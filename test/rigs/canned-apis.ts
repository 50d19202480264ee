/**
 * Server, agent and workload APIs on one Unix socket with canned answers, for tests of command lines:
 * SPIRE's and ours meet the same server, and what each of them asked is kept.
 */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import {
  Metadata,
  Server,
  ServerCredentials,
  type ServerUnaryCall,
  type ServerWritableStream,
  type ServiceDefinition,
  type sendUnaryData,
  status,
} from '@grpc/grpc-js'
import { HealthService } from '../../src/wire/gen/grpc/health/v1/health.ts'
import { DebugService as AgentDebugService } from '../../src/wire/gen/spire/api/agent/debug/v1/debug.ts'
import { AgentService } from '../../src/wire/gen/spire/api/server/agent/v1/agent.ts'
import { BundleService } from '../../src/wire/gen/spire/api/server/bundle/v1/bundle.ts'
import { DebugService } from '../../src/wire/gen/spire/api/server/debug/v1/debug.ts'
import { EntryService } from '../../src/wire/gen/spire/api/server/entry/v1/entry.ts'
import { SVIDService } from '../../src/wire/gen/spire/api/server/svid/v1/svid.ts'
import { SpiffeWorkloadAPIService } from '../../src/wire/gen/workload.ts'

/** An answer, or an Error with a gRPC `code`. Streams answer once and stay open. */
export type Canned = (request: never) => unknown

export interface Asked {
  readonly method: string
  /** Bytes as base64, 64-bit numbers as text. */
  readonly request: unknown
}

export interface CannedApis extends AsyncDisposable {
  readonly socketPath: string
  readonly dir: string
  /** What was asked since the last call. */
  takeAsked(): Asked[]
}

export class RpcFailure extends Error {
  readonly code: status
  readonly details: string

  constructor(code: status, details: string) {
    super(details)
    this.code = code
    this.details = details
  }
}

const SERVICES: readonly ServiceDefinition[] = [
  HealthService,
  AgentDebugService,
  AgentService,
  BundleService,
  DebugService,
  EntryService,
  SVIDService,
  SpiffeWorkloadAPIService,
]

/** `answers` by method path without its leading slash; others are unimplemented. */
export async function startCannedApis(
  answers: Readonly<Record<string, Canned>>,
): Promise<CannedApis> {
  const dir = mkdtempSync(join(tmpdir(), 'sc-'))
  const socketPath = join(dir, 's')
  const server = new Server()
  let asked: Asked[] = []
  for (const service of SERVICES) {
    server.addService(
      service,
      Object.fromEntries(
        Object.entries(service).map(([name, method]) => [
          name,
          handlerOf(method.path.slice(1), method.responseStream, answers, (entry) => {
            asked.push(entry)
          }),
        ]),
      ),
    )
  }
  await new Promise<void>((resolve, reject) => {
    server.bindAsync(`unix:${socketPath}`, ServerCredentials.createInsecure(), (error) =>
      error ? reject(error) : resolve(),
    )
  })
  return {
    socketPath,
    dir,
    takeAsked: () => {
      const taken = asked
      asked = []
      return taken
    },
    [Symbol.asyncDispose]: async () => {
      server.forceShutdown()
      rmSync(dir, { recursive: true, force: true })
    },
  }
}

function handlerOf(
  path: string,
  isStream: boolean,
  answers: Readonly<Record<string, Canned>>,
  note: (asked: Asked) => void,
) {
  const answerTo = (request: unknown): unknown => {
    note({ method: path, request: plain(request) })
    const canned = answers[path]
    if (canned === undefined) throw new RpcFailure(status.UNIMPLEMENTED, `no answer for ${path}`)
    return canned(request as never)
  }
  if (isStream) {
    return (call: ServerWritableStream<unknown, unknown>) => {
      try {
        call.write(answerTo(call.request))
      } catch (error) {
        call.emit('error', failureOf(error))
      }
    }
  }
  return (call: ServerUnaryCall<unknown, unknown>, reply: sendUnaryData<unknown>) => {
    try {
      reply(null, answerTo(call.request))
    } catch (error) {
      reply(failureOf(error))
    }
  }
}

function failureOf(error: unknown) {
  const { code, details } =
    error instanceof RpcFailure ? error : new RpcFailure(status.UNKNOWN, String(error))
  return Object.assign(new Error(details), { code, details, metadata: new Metadata() })
}

function plain(value: unknown): unknown {
  return JSON.parse(
    JSON.stringify(value, (_, inner) => {
      if (typeof inner === 'bigint') return String(inner)
      if (inner?.type === 'Buffer') return Buffer.from(inner.data).toString('base64')
      return inner instanceof Uint8Array ? Buffer.from(inner).toString('base64') : inner
    }),
  )
}

export function readFixtures<Name extends string>(path: string, names: readonly Name[]) {
  const raw = JSON.parse(readFileSync(path, 'utf8'))
  const bytes = (name: Name) => new Uint8Array(Buffer.from(raw[name], 'base64'))
  return Object.fromEntries(names.map((name) => [name, bytes(name)])) as Record<Name, Uint8Array>
}
