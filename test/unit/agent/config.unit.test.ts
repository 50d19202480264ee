/** The agent's configuration: SPIRE's files in, checked values, notices and refusals out. */
import { describe, expect, test } from 'vitest'
import { type AgentFlags, parseAgentConfig } from '../../../src/agent/config.ts'
import { unknownKeysOf } from '../../../src/base/config/document.ts'
import { SignetError } from '../../../src/base/error.ts'
import { memorySources, sample } from '../../rigs/config-sources.ts'

const BASE = 'trust_domain = "example.org" server_address = "s" server_port = 1'
const agent = (lines = 'trust_bundle_path = "/b"', blocks = '') =>
  `agent { ${BASE} ${lines} } ${blocks}`
const more = (lines: string) => agent(`trust_bundle_path = "/b" ${lines}`)
const plugins = (lines: string) => agent(undefined, `plugins { ${lines} }`)

function parse(text: string, flags: AgentFlags = {}, sources = memorySources()) {
  return parseAgentConfig(text, flags, sources)
}

function failure(text: string, flags: AgentFlags = {}, sources = memorySources()): SignetError {
  try {
    parse(text, flags, sources)
  } catch (thrown) {
    if (thrown instanceof SignetError) return thrown
    throw thrown
  }
  throw new Error('the file was accepted')
}

test('a common file of SPIRE, unchanged', () => {
  const sources = memorySources({ expandEnv: true, env: { TOKEN: 'secret' } })
  const { config, notices } = parse(sample('agent-common.conf'), {}, sources)
  expect(config).toMatchObject({
    serverAddress: 'server.example',
    serverPort: 8081,
    dataDir: '/var/lib/agent',
    socketPath: '/run/agent/public/api.sock',
    adminSocketPath: '/run/agent/private/admin.sock',
    bootstrap: { kind: 'path', path: '/etc/agent/bootstrap.pem', format: 'pem' },
    joinToken: 'secret',
    keyManager: { kind: 'disk', directory: '/var/lib/agent/keys' },
    nodeAttestor: { type: 'join_token', data: {}, dataFile: '' },
    workloadAttestors: [
      { type: 'unix', data: { discover_workload_path: true, workload_size_limit: -1 } },
    ],
  })
  expect(notices).toEqual([])
  expect(Object.isFrozen(config)).toBe(true)
})

test('every key', () => {
  const { config, notices, deprecations } = parse(sample('agent-everything.conf'))
  const { trustDomain, authorizedDelegates, ...rest } = config
  expect(trustDomain.name).toBe('example.org')
  expect(authorizedDelegates.map(String)).toEqual(['spiffe://example.org/delegate'])
  expect(rest).toEqual({
    serverAddress: '10.0.0.1',
    serverPort: 8081,
    dataDir: '/cwd/data',
    socketPath: '/cwd/public/api.sock',
    adminSocketPath: '/cwd/private/admin.sock',
    disableWorkloadApi: false,
    disableSdsApi: true,
    bootstrap: {
      kind: 'url',
      url: 'http://local/bundle?x=1',
      unixSocket: '/cwd/bundle.sock',
      format: 'spiffe',
    },
    rebootstrapMode: 'auto',
    rebootstrapDelayMs: 300_000,
    joinToken: '',
    allowUnauthenticatedVerifiers: true,
    allowedForeignJwtClaims: ['sub', 'email'],
    workloadX509SvidKeyType: 'ec-p384',
    availabilityTargetSeconds: 36 * 3600,
    x509SvidCacheMaxSize: 10,
    jwtSvidCacheMaxSize: 20,
    syncIntervalMs: 1000,
    useSyncAuthorizedEntries: false,
    jwtSvidCacheHitTimeoutMs: 10_000,
    rateLimit: {
      fetchX509Svid: 5,
      fetchJwtSvid: 0,
      fetchX509Bundles: 0,
      fetchJwtBundles: 0,
      streamSecrets: 0,
      fetchSecrets: 7,
    },
    logSelectors: ['k8s:ns'],
    sds: {
      defaultSvidName: 'svid',
      defaultBundleName: 'roots',
      defaultAllBundlesName: 'roots',
      disableSpiffeCertValidation: true,
    },
    log: { file: '', level: 'info', format: 'json', sourceLocation: false },
    keyManager: { kind: 'memory' },
    nodeAttestor: {
      type: 'x509pop',
      data: { private_key_path: 'k', certificate_path: 'c' },
      dataFile: '',
    },
    workloadAttestors: [{ type: 'unix', data: {}, dataFile: '' }],
    healthChecks: {
      listenerEnabled: false,
      bindAddress: 'localhost',
      bindPort: 80,
      livePath: '/live',
      readyPath: '/ready',
    },
    telemetry: {
      prometheus: undefined,
      metricPrefix: '',
      enableTrustDomainLabel: false,
      enableHostnameLabel: true,
      allowedPrefixes: [],
      blockedPrefixes: [],
      allowedLabels: [],
      blockedLabels: [],
    },
  })
  expect(notices).toEqual([expect.stringContaining('default_all_bundles_name')])
  expect(deprecations).toEqual(["The 'use_sync_authorized_entries' configuration is deprecated."])
})

test('the least there can be', () => {
  const { config } = parse(agent())
  expect(config).toMatchObject({
    dataDir: '/cwd',
    socketPath: '/tmp/spire-agent/public/api.sock',
    adminSocketPath: '',
    rebootstrapMode: 'never',
    rebootstrapDelayMs: 600_000,
    workloadX509SvidKeyType: 'ec-p256',
    availabilityTargetSeconds: 0,
    x509SvidCacheMaxSize: 1000,
    jwtSvidCacheMaxSize: 1000,
    syncIntervalMs: 5000,
    useSyncAuthorizedEntries: true,
    jwtSvidCacheHitTimeoutMs: 30_000,
    keyManager: { kind: 'disk', directory: '/cwd' },
    nodeAttestor: { type: 'join_token', data: {}, dataFile: '' },
    workloadAttestors: [{ type: 'unix', data: {}, dataFile: '' }],
  })
})

describe('how trust begins', () => {
  test.each([
    ['insecure_bootstrap = true', { kind: 'insecure' }],
    ['trust_bundle_path = "b.pem"', { kind: 'path', path: '/cwd/b.pem', format: 'pem' }],
    [
      'trust_bundle_url = "https://h/b" trust_bundle_format = "spiffe"',
      { kind: 'url', url: 'https://h/b', unixSocket: '', format: 'spiffe' },
    ],
    [
      'trust_bundle_spiffe_workload_api = "unix:///run/api.sock"',
      { kind: 'workload_api', address: 'unix:///run/api.sock' },
    ],
  ])('%s', (lines, expected) => {
    expect(parse(agent(lines)).config.bootstrap).toEqual(expected)
  })

  test.each([
    ['', 'must be configured unless insecure_bootstrap is set'],
    [
      'insecure_bootstrap = true trust_bundle_path = "b"',
      'insecure_bootstrap or trust_bundle_path',
    ],
    [
      'insecure_bootstrap = true trust_bundle_url = "https://h"',
      'insecure_bootstrap or trust_bundle_url',
    ],
    [
      'insecure_bootstrap = true trust_bundle_url = "https://h" trust_bundle_path = "b"',
      'not the three options',
    ],
    [
      'trust_bundle_url = "https://h" trust_bundle_path = "b"',
      'trust_bundle_url or trust_bundle_path',
    ],
    ['trust_bundle_url = "http://h"', 'must start with https://'],
    ['trust_bundle_url = "::"', 'unable to parse trust bundle URL'],
    ['trust_bundle_path = "b" trust_bundle_unix_socket = "s"', 'so must be trust_bundle_url'],
    [
      'trust_bundle_url = "https://h" trust_bundle_unix_socket = "s"',
      'must start with http:// when used with trust bundle unix socket',
    ],
    [
      'trust_bundle_url = "http://h?spire-x=1" trust_bundle_unix_socket = "s"',
      'can not start with spire-',
    ],
    ['trust_bundle_path = "b" trust_bundle_format = "der"', 'expected "pem" or "spiffe"'],
    ['trust_bundle_spiffe_workload_api = "file:///x"', 'not a valid SPIFFE Workload API endpoint'],
    [
      'trust_bundle_spiffe_workload_api = "unix:///x" insecure_bootstrap = true',
      'insecure_bootstrap or trust_bundle_spiffe_workload_api',
    ],
    ['trust_bundle_path = "b" rebootstrap_mode = "often"', 'unknown rebootstrap mode specified'],
    ['insecure_bootstrap = true rebootstrap_mode = "auto"', 'can not be used with rebootstrapping'],
    ['trust_bundle_path = "b" rebootstrap_delay = "x"', 'error parsing rebootstrap delay duration'],
  ])('%s is refused', (lines, message) => {
    expect(failure(agent(lines)).message).toContain(message)
  })
})

describe('the join token', () => {
  test('from a file, trimmed', () => {
    const sources = memorySources({ files: { 't.txt': '  tok\n' } })
    expect(parse(more('join_token_file = "t.txt"'), {}, sources).config.joinToken).toBe('tok')
  })

  test('from a flag', () => {
    expect(parse(agent(), { joinToken: 'flag' }).config.joinToken).toBe('flag')
  })

  test.each([
    ['an empty file', 'join_token_file = "t"', { t: ' \n' }, 'join token file is empty'],
    [
      'a missing file',
      'join_token_file = "t"',
      {},
      'unable to read join token file "t": open t: no such file or directory',
    ],
    ['two of them', 'join_token = "SECRET" join_token_file = "t"', {}, 'only one of join_token'],
  ])('%s is refused and the token not shown', (_, lines, files, message) => {
    const error = failure(more(lines), {}, memorySources({ files }))
    expect(error.message).toContain(message)
    expect(JSON.stringify([error.message, error.fields])).not.toContain('SECRET')
  })
})

describe('bad values', () => {
  test.each([
    ['plugins {}', 'server_address must be configured'],
    ['agent {}', 'server_address must be configured'],
    ['agent { server_address = "x" }', 'server_port must be configured'],
    ['agent { server_address = "x" server_port = 1 }', 'trust_domain must be configured'],
    [more('server_port = 99999'), 'must be between 1 and 65535'],
    [more('availability_target = "23h"'), 'availability_target must be at least 24h0m0s'],
    [more('x509_svid_cache_max_size = -1'), 'x509_svid_cache_max_size should not be negative'],
    [more('jwt_svid_cache_max_size = -1'), 'jwt_svid_cache_max_size should not be negative'],
    [more('workload_x509_svid_key_type = "rsa-4096"'), 'key type "rsa-4096" is unknown'],
    [more('authorized_delegates = ["spiffe://b/x"]'), 'error validating authorized delegate'],
    [more('authorized_delegates = ["spiffe://example.org"]'), 'path is empty'],
    [more('authorized_delegates = ["x"]'), 'scheme is missing or invalid'],
    [
      more('socket_path = "/a/b/s" admin_socket_path = "/a/b/c/admin"'),
      'admin socket cannot be in the same directory',
    ],
    [more('experimental { sync_interval = "x" }'), 'could not parse synchronization interval'],
    [more('experimental { jwt_svid_cache_hit_timeout = "4s" }'), '(4s) must be greater than 5s'],
    [more('experimental { jwt_svid_cache_hit_timeout = "30s" }'), '(30s) must be less than 30s'],
    [
      more('experimental { ratelimit { fetch_secrets = -1 } }'),
      'experimental.ratelimit.fetch_secrets must not be negative',
    ],
    [more('experimental { named_pipe_name = "x" }'), 'use socket_path instead'],
    [more('experimental { admin_named_pipe_name = "x" }'), 'use admin_socket_path instead'],
    [plugins('NodeAttestor "join_token" {} NodeAttestor "x509pop" {}'), 'expected exactly 1'],
    [plugins('KeyManager "disk" { plugin_data { x = 1 } }'), 'unknown key x'],
    [plugins('UpstreamAuthority "disk" {}'), 'unsupported plugin type "UpstreamAuthority"'],
  ])('%s', (text, message) => {
    expect(failure(text).message).toContain(message)
  })

  test('an admin socket beside a disabled public one is fine', () => {
    const off = 'disable_workload_api = true disable_sds_api = true'
    const { config } = parse(more(`socket_path = "/a/s" admin_socket_path = "/a/t" ${off}`))
    expect(config).toMatchObject({ adminSocketPath: '/a/t', disableWorkloadApi: true })
  })
})

describe('what comes later is refused by name', () => {
  test.each([
    [more('experimental { broker { brokers = [] } }'), 'agent.experimental.broker'],
    [more('experimental { require_pq_kem = true }'), 'agent.experimental.require_pq_kem'],
    [more('profiling_enabled = true'), 'profiling_enabled'],
    [plugins('WorkloadAttestor "k8s" {}'), 'WorkloadAttestor "k8s"'],
    [plugins('NodeAttestor "aws_iid" {}'), 'NodeAttestor "aws_iid"'],
    [plugins('SVIDStore "gcp_secretmanager" {}'), 'SVIDStore "gcp_secretmanager"'],
  ])('%s', (text, what) => {
    const error = failure(text)
    expect(error.code).toBe('not_supported_yet')
    expect(error.message).toBe(`${what} is not supported yet`)
  })
})

test('unknown keys are fatal; those SPIRE tolerates are said', () => {
  expect(unknownKeysOf(failure(more('b = 1 a = 1')))).toEqual([
    { section: 'agent', keys: ['a', 'b'] },
  ])
  expect(unknownKeysOf(failure(more('experimental { ratelimit { x = 1 } }')))).toEqual([
    { section: 'ratelimit', keys: ['x'] },
  ])
  expect(parse(more('experimental { x = 1 } sds { y = 1 }')).notices).toEqual([
    'unknown key experimental.x is ignored',
    'unknown key sds.y is ignored',
  ])
})

test('flags win over the file', () => {
  const text = more('server_port = 5 log_level = "ERROR"')
  const flags = { serverPort: 6, trustBundle: 'c.pem', disableSDSAPI: true, dataDir: '' }
  expect(parse(text, flags).config).toMatchObject({
    serverPort: 6,
    bootstrap: { path: '/cwd/c.pem' },
    disableSdsApi: true,
    dataDir: '/cwd',
    log: { level: 'error' },
  })
})
