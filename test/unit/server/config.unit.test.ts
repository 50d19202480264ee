/** The server's configuration: SPIRE's files in, checked values, notices and refusals out. */
import { describe, expect, test } from 'vitest'
import { unknownKeysOf } from '../../../src/base/config/document.ts'
import { SignetError } from '../../../src/base/error.ts'
import { parseServerConfig, type ServerFlags } from '../../../src/server/config.ts'
import { memorySources, sample } from '../../rigs/config-sources.ts'

const BASE = 'trust_domain = "example.org" data_dir = "/d"'
const POSTGRES = 'database_type = "postgres" connection_string = "x"'
const server = (lines = '', blocks = '') => `server { ${BASE} ${lines} } ${blocks}`
const plugins = (lines: string) => server('', `plugins { ${lines} }`)
const sql = (lines: string) => plugins(`DataStore "sql" { plugin_data { ${lines} } }`)

function parse(text: string, flags: ServerFlags = {}, sources = memorySources()) {
  return parseServerConfig(text, flags, sources)
}

function failure(text: string, flags: ServerFlags = {}, sources = memorySources()): SignetError {
  try {
    parse(text, flags, sources)
  } catch (thrown) {
    if (thrown instanceof SignetError) return thrown
    throw thrown
  }
  throw new Error('the file was accepted')
}

test('a common file of SPIRE, unchanged', () => {
  const { config, notices } = parse(sample('server-common.conf'))
  expect(config).toMatchObject({
    bindAddress: '0.0.0.0',
    bindPort: 8081,
    socketPath: '/run/server/private/api.sock',
    dataDir: '/var/lib/server',
    caTtlSeconds: 72 * 3600,
    defaultX509SvidTtlSeconds: 4 * 3600,
    agentTtlSeconds: 4 * 3600,
    caSubject: { country: ['DE'], organization: ['Example'], commonName: 'ca' },
    log: { file: '', level: 'debug', format: '', sourceLocation: false },
    dataStore: { kind: 'embedded' },
    keyManager: { kind: 'sealed', keyFiles: [] },
    nodeAttestors: [
      { type: 'join_token', data: {}, dataFile: '', cluster: '' },
      {
        type: 'x509pop',
        data: { ca_bundle_path: '/etc/pki/agents.pem' },
        dataFile: '',
        cluster: '',
      },
    ],
    healthChecks: { listenerEnabled: true, bindAddress: '0.0.0.0', bindPort: 8080 },
  })
  expect(config.trustDomain.name).toBe('example.org')
  expect(notices.map((notice) => notice.split(' ').slice(0, 2).join(' '))).toEqual([
    'DataStore "sql"',
    'KeyManager "disk"',
  ])
  expect(Object.isFrozen(config)).toBe(true)
})

test('every key', () => {
  const { config, notices, deprecations } = parse(sample('server-everything.conf'))
  const { trustDomain, adminIds, ...rest } = config
  expect(trustDomain.name).toBe('example.org')
  expect(adminIds.map(String)).toEqual([
    'spiffe://example.org/admin',
    'spiffe://other.example/admin',
  ])
  expect(rest).toEqual({
    dataDir: '/cwd/data',
    bindAddress: '::1',
    bindPort: 8081,
    socketPath: '/cwd/api.sock',
    agentTtlSeconds: 5400,
    defaultX509SvidTtlSeconds: 1800,
    defaultJwtSvidTtlSeconds: 90,
    caTtlSeconds: 48 * 3600,
    rootTtlSeconds: 87_600 * 3600,
    caKeyType: 'ec-p384',
    jwtKeyType: 'rsa-2048',
    caSubject: { country: ['US'], organization: ['SPIFFE'], commonName: '' },
    jwtIssuer: 'https://issuer.example',
    disableJwtSvids: false,
    auditLogEnabled: true,
    log: {
      file: '/cwd/log/server.log',
      level: 'warning',
      format: 'json',
      sourceLocation: true,
    },
    rateLimit: { attestation: false, attestationPerSecond: 20, signing: false },
    pruning: { nodesExpiredForSeconds: 720 * 3600, nodesBatchSize: 50, includeTofuNodes: true },
    maxAttestedNodeInfoStalenessMs: 1500,
    agentSpiffeIdAsSelector: true,
    dataStore: {
      kind: 'postgres',
      connectionString: 'host=db user=signet',
      maxOpenConns: 20,
    },
    keyManager: { kind: 'sealed', keyFiles: ['/cwd/kek-2', '/etc/signet/kek-1'] },
    nodeAttestors: [
      { type: 'join_token', data: {}, dataFile: '', cluster: '' },
      { type: 'x509pop', data: { ca_bundle_path: 'ca.pem' }, dataFile: '', cluster: 'east' },
    ],
    healthChecks: {
      listenerEnabled: false,
      bindAddress: 'localhost',
      bindPort: 80,
      livePath: '/live',
      readyPath: '/ready',
    },
    telemetry: {
      prometheus: { host: '0.0.0.0', port: 9988 },
      metricPrefix: 'idm',
      enableTrustDomainLabel: true,
      enableHostnameLabel: false,
      allowedPrefixes: ['idm.rpc'],
      blockedPrefixes: [],
      allowedLabels: [],
      blockedLabels: ['host'],
    },
    fresh: false,
  })
  expect(notices).toHaveLength(11)
  expect(deprecations).toEqual([])
  for (const word of [
    'cache_reload_interval',
    'full_cache_reload_interval',
    'events_based_cache',
    'prune_events_older_than',
    'event_timeout',
    'a_key_from_the_future',
    'conn_max_lifetime',
    'max_idle_conns',
    'ro_connection_string',
    'InMem',
    'telemetry.Another',
  ]) {
    expect(notices.filter((notice) => new RegExp(`[. ]${word}|^${word}`).test(notice))).not.toEqual(
      [],
    )
  }
})

test('JSON, with its lists of blocks', () => {
  const { config } = parse(sample('server-common.json'))
  expect(config.rateLimit).toEqual({
    attestation: false,
    attestationPerSecond: 1,
    signing: false,
  })
  expect(config.dataStore).toMatchObject({ kind: 'postgres', connectionString: 'host=db' })
  expect(config.keyManager).toEqual({ kind: 'memory' })
  expect(config.log.file).toBe('')
})

test('a deprecated key is told apart, for those who set alerts on it', () => {
  const { notices, deprecations } = parse(server('experimental { sql_transaction_timeout = "1m" }'))
  expect(notices).toEqual([])
  expect(deprecations).toEqual([
    expect.stringMatching(/^experimental.sql_transaction_timeout is deprecated; it has no meaning/),
  ])
})

test('the least there can be: trust domain and data directory', () => {
  const { config, notices } = parse(server())
  expect(config).toMatchObject({
    bindPort: 8081,
    socketPath: '/tmp/spire-server/private/api.sock',
    agentTtlSeconds: 3600,
    defaultX509SvidTtlSeconds: 3600,
    defaultJwtSvidTtlSeconds: 300,
    caTtlSeconds: 86_400,
    rootTtlSeconds: 10 * 365 * 86_400,
    caKeyType: 'ec-p256',
    jwtKeyType: 'ec-p256',
    rateLimit: { attestation: true, attestationPerSecond: 1, signing: true },
    dataStore: { kind: 'embedded' },
    keyManager: { kind: 'sealed', keyFiles: [] },
    nodeAttestors: [{ type: 'join_token' }],
    telemetry: { prometheus: undefined, enableHostnameLabel: true },
  })
  expect(notices).toEqual([])
})

describe('flags', () => {
  test('win over the file, but their zero values do not', () => {
    const text = server('bind_port = 1 log_level = "ERROR" socket_path = "/a"')
    const flags = { serverPort: 2, logLevel: 'DEBUG', socketPath: '', fresh: true }
    const { config } = parse(text, flags)
    expect(config).toMatchObject({
      bindPort: 2,
      log: { level: 'debug' },
      socketPath: '/a',
      fresh: true,
    })
    expect(parse(text, { serverPort: 0 }).config.bindPort).toBe(1)
  })

  test('stand in for missing keys', () => {
    const { config } = parse('server {}', { trustDomain: 'a.example', dataDir: 'x' })
    expect(config.dataDir).toBe('/cwd/x')
  })
})

test('environment variables are expanded only when asked for', () => {
  const text = server('jwt_issuer = "$ISSUER"')
  expect(parse(text).config.jwtIssuer).toBe('$ISSUER')
  const sources = memorySources({ expandEnv: true, env: { ISSUER: 'me' } })
  expect(parse(text, {}, sources).config.jwtIssuer).toBe('me')
})

describe('unknown keys are fatal, by section, sorted', () => {
  test.each([
    ['server', server('zeta = 1 alpha = 2'), 'server', ['alpha', 'zeta']],
    ['top', `${server()} surprise {}`, 'top-level', ['surprise']],
    ['subject', server('ca_subject { x = 1 }'), 'ca_subject', ['x']],
    ['rate limit', server('ratelimit { x = 1 }'), 'ratelimit', ['x']],
    ['health', server('', 'health_checks { x = 1 }'), 'health check', ['x']],
    ['Prometheus', server('', 'telemetry { Prometheus { x = 1 } }'), 'Prometheus', ['x']],
    ['InMem', server('', 'telemetry { InMem { x = 1 } }'), 'InMem', ['x']],
  ])('%s', (_, text, section, keys) => {
    const error = failure(text)
    expect(error.code).toBe('unknown_configuration')
    expect(error.message).toBe('unknown configuration detected')
    expect(unknownKeysOf(error)).toEqual([{ section, keys }])
  })

  test('several sections at once', () => {
    const sections = unknownKeysOf(failure(`${server('a = 1 ca_subject { b = 1 }')} c = 1`))
    expect(sections.map(({ section }) => section).sort()).toEqual([
      'ca_subject',
      'server',
      'top-level',
    ])
  })

  test('keys match in any case', () => {
    expect(parse('Server { Trust_Domain = "a" DATA_DIR = "/d" }').config.dataDir).toBe('/d')
  })
})

describe('what comes later is refused by name', () => {
  test.each([
    [server('federation { bundle_endpoint { port = 8443 } }'), 'server.federation'],
    [server('proxy_protocol_trusted_cidrs = ["10.0.0.0/8"]'), 'proxy_protocol_trusted_cidrs'],
    [server('profiling_enabled = true'), 'profiling_enabled'],
    [server('experimental { auth_opa_policy_engine {} }'), 'auth_opa_policy_engine'],
    [server('experimental { require_pq_kem = true }'), 'require_pq_kem'],
    [server('experimental { wit_issuer = "x" }'), 'wit_issuer'],
    [server('experimental { feature_flags = ["wit-svid"] }'), 'feature flag "wit-svid"'],
    [server('', 'telemetry { Statsd { address = "x" } }'), 'telemetry.Statsd'],
    [server('', 'telemetry { DogStatsd = [{ address = "x" }] }'), 'telemetry.DogStatsd'],
    [server('', 'telemetry { M3 { env = "x" } }'), 'telemetry.M3'],
    [server('', 'telemetry { Prometheus { tls {} } }'), 'telemetry.Prometheus.tls'],
    [plugins('UpstreamAuthority "disk" {}'), 'UpstreamAuthority "disk"'],
    [plugins('KeyManager "aws_kms" {}'), 'KeyManager "aws_kms"'],
    [plugins('NodeAttestor "k8s_psat" {}'), 'NodeAttestor "k8s_psat"'],
    [plugins('BundlePublisher "aws_s3" {}'), 'BundlePublisher "aws_s3"'],
    [plugins('Notifier "k8sbundle" {}'), 'Notifier "k8sbundle"'],
    [plugins('CredentialComposer "uniqueid" {}'), 'CredentialComposer "uniqueid"'],
    [plugins('NodeAttestor "own" { plugin_cmd = "/bin/x" }'), 'external plugin'],
    [sql('database_type "aws_postgres" { region = "x" } connection_string = "x"'), 'aws_postgres'],
  ])('%s', (text, what) => {
    const error = failure(text)
    expect(error.code).toBe('not_supported_yet')
    expect(error.message).toContain(what)
    expect(error.message).toMatch(/is not supported yet$/)
  })

  test('unless it is switched off', () => {
    const off = 'NodeAttestor "k8s_psat" { enabled = false plugin_data { clusters = {} } }'
    expect(parse(plugins(off)).config.nodeAttestors).toHaveLength(1)
  })
})

describe('bad values are refused, naming the key and what to do', () => {
  test.each([
    ['plugins {}', 'trust_domain must be configured'],
    ['server { data_dir = "/d" }', 'trust_domain must be configured'],
    ['server { trust_domain = "a" }', 'data_dir must be configured'],
    [server('bind_port = true'), 'At 1:55: server.bind_port: must be a whole number'],
    [server('bind_port = "http"'), 'server.bind_port: must be a whole number'],
    [server('bind_port = 70000'), 'could not resolve bind address "0.0.0.0:70000"'],
    [server('admin_ids = "one"'), 'server.admin_ids: must be a list of strings'],
    [server('audit_log_enabled = "yes"'), 'server.audit_log_enabled: must be true or false'],
    [server('ca_subject = "x"'), 'server.ca_subject: must be a block'],
    [server('admin_ids = ["x"]'), 'could not parse admin ID "x": scheme is missing or invalid'],
    [server('agent_ttl = "soon"'), 'could not parse agent ttl "soon": time: invalid duration'],
    [server('agent_ttl = "-1h"'), 'must not be negative'],
    [server('ca_ttl = "0s"'), 'must be at least one second'],
    [server('root_ttl = "1h"'), 'root_ttl must be at least ca_ttl'],
    [
      server('ca_key_type = "rsa-1024"'),
      'error parsing ca_key_type: key type "rsa-1024" is unknown',
    ],
    [server('log_level = "loud"'), 'could not start logger: not a valid logrus Level: "loud"'],
    [server('log_format = "xml"'), 'could not start logger: unknown logger format: "xml"'],
    [server('ratelimit { attestation_per_second = 0 }'), 'must be at least 1'],
    [server('max_attested_node_info_staleness = "x"'), 'max attested node staleness "x"'],
    [server('prune_attested_nodes_expired_for = "x"'), 'prune_attested_nodes_expired_for'],
    [server('experimental { named_pipe_name = "x" }'), 'use socket_path instead'],
    [server('experimental { feature_flags = ["b", "a"] }'), 'unknown feature flag(s): [a b]'],
    [
      server('experimental { event_timeout = "1m" sql_transaction_timeout = "1m" }'),
      'both experimental sql_transaction_timeout and event_timeout set',
    ],
    [
      server('experimental { cache_reload_interval = "x" }'),
      'could not parse cache reload interval',
    ],
    ['server { trust_domain = "A_B" data_dir = "/d" }', 'could not parse trust_domain "A_B"'],
    [plugins('NodeAttestor "nope" {}'), 'no built-in plugin "nope" for type "NodeAttestor"'],
    [plugins('Nope "x" {}'), 'unsupported plugin type "Nope"'],
    [plugins('KeyManager "memory" {} KeyManager "disk" {}'), 'expected exactly 1 but got 2'],
    [plugins('KeyManager "memory" {} KeyManager "memory" {}'), 'declared more than once'],
    [plugins('KeyManager "memory" { plugin_data { x = 1 } }'), 'unknown key x'],
    [plugins('KeyManager "sealed" { plugin_data { key_files = [""] } }'), 'empty path'],
    [
      plugins('NodeAttestor "x509pop" { plugin_data { cluster = 1 } }'),
      'cluster: must be a string',
    ],
    [
      plugins('NodeAttestor "x509pop" { plugin_data {} plugin_data_file = "x" }'),
      'only one of [plugin_data, plugin_data_file] can be used',
    ],
    [plugins('NodeAttestor "x509pop" { plugin_data_file = "x" }'), 'cannot read "x": ENOENT'],
    [plugins('DataStore "sql" {} DataStore "sql2" {}'), 'no built-in plugin "sql2"'],
    [sql('connection_string = "x"'), 'database_type must be set'],
    [sql('database_type = "oracle"'), 'unsupported database_type: oracle'],
    [sql('database_type = "postgres"'), 'connection_string must be set'],
    [sql('database_type = "mysql"'), 'use "postgres", or drop the DataStore block'],
    [sql('database_type "aws_mysql" {}'), '"mysql" is not supported'],
    [sql(`${POSTGRES} conn_max_lifetime = "x"`), 'failed to parse conn_max_lifetime "x"'],
    [sql(`${POSTGRES} disable_migration = true`), 'disable_migration is not supported'],
    [sql(`${POSTGRES} surprise = 1`), 'unknown key surprise'],
  ])('%s', (text, message) => {
    const error = failure(text)
    expect(error.message).toContain(message)
    expect(error.kind).toBe('invalid_argument')
  })
})

test.each([
  ['root_ca_path = "ca.pem"', ['root_ca_path is for MySQL only', 'sslmode=verify-full', 'sslroot']],
  ['client_cert_path = "c.pem"', ['client_cert_path is for MySQL only', 'set sslcert in conn']],
  ['client_key_path = "k.pem"', ['client_key_path is for MySQL only', 'set sslkey in conn']],
  ['log_sql = true', ['log_sql has no meaning here', 'log_statement']],
  ['log_sql = false root_ca_path = ""', []],
])('a key of SQL that does nothing says what would: %s', (key, words) => {
  const { config, notices } = parse(sql(`${POSTGRES} ${key}`))
  expect(config.dataStore).toMatchObject({ kind: 'postgres', connectionString: 'x' })
  expect(notices).toHaveLength(words.length === 0 ? 0 : 1)
  for (const word of words) expect(notices[0]).toContain(word)
})

describe('data of a SPIRE server', () => {
  const text = sql('database_type = "sqlite3" connection_string = "spire.sqlite3?mode=rwc"')
  const found = { '/cwd/spire.sqlite3': 'data' }

  test('is refused, naming the flag', () => {
    const error = failure(text, {}, memorySources({ files: found }))
    expect(error.message).toContain('start with -fresh')
  })

  test.each([
    ['with -fresh', { fresh: true }, found],
    ['when the file is empty', {}, { '/cwd/spire.sqlite3': '' }],
    ['when there is no file', {}, {}],
    ['when our own database has run here', {}, { ...found, '/d/postgres/password': 'x' }],
  ])('is left alone %s', (_, flags, files) => {
    expect(parse(text, flags, memorySources({ files })).config.dataStore.kind).toBe('embedded')
  })
})

test.each(['ca_subject {}', 'ca_subject { country = [] organization = [] common_name = "" }'])(
  'an empty subject is none: a CA has always a name (%s)',
  (lines) => {
    const { config, notices } = parse(server(lines))
    expect(config.caSubject).toEqual({ country: ['US'], organization: ['SPIFFE'], commonName: '' })
    expect(notices).toEqual(['ca_subject configurable is set but empty; the default will be used'])
  },
)

test('plugin data from a file', () => {
  const text = plugins('NodeAttestor "x509pop" { plugin_data_file = "pop.conf" }')
  const sources = memorySources({ files: { 'pop.conf': 'ca_bundle_path = "a" list = [1]' } })
  expect(parse(text, {}, sources).config.nodeAttestors[1]).toEqual({
    type: 'x509pop',
    data: { ca_bundle_path: 'a', list: [1] },
    dataFile: 'pop.conf',
    cluster: '',
  })
})

describe('lifetimes that a rotation may cut short are said', () => {
  test.each([
    ['default_x509_svid_ttl = "5h"', ['default_x509_svid_ttl'], 'set default_x509_svid_ttl to 4h'],
    ['agent_ttl = "5h"', ['agent_ttl'], 'ca_ttl to 30h or more'],
    ['ca_ttl = "6h"', [], ''],
    [
      'default_x509_svid_ttl = "200h" ca_ttl = "9000h"',
      ['default_x509_svid_ttl'],
      'to 168h or less',
    ],
  ])('%s', (lines, names, advice) => {
    const { notices } = parse(server(lines))
    expect(notices.map((notice) => notice.split(' ')[0])).toEqual(names)
    expect(notices.join()).toContain(advice)
  })
})
