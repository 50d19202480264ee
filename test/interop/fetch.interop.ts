/**
 * Suites entries, fetch-x509-svids and fetch-jwt-svids: counts across the cache limits for several
 * users, node aliases, updates that reach the workload, JWT functions switched off.
 */
import { chmodSync, copyFileSync, existsSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { run } from '../rigs/process.ts'
import { until } from '../rigs/until.ts'
import { Deployment, PEERS_DIR, type Product } from './rig.ts'

const CACHE_SIZE = 8
const ALIAS = 'spiffe://example.org/alias'

/** SPIRE's CLI where every user may run it: the cache may lie in a home directory. */
function publicCli(deployment: Deployment): string {
  const path = join(deployment.dir, 'spire-agent')
  if (!existsSync(path)) {
    copyFileSync(join(PEERS_DIR, 'spire-agent'), path)
    chmodSync(path, 0o755)
  }
  return path
}

function fetchAs(deployment: Deployment, uid: number, args: readonly string[]) {
  const socket = ['-socketPath', deployment.agentSocket()]
  return run(publicCli(deployment), ['api', 'fetch', ...args, ...socket], { uid, gid: uid })
}

async function received(deployment: Deployment, uid: number): Promise<number> {
  const out = await fetchAs(deployment, uid, ['x509', '-timeout', '10s'])
  return Number(/Received (\d+) svid/.exec(out.stdout)?.[1] ?? 0)
}

test.each<Product>(['spire', 'signet'])(
  '%s agent serves more identities than its cache holds',
  async (product) => {
    await using deployment = await Deployment.create('signet')
    await deployment.startServer({})
    const token = await deployment.joinToken('spiffe://example.org/node')
    await deployment.startAgent(product, {
      args: ['-joinToken', token],
      agent: `x509_svid_cache_max_size = ${CACHE_SIZE}\n jwt_svid_cache_max_size = ${CACHE_SIZE}`,
    })
    const counts = new Map([
      [1001, 4],
      [1002, CACHE_SIZE + 2],
      [1003, 1],
    ])
    const entries: object[] = []
    for (const [uid, count] of counts) {
      for (let i = 0; i < count; i++) {
        entries.push({
          parent_id: 'spiffe://example.org/node',
          spiffe_id: `spiffe://example.org/uid/${uid}/${i}`,
          selectors: [{ type: 'unix', value: `uid:${uid}` }],
        })
      }
    }
    const made = await deployment.server(['entry', 'create', '-data', '-'], 'spire', {
      input: JSON.stringify({ entries }),
    })
    expect(made.stderr).toBe('')
    for (const [uid, count] of [...counts, ...counts]) {
      await until(
        `${count} identities for ${uid}`,
        async () => (await received(deployment, uid)) === count,
      )
    }
    for (let i = 0; i < CACHE_SIZE + 4; i++) {
      const jwt = ['jwt', '-audience', `a${i}`, '-timeout', '10s', '-output', 'json']
      const out = await fetchAs(deployment, 1001, jwt)
      expect(JSON.parse(out.stdout)[0].svids).toHaveLength(4)
    }
  },
)

test.each<Product>(['spire', 'signet'])(
  'aliases and updates reach the workloads of a %s agent',
  async (product) => {
    await using deployment = await Deployment.create('signet')
    await deployment.startServer({ server: 'experimental { agent_spiffe_id_as_selector = true }' })
    // Two are named by an alias entry each, the third by its join token.
    const nodes = ['a1', 'a2', 'a3']
    for (const name of nodes) {
      const token = await deployment.joinToken(name === 'a3' ? ALIAS : undefined)
      await deployment.startAgent(product, { name, args: ['-joinToken', token] })
      if (name === 'a3') continue
      await deployment.serverOk([
        ...['entry', 'create', '-node', '-spiffeID', ALIAS, '-selector'],
        `spiffe_id:spiffe://example.org/spire/agent/join_token/${token}`,
      ])
    }
    const entry = ['-parentID', ALIAS, '-spiffeID', 'spiffe://example.org/w']
    const id = await deployment.createEntry([...entry, '-selector', 'unix:uid:0'])
    const fetched = async (name: string) => {
      const args = ['api', 'fetch', 'x509', '-output', 'json', '-timeout', '5s']
      const out = await deployment.agent('spire', args, name)
      return out.code === 0 ? (JSON.parse(out.stdout).svids[0].x509_svid as string) : undefined
    }
    const onEach = (what: string, isSo: (svid: string | undefined) => boolean) =>
      Promise.all(
        nodes.map((name) => until(`${what} on ${name}`, async () => isSo(await fetched(name)))),
      )
    await onEach('the identity', (svid) => svid !== undefined)
    await deployment.serverOk([
      ...['entry', 'update', '-entryID', id, ...entry],
      ...['-selector', 'unix:uid:0', '-dns', 'new.example.org'],
    ])
    await onEach(
      'an SVID with the new name',
      (svid) => svid !== undefined && Buffer.from(svid, 'base64').includes('new.example.org'),
    )
    await deployment.serverOk(['entry', 'delete', '-entryID', id])
    await onEach('the identity gone', (svid) => svid === undefined)
  },
)

test('with disable_jwt_svids every JWT way says so', async () => {
  await using deployment = await Deployment.create('signet')
  await deployment.startServer({ server: 'disable_jwt_svids = true' })
  const minted = await deployment.server(
    ['jwt', 'mint', '-spiffeID', 'spiffe://example.org/w', '-audience', 'a'],
    'spire',
  )
  expect(minted.code).toBe(1)
  expect(minted.stderr).toContain('JWT functionality is disabled')
  const token = await deployment.joinToken('spiffe://example.org/node')
  await deployment.startAgent('spire', { args: ['-joinToken', token] })
  await deployment.createEntry([
    '-parentID',
    'spiffe://example.org/node',
    '-spiffeID',
    'spiffe://example.org/w',
    '-selector',
    'unix:uid:0',
  ])
  await until(
    'the identity',
    async () => (await deployment.agent('spire', ['api', 'fetch', 'x509'])).code === 0,
  )
  const fetched = await deployment.agent('spire', [
    'api',
    'fetch',
    'jwt',
    '-audience',
    'a',
    '-timeout',
    '20s',
  ])
  expect(fetched.code).toBe(1)
  expect(fetched.stderr).toContain('JWT functionality is disabled')
})
