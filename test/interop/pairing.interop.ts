/**
 * Every pairing of server and agent, SPIRE's and ours, from the same configuration files: attest
 * with a join token, sync, fetch X.509- and JWT-SVIDs, validate, see changes, be banned.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Daemon } from '../rigs/process.ts'
import { until } from '../rigs/until.ts'
import { Deployment, type Product } from './rig.ts'

const PAIRINGS: readonly (readonly [Product, Product])[] = [
  ['spire', 'spire'],
  ['signet', 'spire'],
  ['spire', 'signet'],
  ['signet', 'signet'],
]

describe.each(PAIRINGS)('%s server with %s agent', (serverProduct, agentProduct) => {
  let deployment: Deployment
  let agent: Daemon
  let agentId: string

  beforeAll(async () => {
    deployment = await Deployment.create(serverProduct)
    await deployment.startServer({})
    const token = await deployment.joinToken('spiffe://example.org/node')
    agent = await deployment.startAgent(agentProduct, { args: ['-joinToken', token] })
    agentId = `spiffe://example.org/spire/agent/join_token/${token}`
  })
  afterAll(async () => {
    await deployment?.[Symbol.asyncDispose]()
  })

  const fetchX509 = (cli: Product) =>
    deployment.agent(cli, ['api', 'fetch', 'x509', '-timeout', '10s'])

  test('a workload without an entry gets no identity', async () => {
    const result = await fetchX509('spire')
    expect(result.code).toBe(1)
    expect(result.stderr).toContain('no identity issued')
  })

  test('an entry reaches the workload as an X.509-SVID through both CLIs', async () => {
    await deployment.createEntry([
      '-parentID',
      'spiffe://example.org/node',
      '-spiffeID',
      'spiffe://example.org/workload',
      '-selector',
      'unix:uid:0',
      '-dns',
      'workload.example.org',
    ])
    for (const cli of ['spire', 'signet'] as const) {
      const out = await until(`an SVID through the ${cli} CLI`, async () => {
        const result = await fetchX509(cli)
        return result.code === 0 ? result.stdout : undefined
      })
      expect(out).toContain('Received 1 svid')
      expect(out).toMatch(/SPIFFE ID:\s+spiffe:\/\/example\.org\/workload/)
    }
  })

  test('a JWT-SVID is fetched and validated through both CLIs', async () => {
    const fetched = await deployment.agent('spire', [
      'api',
      'fetch',
      'jwt',
      '-audience',
      'aud1',
      '-timeout',
      '10s',
      '-output',
      'json',
    ])
    expect(fetched.stderr + fetched.stdout).not.toContain('Error')
    const [svids] = JSON.parse(fetched.stdout)
    const token = svids.svids[0].svid
    for (const cli of ['spire', 'signet'] as const) {
      const valid = await deployment.agent(cli, [
        'api',
        'validate',
        'jwt',
        '-audience',
        'aud1',
        '-svid',
        token,
        '-timeout',
        '10s',
      ])
      expect(valid.stdout).toContain('SVID is valid.')
      const other = await deployment.agent(cli, [
        'api',
        'validate',
        'jwt',
        '-audience',
        'aud2',
        '-svid',
        token,
        '-timeout',
        '10s',
      ])
      expect(other.code).toBe(1)
    }
  })

  test('the agent is listed, and a deleted entry takes the identity away', async () => {
    expect(await deployment.serverOk(['agent', 'list'])).toContain(agentId)
    const shown = await deployment.serverOk([
      'entry',
      'show',
      '-spiffeID',
      'spiffe://example.org/workload',
      '-output',
      'json',
    ])
    const entry = JSON.parse(shown).entries[0]
    await deployment.serverOk(['entry', 'delete', '-entryID', entry.id])
    await until('the identity to be gone', async () => {
      const result = await fetchX509('spire')
      return result.code === 1 && result.stderr.includes('no identity issued')
    })
  })

  test('a banned agent removes its SVID and stops', async () => {
    await deployment.serverOk(['agent', 'ban', '-spiffeID', agentId])
    await agent.untilExit(60_000)
    expect(agent.output).toContain('Agent is banned: removing SVID and shutting down')
  })
})
