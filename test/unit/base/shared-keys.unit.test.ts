/** Keys that the sample files leave at their defaults, in both halves' files. */
import { describe, expect, test } from 'vitest'
import { parseAgentConfig } from '../../../src/agent/config.ts'
import { parseServerConfig } from '../../../src/server/config.ts'
import { memorySources } from '../../rigs/config-sources.ts'

const agent = (keys: string, blocks = '') =>
  parseAgentConfig(
    `agent { trust_domain = "example.org" server_address = "s" server_port = 1
       trust_bundle_path = "/b" ${keys} } ${blocks}`,
    {},
    memorySources(),
  ).config
const server = (blocks: string) =>
  parseServerConfig(
    `server { trust_domain = "example.org" data_dir = "/d" } ${blocks}`,
    {},
    memorySources(),
  ).config

test.each([
  ['log_file = "a.log"', { file: '/cwd/a.log' }],
  ['log_level = "DEBUG"', { level: 'debug' }],
  ['log_format = "json"', { format: 'json' }],
  ['log_source_location = true', { sourceLocation: true }],
])('the agent’s %s', (keys, expected) => {
  expect(agent('').log).not.toMatchObject(expected)
  expect(agent(keys).log).toMatchObject(expected)
})

test.each([
  ['fetch_x509_svid', 'fetchX509Svid'],
  ['fetch_jwt_svid', 'fetchJwtSvid'],
  ['fetch_x509_bundles', 'fetchX509Bundles'],
  ['fetch_jwt_bundles', 'fetchJwtBundles'],
] as const)('the agent’s rate limit %s', (key, name) => {
  const { rateLimit } = agent(`experimental { ratelimit { ${key} = 7 } }`)
  expect(Object.entries(rateLimit).filter(([, limit]) => limit !== 0)).toEqual([[name, 7]])
})

describe.each([
  ['agent', (blocks: string) => agent('', blocks)],
  ['server', server],
] as const)('%s', (_half, parse) => {
  test.each([
    ['listener_enabled = true', { listenerEnabled: true }],
    ['bind_address = "::"', { bindAddress: '::' }],
    ['bind_port = 81', { bindPort: 81 }],
    ['live_path = "/l"', { livePath: '/l' }],
    ['ready_path = "/r"', { readyPath: '/r' }],
  ])('health_checks %s', (keys, expected) => {
    expect(parse(`health_checks { ${keys} }`).healthChecks).toMatchObject(expected)
  })

  test.each([
    ['AllowedPrefixes = ["a"]', { allowedPrefixes: ['a'] }],
    ['BlockedPrefixes = ["a"]', { blockedPrefixes: ['a'] }],
    ['AllowedLabels = ["a"]', { allowedLabels: ['a'] }],
    ['BlockedLabels = ["a"]', { blockedLabels: ['a'] }],
  ])('telemetry %s', (keys, expected) => {
    expect(parse(`telemetry { ${keys} }`).telemetry).toMatchObject(expected)
  })
})
