/**
 * The ledger's own connection: groups are written one behind the other without waiting, each a COPY
 * that commits by itself; answers come back in the same order.
 *
 * `pg` makes the connection (address, TLS, SCRAM) and parses what comes back; its query queue, which
 * sends nothing before the last answer, is bypassed.
 */
import { once } from 'node:events'
import pg from 'pg'
import { sessionConfig } from '../database.ts'
import { toStoreError, unavailable } from '../postgres-error.ts'
import { wireOf } from '../wire-client.ts'

export interface CopyConnection {
  /** Writes now; settles when PostgreSQL has answered. Until then `message` must not change. */
  send(message: Buffer): Promise<void>
  /** Rejects everything under way. */
  destroy(cause: Error): void
  close(): Promise<void>
  /** Resolves when it is no longer usable. */
  readonly ended: Promise<void>
}

interface Pending {
  readonly resolve: () => void
  readonly reject: (error: unknown) => void
  error: unknown
}

export async function openCopyConnection(config: pg.ClientConfig): Promise<CopyConnection> {
  const client = new pg.Client({ ...sessionConfig(config), application_name: 'signet ledger' })
  client.on('error', () => {})
  try {
    await client.connect()
  } catch (thrown) {
    throw toStoreError(thrown)
  }
  const wire = wireOf(client)
  for (const event of ['readyForQuery', 'commandComplete', 'copyInResponse', 'errorMessage']) {
    wire.removeAllListeners(event)
  }
  const pending: Pending[] = []
  let broken: Error | undefined
  let markEnded = () => {}
  const ended = new Promise<void>((resolve) => {
    markEnded = resolve
  })
  const fail = (cause: Error) => {
    broken ??= cause
    // Whether they were committed is unknown: the rows mean "may exist", nothing is released.
    for (const group of pending.splice(0)) {
      group.reject(unavailable('database_connection_lost', group.error ?? cause))
    }
    wire.stream.destroy()
    markEnded()
  }
  wire.on('errorMessage', (error: Error) => {
    const group = pending[0]
    if (group === undefined) fail(error)
    else group.error = error
  })
  wire.on('readyForQuery', () => {
    const group = pending.shift()
    if (group === undefined) return
    if (group.error === undefined) group.resolve()
    else group.reject(toStoreError(group.error))
  })
  wire.on('end', () => fail(new Error('connection ended')))
  wire.on('error', fail)
  return {
    ended,
    destroy: fail,
    send: (message) =>
      new Promise((resolve, reject) => {
        if (broken !== undefined) return reject(unavailable('database_connection_lost', broken))
        pending.push({ resolve, reject, error: undefined })
        wire.stream.write(message)
      }),
    close: async () => {
      if (broken !== undefined) return
      const gone = once(wire.stream, 'close')
      wire.stream.end(TERMINATE)
      await gone
    },
  }
}

/** 'X' and its length. */
const TERMINATE = Buffer.from([0x58, 0, 0, 0, 4])
