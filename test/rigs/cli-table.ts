/**
 * Command lines that SPIRE's programs and ours must answer alike: output, errors, exit code, and the
 * calls they make. `SOCKET` and `DIR` stand for the canned server's socket and a scratch directory.
 */
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { formatPem } from '../../src/x509/pem.ts'
import { FIXTURES } from './cli-answers.ts'

export interface Invocation {
  readonly name: string
  readonly half: 'server' | 'agent'
  readonly args: readonly string[]
  readonly stdin?: string
  readonly env?: Readonly<Record<string, string>>
  /** Content of `DIR/c.conf`. */
  readonly config?: string
  /** Files made in `DIR`: compared by content and mode. */
  readonly files?: readonly string[]
}

const ID = 'spiffe://example.org/w'
const NODE = 'spiffe://example.org/node'
const AGENT_ID = 'spiffe://example.org/spire/agent/join_token/t1'
const CREATE = ['-parentID', NODE, '-spiffeID', ID, '-selector', 'unix:uid:0']
const ROOT_PEM = formatPem('CERTIFICATE', FIXTURES.root)
const JWKS = readFileSync(
  fileURLToPath(new URL('../vectors/cli/bundle.json', import.meta.url)),
  'utf8',
)

let count = 0
function both(half: 'server' | 'agent', line: string, more: readonly string[] = []): Invocation[] {
  return [one(half, line, more), one(half, `${line} -output json`, more)]
}

function one(
  half: 'server' | 'agent',
  line: string,
  more: readonly string[] = [],
  rest: Omit<Partial<Invocation>, 'args' | 'half' | 'name'> = {},
): Invocation {
  count += 1
  const args = [...line.split(' '), ...more, '-socketPath', 'SOCKET']
  const name = `${String(count).padStart(3, '0')} ${half} ${line} ${more.join(' ')}`.trim()
  return { name: name.replaceAll('\n', ' ').slice(0, 100), half, args, ...rest }
}

const ENTRY_FILE = JSON.stringify({
  entries: [
    {
      selectors: [{ type: 'unix', value: 'uid:1' }],
      spiffe_id: 'spiffe://example.org/from-file',
      parent_id: NODE,
      x509_svid_ttl: 10,
      jwt_svid_ttl: 20,
      federates_with: ['spiffe://other.example'],
      entryExpiry: 1_800_000_000,
      dns_names: ['x.example'],
      admin: true,
      store_svid: true,
      hint: 'h',
      additional_attributes: { jwt_svid_include_jti: true },
      unknown: 1,
    },
    { SPIFFE_ID: 'spiffe://example.org/refused', parent_id: NODE, selectors: null },
  ],
})

const ENTRY: readonly Invocation[] = [
  ...both('server', 'entry create', CREATE),
  ...both('server', 'entry create', [
    ...CREATE,
    '-selector=k8s:ns:a',
    '--dns',
    'a.example',
    '-dns=b.example',
    '-federatesWith',
    'spiffe://other.example',
    '-x509SVIDTTL',
    '0x3c',
    '-jwtSVIDTTL=30',
    '-admin',
    '-downstream=true',
    '-storeSVID=1',
    '-entryExpiry',
    '1800000000',
    '-hint',
    'external',
    '-entryID',
    'mine',
    '-disableX509SVIDPrefetch',
    '-jwtSVIDIncludeJTI',
  ]),
  one('server', 'entry create', ['-node', '-spiffeID', ID, '-selector', 'x:y']),
  ...both('server', 'entry create', [
    '-parentID',
    NODE,
    '-spiffeID',
    `${NODE.slice(0, -5)}/refused`,
    '-selector',
    'a:b',
  ]),
  one('server', 'entry create', ['-data', '-'], { stdin: ENTRY_FILE }),
  one('server', 'entry create', ['-data', '-', '-output', 'json'], { stdin: ENTRY_FILE }),
  one('server', 'entry create', ['-data', 'DIR/missing.json']),
  one('server', 'entry create'),
  one('server', 'entry create', ['-selector', 'a:b']),
  one('server', 'entry create', ['-selector', 'a:b', '-parentID', NODE]),
  one('server', 'entry create', ['-selector', 'a:b', '-node', '-federatesWith', 'x']),
  one('server', 'entry create', [...CREATE, '-x509SVIDTTL', '-1']),
  one('server', 'entry create', [...CREATE, '-jwtSVIDTTL', '-1']),
  one('server', 'entry create', [...CREATE, '-x509SVIDTTL', '99999999999']),
  one('server', 'entry create', [
    '-parentID',
    NODE,
    '-spiffeID',
    'example.org/w',
    '-selector',
    'a:b',
  ]),
  one('server', 'entry create', ['-parentID', 'x', '-spiffeID', ID, '-selector', 'a:b']),
  one('server', 'entry create', ['-parentID', NODE, '-spiffeID', ID, '-selector', 'nocolon']),
  ...both('server', 'entry update', ['-entryID', 'entry-full', ...CREATE]),
  one('server', 'entry update', ['-entryID', 'entry-full', ...CREATE, '-disableX509SVIDPrefetch']),
  one('server', 'entry update', ['-entryID', 'entry-full', ...CREATE, '-jwtSVIDIncludeJTI=false']),
  one('server', 'entry update', ['-entryID', 'nope', ...CREATE, '-jwtSVIDIncludeJTI']),
  one('server', 'entry update', [
    '-entryID',
    'e',
    '-parentID',
    NODE,
    '-spiffeID',
    'spiffe://example.org/refused',
    '-selector',
    'a:b',
  ]),
  one('server', 'entry update', CREATE),
  one('server', 'entry update', ['-entryID', 'e']),
  one('server', 'entry update', ['-entryID', 'e', '-selector', 'a:b']),
  one('server', 'entry update', ['-data', '-'], { stdin: ENTRY_FILE }),
  ...both('server', 'entry show'),
  ...both('server', 'entry show -entryID entry-full'),
  one('server', 'entry show -entryID nope'),
  one('server', 'entry show -entryID nope -output json'),
  one('server', 'entry show', ['-entryID', 'x', '-spiffeID', ID]),
  ...both('server', 'entry show -hint none'),
  one('server', 'entry show', [
    '-parentID',
    NODE,
    '-spiffeID',
    ID,
    '-selector',
    'a:b:c',
    '-matchSelectorsOn',
    'exact',
    '-federatesWith',
    'other.example',
    '-matchFederatesWithOn=any',
    '-downstream',
  ]),
  one('server', 'entry show', ['-selector', 'a:b', '-matchSelectorsOn', 'some']),
  one('server', 'entry show', ['-federatesWith', 'a', '-matchFederatesWithOn', 'some']),
  one('server', 'entry show', ['-selector', 'nocolon']),
  one('server', 'entry show', ['-parentID', 'bad']),
  one('server', 'entry show', ['-spiffeID', 'spiffe://example.org/a//b']),
  ...both('server', 'entry count'),
  ...both('server', 'entry count -hint h -downstream'),
  one('server', 'entry count', ['-parentID', 'bad']),
  ...both('server', 'entry delete -entryID some'),
  ...both('server', 'entry delete -entryID missing'),
  one('server', 'entry delete'),
  one('server', 'entry delete -file -', [], { stdin: '{"ids":["a","missing","b"]}' }),
  one('server', 'entry delete -file - -output json', [], { stdin: '{"ids":["a","missing"]}' }),
]

const AGENTS: readonly Invocation[] = [
  ...both('server', 'agent list'),
  ...both('server', 'agent list -attestationType none'),
  one('server', 'agent list', ['-attestationType', 'x509pop']),
  one('server', 'agent list', [
    '-selector',
    'a:b',
    '-matchSelectorsOn',
    'subset',
    '-canReattest',
    'true',
    '-banned=false',
    '-expiresBefore',
    '2026-01-02 15:04:05 +0100 +01',
  ]),
  one('server', 'agent list', ['-canReattest', 'maybe', '-selector', 'nocolon']),
  one('server', 'agent list', ['-selector', 'a:b', '-matchSelectorsOn', 'some']),
  ...both('server', 'agent count'),
  ...both('server', `agent show -spiffeID ${AGENT_ID}`),
  ...both('server', 'agent show -spiffeID spiffe://example.org/spire/agent/x509pop/abc'),
  one('server', 'agent show -spiffeID spiffe://example.org/spire/agent/none'),
  one('server', 'agent show'),
  one('server', 'agent show -spiffeID bad'),
  ...both('server', `agent ban -spiffeID ${AGENT_ID}`),
  one('server', 'agent ban'),
  one('server', 'agent ban -spiffeID spiffe://example.org/none'),
  ...both('server', `agent evict -spiffeID ${AGENT_ID}`),
  one('server', 'agent evict'),
  ...both('server', 'agent purge'),
  ...both('server', 'agent purge -dryRun'),
  ...both('server', 'agent purge -expiredFor 100000h'),
]

const BUNDLES: readonly Invocation[] = [
  ...both('server', 'bundle show'),
  one('server', 'bundle show -format spiffe'),
  one('server', 'bundle show -format SPIFFE'),
  one('server', 'bundle show -format der'),
  ...both('server', 'bundle list'),
  one('server', 'bundle list -format spiffe'),
  ...both('server', 'bundle list -id other.example'),
  one('server', 'bundle list -id missing.example'),
  one('server', 'bundle set -id other.example', [], { stdin: ROOT_PEM }),
  one('server', 'bundle set -id other.example -output json', [], { stdin: ROOT_PEM }),
  one('server', 'bundle set -id spiffe://other.example -format spiffe', [], { stdin: JWKS }),
  one('server', 'bundle set -id refused.example', [], { stdin: ROOT_PEM }),
  one('server', 'bundle set -id other.example', [], { stdin: 'no pem' }),
  one('server', 'bundle set -id other.example -path DIR/missing'),
  one('server', 'bundle set'),
  one('server', 'bundle set -id x -format der'),
  ...both('server', 'bundle delete -id other.example'),
  one('server', 'bundle delete -id other.example -mode dissociate'),
  one('server', 'bundle delete -id other.example -mode delete'),
  one('server', 'bundle delete -id missing.example'),
  one('server', 'bundle delete -id other.example -mode hard'),
  one('server', 'bundle delete'),
  ...both('server', 'bundle count'),
]

const MINTING: readonly Invocation[] = [
  ...both('server', 'x509 mint -spiffeID spiffe://example.org/workload -dns a.example -ttl 90s'),
  one('server', 'x509 mint -spiffeID spiffe://example.org/workload -write DIR', [], {
    files: ['svid.pem', 'key.pem', 'bundle.pem'],
  }),
  one('server', 'x509 mint -spiffeID spiffe://example.org/workload -ttl 1000000h'),
  one('server', 'x509 mint'),
  one('server', 'x509 mint -spiffeID bad'),
  ...both('server', `jwt mint -spiffeID ${ID} -audience aud1 -audience aud2 -ttl 1m30.5s`),
  one('server', `jwt mint -spiffeID ${ID} -audience aud1 -write DIR/token`, [], {
    files: ['token'],
  }),
  one('server', `jwt mint -spiffeID ${ID} -audience aud1 -ttl 1000000h`),
  one('server', `jwt mint -spiffeID ${ID}`),
  one('server', 'jwt mint -audience a'),
  ...both('server', 'token generate'),
  ...both('server', `token generate -spiffeID ${ID} -ttl 60`),
  one('server', 'token generate -ttl 0'),
  one('server', 'token generate -ttl 99999999999'),
  one('server', 'token generate -spiffeID bad'),
]

const REST: readonly Invocation[] = [
  one('server', 'healthcheck'),
  one('server', 'healthcheck -verbose -shallow'),
  ...both('server', 'debug getinfo'),
  one('agent', 'healthcheck'),
  one('agent', 'healthcheck -verbose'),
  ...both('agent', 'debug getinfo'),
  one('agent', 'api fetch'),
  ...both('agent', 'api fetch x509'),
  one('agent', 'api fetch x509 -silent'),
  one('agent', 'api fetch x509 -silent -write DIR', [], {
    files: ['svid.0.pem', 'svid.0.key', 'bundle.0.pem', 'federated_bundle.0.0.pem'],
  }),
  ...both('agent', 'api fetch jwt -audience aud1,aud2'),
  one('agent', `api fetch jwt -audience aud1 -spiffeID ${ID} -timeout 3s`),
  one('agent', 'api fetch jwt -audience aud1 -format json'),
  one('agent', 'api fetch jwt -audience nobody'),
  one('agent', 'api fetch jwt'),
  one('agent', 'api validate jwt -audience aud1 -svid t -output json'),
  one('agent', 'api validate jwt -audience wrong -svid t'),
  one('agent', 'api validate jwt -audience down -svid t'),
  one('agent', 'api validate jwt -svid t'),
  one('agent', 'api validate jwt -audience a'),
  bare('server', ['entry', 'count', '-socketPath', '/nonexistent/dir/sock']),
  bare('server', ['healthcheck', '-socketPath', '/nonexistent/dir/sock', '-verbose']),
  bare('agent', ['healthcheck', '-socketPath', '/nonexistent/dir/sock', '-verbose']),
  bare('agent', ['api', 'fetch', 'jwt', '-audience', 'a', '-socketPath', '/nonexistent/dir/sock']),
  bare('server', ['entry', 'count'], { SPIRE_SERVER_PRIVATE_SOCKET: 'SOCKET' }),
  bare('server', ['entry', 'count', '-instance', 's'], {
    SPIRE_SERVER_PRIVATE_SOCKET_TEMPLATE: 'DIR/%i',
  }),
  bare('server', ['entry', 'count', '-instance', 's']),
  bare('server', ['entry', 'count', '-instance', 's'], {
    SPIRE_SERVER_PRIVATE_SOCKET_TEMPLATE: 'DIR/none',
  }),
  bare('agent', ['healthcheck'], { SPIRE_AGENT_PUBLIC_SOCKET: 'SOCKET' }),
  bare('agent', ['healthcheck', '-instance', 's'], {
    SPIRE_AGENT_PUBLIC_SOCKET_TEMPLATE: 'DIR/%i',
  }),
  bare('agent', ['healthcheck', '-instance', 's']),
]

function bare(
  half: 'server' | 'agent',
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
): Invocation {
  count += 1
  const name = `${String(count).padStart(3, '0')} ${half} ${args.join(' ')} ${Object.keys(env)}`
  return { name: name.trim(), half, args, env }
}

/** Flag mistakes: the first line is compared, the usage below it is each program's own. */
export const FLAG_MISTAKES: readonly Invocation[] = [
  bare('server', ['entry', 'show', '-foo']),
  bare('server', ['entry', 'show', '--foo=1']),
  bare('server', ['entry', 'show', '-spiffeID']),
  bare('server', ['entry', 'show', '-downstream=maybe']),
  bare('server', ['entry', 'create', '-x509SVIDTTL', 'ten']),
  bare('server', ['entry', 'create', '-x509SVIDTTL', '99999999999999999999']),
  bare('server', ['entry', 'show', '---x']),
  bare('server', ['entry', 'show', '-=x']),
  bare('server', ['entry', 'show', '-output', 'xml']),
  bare('server', ['entry', 'show', '-output', 'json', '-output', 'pretty']),
  bare('server', ['x509', 'mint', '-ttl', 'soon']),
  bare('server', ['agent', 'purge', '-expiredFor', 'soon']),
  bare('agent', ['api', 'fetch', 'jwt', '-timeout', 'soon']),
  bare('agent', ['api', 'watch', '-foo']),
  bare('agent', ['healthcheck', '-foo']),
  bare('server', ['run', '-foo']),
  bare('agent', ['run', '-foo']),
  bare('server', ['validate', '-foo']),
  bare('agent', ['validate', '-foo']),
]

const SERVER_KEYS = 'trust_domain = "example.org" data_dir = "DIR/d"'
const SERVER_PLUGINS = `plugins {
  DataStore "sql" { plugin_data { database_type = "sqlite3" connection_string = "DIR/x" } }
  KeyManager "memory" { plugin_data {} }
}`
const AGENT_KEYS = `trust_domain = "example.org" server_address = "s" server_port = 1
  trust_bundle_path = "b" data_dir = "DIR/d"`
const AGENT_PLUGINS = `plugins {
  NodeAttestor "join_token" { plugin_data {} }
  KeyManager "memory" { plugin_data {} }
  WorkloadAttestor "unix" { plugin_data {} }
}`
const serverFile = (keys: string) => `server { ${keys} }\n${SERVER_PLUGINS}`
const agentFile = (keys: string) => `agent { ${keys} }\n${AGENT_PLUGINS}`

function configured(
  half: 'server' | 'agent',
  verb: 'run' | 'validate',
  config: string | undefined,
  more: readonly string[] = [],
): Invocation {
  count += 1
  const number = String(count).padStart(3, '0')
  const args = [verb, '-config', 'DIR/c.conf', ...more]
  const name = `${number} ${half} ${verb} ${(config ?? 'no file').split('\n')[0]}`
  return config === undefined ? { name, half, args } : { name, half, args, config }
}

/** Files that both programs judge alike, in the same words. */
export const CONFIG_FILES: readonly Invocation[] = [
  configured('server', 'validate', serverFile(SERVER_KEYS)),
  configured('server', 'validate', undefined),
  configured('server', 'run', undefined),
  configured(
    'server',
    'run',
    serverFile(`${SERVER_KEYS} b = 1 a = 2 ca_subject { country = ["US"] c = 1 }`),
  ),
  configured('server', 'run', serverFile('trust_domain = "example.org"')),
  configured('server', 'validate', serverFile('data_dir = "x"')),
  configured('server', 'validate', serverFile(`${SERVER_KEYS} admin_ids = ["x"]`)),
  configured('server', 'validate', serverFile(`${SERVER_KEYS} agent_ttl = "soon"`)),
  configured('server', 'validate', serverFile(`${SERVER_KEYS} ca_key_type = "dsa"`)),
  configured('server', 'validate', serverFile(`${SERVER_KEYS} log_level = "loud"`)),
  configured('server', 'validate', serverFile(SERVER_KEYS), ['-logFormat', 'xml']),
  configured('server', 'validate', SERVER_PLUGINS),
  configured('agent', 'validate', agentFile(AGENT_KEYS)),
  configured('agent', 'validate', AGENT_PLUGINS),
  configured('agent', 'validate', undefined),
  configured('agent', 'run', undefined),
  configured('agent', 'run', agentFile(`${AGENT_KEYS} b = 1 a = 2`)),
  configured('agent', 'validate', agentFile(`${AGENT_KEYS} b = 1`)),
  configured('agent', 'validate', agentFile('trust_domain = "example.org"')),
  configured('agent', 'validate', agentFile(AGENT_KEYS), ['-insecureBootstrap']),
  configured('agent', 'validate', agentFile(AGENT_KEYS), ['-rebootstrapMode', 'often']),
  configured('agent', 'validate', agentFile(`${AGENT_KEYS} availability_target = "1h"`)),
  configured(
    'agent',
    'validate',
    agentFile(`${AGENT_KEYS} join_token = "a" join_token_file = "b"`),
  ),
  configured('agent', 'validate', agentFile(`${AGENT_KEYS} authorized_delegates = ["x"]`)),
]

/** Calls that name no command, or ask for help: only exit codes are alike. */
export const NO_COMMAND: readonly Invocation[] = [
  bare('server', []),
  bare('server', ['-h']),
  bare('server', ['--version']),
  bare('server', ['nonsense']),
  bare('server', ['entry']),
  bare('server', ['entry', 'nonsense']),
  bare('server', ['entry', '-h']),
  bare('server', ['entry', 'create', '-h']),
  bare('server', ['-x', 'entry', 'show']),
  bare('server', ['localauthority', 'x509']),
  bare('agent', []),
  bare('agent', ['api']),
  bare('agent', ['api', 'fetch', 'x509', '-h']),
  bare('agent', ['run', '-h']),
]

export const CLI_TABLE: readonly Invocation[] = [
  ...ENTRY,
  ...AGENTS,
  ...BUNDLES,
  ...MINTING,
  ...REST,
]
