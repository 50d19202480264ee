/** LISTEN on a connection of its own, kept alive for as long as somebody listens. */
import pg from 'pg'
import type { Clock, Log, Random } from '../../../base/ports.ts'
import { unitInterval } from '../../../base/ports.ts'
import { sessionConfig } from '../database.ts'
import { wireOf } from '../wire-client.ts'

const PAUSE_MS_MIN = 100
const PAUSE_MS_MAX = 5_000
/** A network that drops packets silently must not leave a server deaf. */
const HEARTBEAT_MS = 15_000
const HEARTBEAT_ANSWER_MS_MAX = 10_000

export interface ListenerPorts {
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
}

/** `wake` is called on each notification and after each connect: something may have been missed. */
export function listenForChanges(
  config: pg.ClientConfig,
  ports: ListenerPorts,
  wake: () => void,
): AsyncDisposable {
  const stop = new AbortController()
  const loop = keepListening(config, ports, wake, stop.signal)
  return {
    [Symbol.asyncDispose]: async () => {
      stop.abort()
      await loop
    },
  }
}

async function keepListening(
  config: pg.ClientConfig,
  { clock, random, log }: ListenerPorts,
  wake: () => void,
  signal: AbortSignal,
): Promise<void> {
  let pauseMs = PAUSE_MS_MIN
  while (!signal.aborted) {
    try {
      await listenOnce(config, clock, signal, () => {
        pauseMs = PAUSE_MS_MIN
        wake()
      })
    } catch (error) {
      if (signal.aborted) return
      log.warn('Database connection for notifications lost', { error })
    }
    // Jitter: all servers lose the database at the same moment.
    await clock.sleep(pauseMs * (0.5 + unitInterval(random)), signal).catch(() => {})
    pauseMs = Math.min(pauseMs * 2, PAUSE_MS_MAX)
  }
}

/** Resolves or rejects when the connection ends. */
async function listenOnce(
  config: pg.ClientConfig,
  clock: Clock,
  signal: AbortSignal,
  wake: () => void,
): Promise<void> {
  const client = new pg.Client({
    ...sessionConfig(config),
    application_name: 'signet notifications',
    query_timeout: HEARTBEAT_ANSWER_MS_MAX,
  })
  const ended = new Promise<void>((resolve, reject) => {
    client.once('error', reject)
    client.once('end', resolve)
  })
  ended.catch(() => {})
  // The driver's own end() waits for the other side, which may be gone.
  const cut = () => void wireOf(client).stream.destroy()
  client.on('error', () => {})
  client.on('notification', wake)
  signal.addEventListener('abort', cut, { once: true })
  const heartbeat = clock.every(HEARTBEAT_MS, () => void client.query('select 1').catch(cut))
  try {
    await client.connect()
    await client.query('listen signet_change')
    wake()
    await ended
  } finally {
    heartbeat[Symbol.dispose]()
    signal.removeEventListener('abort', cut)
    cut()
  }
}
