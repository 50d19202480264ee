/**
 * SPIRE's command lines and ours on our own server and agent, with live data: what one shows, the
 * other shows; what one makes, the other finds.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { until } from '../rigs/until.ts'
import { Deployment, type Product } from './rig.ts'

const NODE = 'spiffe://example.org/node'
const WORKLOAD = 'spiffe://example.org/workload'

let deployment: Deployment
let agentId: string

beforeAll(async () => {
  deployment = await Deployment.create('signet')
  await deployment.startServer({})
  const token = await deployment.joinToken(NODE)
  await deployment.startAgent('signet', { args: ['-joinToken', token] })
  agentId = `spiffe://example.org/spire/agent/join_token/${token}`
  const common = ['-parentID', NODE, '-selector', 'unix:uid:0', '-spiffeID']
  for (const [product, id, extra] of [
    ['spire', WORKLOAD, ['-dns', 'w.example.org', '-hint', 'h']],
    ['signet', `${WORKLOAD}-2`, ['-x509SVIDTTL', '600', '-jwtSVIDTTL', '120']],
  ] as const) {
    const args = ['entry', 'create', ...common, id, ...extra]
    expect(await deployment.server(args, product)).toMatchObject({ code: 0, stderr: '' })
  }
})
afterAll(async () => {
  await deployment?.[Symbol.asyncDispose]()
})

async function both(
  call: (product: Product) => Promise<{ code: number; stdout: string; stderr: string }>,
) {
  const theirs = await call('spire')
  const ours = await call('signet')
  const clean = (text: string) => text.replace(/after [0-9.µmns]+\n/, 'after SOME-TIME\n')
  expect({ ...ours, stdout: clean(ours.stdout) }).toEqual({
    ...theirs,
    stdout: clean(theirs.stdout),
  })
  return ours
}

describe('on the server', () => {
  test.each([
    'entry show',
    'entry show -output json',
    'entry count',
    `entry show -spiffeID ${WORKLOAD}`,
    'entry show -selector unix:uid:0 -matchSelectorsOn exact',
    'entry show -entryID 00000000-0000-0000-0000-000000000000',
    'entry delete -entryID 00000000-0000-0000-0000-000000000000',
    'agent list',
    'agent list -output json',
    'agent count -canReattest false',
    'agent show -spiffeID spiffe://example.org/spire/agent/none',
    'agent ban -spiffeID spiffe://example.org/workload',
    'bundle show',
    'bundle show -format spiffe',
    'bundle show -output json',
    'bundle list',
    'bundle count',
    'bundle delete -id other.example',
    'token generate -ttl -1',
    'healthcheck -verbose',
    'jwt mint -audience a -spiffeID spiffe://example.org/spire/agent/x',
    'x509 mint -spiffeID spiffe://other.example/x',
  ])('%s', async (line) => {
    await both((product) => deployment.server(line.split(' '), product))
  })

  test('an agent by its ID', async () => {
    const shown = await both((product) =>
      deployment.server(['agent', 'show', '-spiffeID', agentId], product),
    )
    expect(shown.stdout).toContain('Attestation type  : join_token')
  })

  test('entries made by one are refused to the other as similar', async () => {
    const args = ['-parentID', NODE, '-selector', 'unix:uid:0', '-spiffeID', WORKLOAD]
    const refused = await both((product) =>
      deployment.server(['entry', 'create', ...args], product),
    )
    expect(refused.stderr).toContain('code: AlreadyExists')
  })
})

describe('on the agent', () => {
  test('the same identities through both', async () => {
    await until('both identities', async () => {
      const { stdout } = await deployment.agent('signet', ['api', 'fetch', 'x509'])
      return stdout.includes('Received 2 svids')
    })
    await both((product) => deployment.agent(product, ['api', 'fetch', 'x509']))
    await both((product) => deployment.agent(product, ['api', 'fetch', 'x509', '-output', 'json']))
  })

  test('the same JWT-SVIDs through both, validated by both', async () => {
    const args = ['api', 'fetch', 'jwt', '-audience', 'aud', '-output', 'json']
    const { stdout } = await both((product) => deployment.agent(product, args))
    const token = JSON.parse(stdout)[0].svids[0].svid
    const validate = ['api', 'validate', 'jwt', '-svid', token, '-output', 'json', '-audience']
    await both((product) => deployment.agent(product, [...validate, 'aud']))
    await both((product) => deployment.agent(product, [...validate, 'other']))
  })

  test('healthcheck', async () => {
    await both((product) => deployment.agent(product, ['healthcheck', '-verbose']))
  })
})
