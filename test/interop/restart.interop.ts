/** Servers and agents that go away and come back, with SPIRE's programs and ours on the other side. */
import { readdirSync, statSync, writeFileSync } from 'node:fs'
import { createServer, type Socket } from 'node:net'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { until } from '../rigs/until.ts'
import { Deployment, type Product } from './rig.ts'

/** Far longer than the pause between two writes, on a busy machine too. */
const CACHE_REST_MS = 2_000

async function withIdentity(deployment: Deployment, product: Product) {
  const token = await deployment.joinToken('spiffe://example.org/node')
  const agent = await deployment.startAgent(product, { args: ['-joinToken', token] })
  await deployment.createEntry([
    '-parentID',
    'spiffe://example.org/node',
    '-spiffeID',
    'spiffe://example.org/w',
    '-selector',
    'unix:uid:0',
  ])
  await until('the identity', () => fetched(deployment))
  return { agent, token }
}

async function fetched(deployment: Deployment): Promise<boolean> {
  return (await deployment.agent('spire', ['api', 'fetch', 'x509', '-timeout', '5s'])).code === 0
}

test.each<Product>(['spire', 'signet'])(
  'a %s agent outlives a killed server and follows the new one',
  async (product) => {
    await using deployment = await Deployment.create('signet')
    const first = await deployment.startServer({ server: 'default_x509_svid_ttl = "1h"' })
    const bundleBefore = await deployment.serverOk(['bundle', 'show'])
    await withIdentity(deployment, product)
    await first.stop('SIGKILL')
    expect(await fetched(deployment)).toBe(true)
    await deployment.startServer()
    expect(await deployment.serverOk(['bundle', 'show'])).toBe(bundleBefore)
    await deployment.createEntry([
      '-parentID',
      'spiffe://example.org/node',
      '-spiffeID',
      'spiffe://example.org/later',
      '-selector',
      'unix:gid:0',
    ])
    await until(
      'the new entry to arrive',
      async () => {
        const out = await deployment.agent('spire', ['api', 'fetch', 'x509', '-timeout', '5s'])
        return out.stdout.includes('spiffe://example.org/later')
      },
      90_000,
    )
  },
)

describe.each<Product>(['signet', 'spire'])('our agent of a %s server', (serverProduct) => {
  test.each(['away', 'silent'])(
    'restarted while the server is %s, serves what it had at once',
    async (fault) => {
      await using deployment = await Deployment.create(serverProduct)
      const server = await deployment.startServer({})
      const { agent } = await withIdentity(deployment, 'signet')
      await untilKept(deployment)
      await server.stop()
      await agent.stop('SIGKILL')
      await using silent = fault === 'silent' ? await listenSilently(deployment.port) : undefined
      await deployment.startAgent('signet', {}, false)
      await until('the identity without a server', () => fetched(deployment), 10_000)
      if (silent !== undefined) await until('a try to reach it', () => silent.connections > 0)
    },
  )
})

/** The agent writes its cache soon after a change, not before it answers: waits until it rests. */
async function untilKept(deployment: Deployment): Promise<void> {
  const file = join(deployment.dir, 'a1', 'data', 'svid-cache.sealed')
  const from = Date.now()
  await until(
    'the cache on disk to rest',
    () => Date.now() - Math.max(from, statSync(file).mtimeMs) > CACHE_REST_MS,
  )
}

/** Takes connections and says nothing: a server that hangs. */
async function listenSilently(port: number): Promise<{ connections: number } & AsyncDisposable> {
  const sockets: Socket[] = []
  const server = createServer((socket) => void sockets.push(socket.on('error', () => {})))
  await new Promise<void>((resolve) => server.listen(port, '127.0.0.1', resolve))
  return {
    get connections() {
      return sockets.length
    },
    [Symbol.asyncDispose]: async () => {
      for (const socket of sockets) socket.destroy()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

test('the embedded database serves one server at a time', async () => {
  await using deployment = await Deployment.create('signet')
  await deployment.startServer({})
  const second = await deployment.server(['run', '-config', deployment.serverConf], 'signet', {
    timeoutMs: 60_000,
  })
  expect(second.code).toBe(1)
  expect(second.stdout + second.stderr).toMatch(/another server|already/)
})

test('our agent with the sealed cache gone or damaged starts anew', async () => {
  await using deployment = await Deployment.create('signet')
  await deployment.startServer({})
  const { agent } = await withIdentity(deployment, 'signet')
  await agent.stop('SIGKILL')
  const data = join(deployment.dir, 'a1', 'data')
  for (const file of readdirSync(data)) {
    if (/cache|seal/.test(file)) writeFileSync(join(data, file), 'not what it was')
  }
  await deployment.startAgent('signet', {})
  await until('the identity', () => fetched(deployment))
})
