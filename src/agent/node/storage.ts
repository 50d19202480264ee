/**
 * `agent-data.json` in the data directory: the agent's SVID, the last bundle and whether it may
 * attest again. The format is SPIRE's, so that an agent can be exchanged for the other in place:
 * certificates are base64 of PEM. Written whole, to a temporary file that is synced and renamed.
 */
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import { SignetError } from '../../base/error.ts'
import type { EpochSeconds } from '../../base/ports.ts'
import { parseCertificate } from '../../x509/certificate.ts'
import { formatPem, parsePemOf } from '../../x509/pem.ts'
import { writePrivateFile } from './private-file.ts'

export interface AgentData {
  /** DER, leaf first; empty when there is none. */
  readonly svid: readonly Uint8Array[]
  /** DER of the X.509 authorities; empty when there is none. */
  readonly bundle: readonly Uint8Array[]
  readonly reattestable: boolean
  readonly bootstrap: BootstrapState
}

/** How far a bootstrap is; `node/rebootstrap.ts` owns its meaning. */
interface BootstrapState {
  readonly use: number
  /** Absent when none is under way. */
  readonly startSeconds?: EpochSeconds
  readonly attempts: number
}

export interface AgentStorage {
  readonly data: AgentData
  update(change: Partial<AgentData>): Promise<void>
}

const NO_BOOTSTRAP: BootstrapState = { use: 0, attempts: 0 }
const EMPTY: AgentData = { svid: [], bundle: [], reattestable: false, bootstrap: NO_BOOTSTRAP }

/** Go's zero time: what SPIRE writes when no bootstrap is under way. */
const NO_TIME = '0001-01-01T00:00:00Z'

const StoredData = z.object({
  svid: z.array(z.string()).nullish(),
  bundle: z.array(z.string()).nullish(),
  reattestable: z.boolean().nullish(),
  bootstrap_use: z.number().nullish(),
  bootstrap_start_time: z.string().nullish(),
  connection_attempts: z.number().nullish(),
})

export async function openAgentStorage(dataDir: string): Promise<AgentStorage> {
  const path = join(dataDir, 'agent-data.json')
  const stored = await readStored(path)
  let data = stored === undefined ? EMPTY : decode(stored)
  let writing: Promise<void> = Promise.resolve()
  return {
    get data() {
      return data
    },
    update(change) {
      data = { ...data, ...change }
      const text = JSON.stringify(encode(data))
      // One after the other: two writers of one temporary file would mix.
      const write = () => writePrivateFile(path, text)
      writing = writing.then(write, write)
      return writing
    },
  }
}

async function readStored(path: string): Promise<z.infer<typeof StoredData> | undefined> {
  let text: string
  try {
    text = await readFile(path, 'utf8')
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined
    throw unreadable(error)
  }
  try {
    return StoredData.parse(JSON.parse(text))
  } catch (error) {
    throw unreadable(error)
  }
}

function decode(stored: z.infer<typeof StoredData>): AgentData {
  const startMs = Date.parse(stored.bootstrap_start_time ?? NO_TIME)
  return {
    svid: (stored.svid ?? []).map(certificateFromText),
    bundle: (stored.bundle ?? []).map(certificateFromText),
    reattestable: stored.reattestable ?? false,
    bootstrap: {
      use: stored.bootstrap_use ?? 0,
      attempts: stored.connection_attempts ?? 0,
      ...(startMs > 0 ? { startSeconds: Math.floor(startMs / 1000) } : {}),
    },
  }
}

function encode({ bootstrap, ...data }: AgentData): object {
  const { startSeconds } = bootstrap
  return {
    svid: data.svid.map(certificateToText),
    bundle: data.bundle.map(certificateToText),
    reattestable: data.reattestable,
    bootstrap_use: bootstrap.use,
    bootstrap_start_time:
      startSeconds === undefined ? NO_TIME : new Date(startSeconds * 1000).toISOString(),
    connection_attempts: bootstrap.attempts,
  }
}

function certificateFromText(base64: string): Uint8Array {
  try {
    const [der] = parsePemOf(Buffer.from(base64, 'base64').toString('latin1'), 'CERTIFICATE')
    if (der === undefined) throw new Error('no certificate')
    return parseCertificate(der).der
  } catch (error) {
    throw unreadable(error)
  }
}

function certificateToText(der: Uint8Array): string {
  return Buffer.from(formatPem('CERTIFICATE', der)).toString('base64')
}

function unreadable(cause: unknown): SignetError {
  return new SignetError('internal', 'agent_data_unreadable', 'failed to open storage', { cause })
}
