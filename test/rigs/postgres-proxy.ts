/** Sits between a client and PostgreSQL's Unix socket and loses what a network would lose. */
import { mkdtempSync, rmSync } from 'node:fs'
import { connect, createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import path from 'node:path'
import type { TestPoolConfig } from './postgres.ts'

export interface PostgresProxy extends AsyncDisposable {
  readonly poolConfig: TestPoolConfig
  /** From now on nothing reaches clients any more, and nobody is told. */
  swallowReplies(): void
  /** As before, for new connections; swallowed ones stay dead. */
  forwardReplies(): void
  /** All connections break. */
  cut(): void
}

export async function startProxy(target: TestPoolConfig): Promise<PostgresProxy> {
  const dir = mkdtempSync(path.join(tmpdir(), 'signet-proxy-'))
  const sockets = new Set<Socket>()
  let swallowing = false
  const server = createServer((client) => {
    const upstream = connect(path.join(target.host, `.s.PGSQL.${target.port}`))
    let dead = false
    upstream.on('data', (chunk) => {
      dead ||= swallowing
      if (!dead) client.write(chunk)
    })
    client.on('data', (chunk) => upstream.write(chunk))
    for (const [socket, other] of [
      [client, upstream],
      [upstream, client],
    ] as const) {
      sockets.add(socket)
      socket.on('error', () => {})
      socket.on('close', () => {
        sockets.delete(socket)
        // A connection that fell silent also keeps quiet about its end.
        if (!dead || socket === client) other.destroy()
      })
    }
  })
  const cut = () => {
    for (const socket of sockets) socket.destroy()
  }
  await new Promise<void>((resolve) =>
    server.listen(path.join(dir, `.s.PGSQL.${target.port}`), resolve),
  )
  return {
    poolConfig: { ...target, host: dir },
    swallowReplies: () => {
      swallowing = true
    },
    forwardReplies: () => {
      swallowing = false
    },
    cut,
    [Symbol.asyncDispose]: async () => {
      cut()
      await new Promise((resolve) => server.close(resolve))
      rmSync(dir, { recursive: true, force: true })
    },
  }
}
