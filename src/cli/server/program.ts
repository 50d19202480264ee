/** All commands of `signet server` (features.md §3.2). */
import { later } from '../later.ts'
import { type Command, lazy, type Program } from '../program.ts'

const LATER = [
  'federation create',
  'federation delete',
  'federation list',
  'federation refresh',
  'federation show',
  'federation update',
  'localauthority jwt activate',
  'localauthority jwt prepare',
  'localauthority jwt revoke',
  'localauthority jwt show',
  'localauthority jwt taint',
  'localauthority x509 activate',
  'localauthority x509 prepare',
  'localauthority x509 revoke',
  'localauthority x509 show',
  'localauthority x509 taint',
  'logger get',
  'logger reset',
  'logger set',
  'upstreamauthority revoke',
  'upstreamauthority taint',
]

const COMMANDS: Readonly<Record<string, Command>> = {
  ...Object.fromEntries(LATER.map((name) => [name, later(name)])),
  validate: lazy(
    'Validates a SPIRE server configuration file',
    async () => (await import('./validate.ts')).serverValidate,
  ),
  healthcheck: lazy(
    'Determines server health status',
    async () => (await import('./health.ts')).serverHealthcheck,
  ),
  'token generate': lazy(
    'Generates a join token',
    async () => (await import('./token.ts')).tokenGenerate,
  ),
  'entry count': lazy(
    'Count registration entries',
    async () => (await import('./entry-read.ts')).entryCount,
  ),
  'entry create': lazy(
    'Creates registration entries',
    async () => (await import('./entry-write.ts')).entryCreate,
  ),
  'entry delete': lazy(
    'Deletes registration entries',
    async () => (await import('./entry-write.ts')).entryDelete,
  ),
  'entry show': lazy(
    'Displays configured registration entries',
    async () => (await import('./entry-read.ts')).entryShow,
  ),
  'entry update': lazy(
    'Updates registration entries',
    async () => (await import('./entry-write.ts')).entryUpdate,
  ),
  'agent ban': lazy(
    'Ban an attested agent given its SPIFFE ID',
    async () => (await import('./agent-write.ts')).agentBan,
  ),
  'agent count': lazy(
    'Count attested agents',
    async () => (await import('./agent-read.ts')).agentCount,
  ),
  'agent evict': lazy(
    'Evicts an attested agent given its SPIFFE ID',
    async () => (await import('./agent-write.ts')).agentEvict,
  ),
  'agent list': lazy(
    'Lists attested agents and their SPIFFE IDs',
    async () => (await import('./agent-read.ts')).agentList,
  ),
  'agent purge': lazy(
    'Deletes agents that expired long ago and can attest again',
    async () => (await import('./agent-write.ts')).agentPurge,
  ),
  'agent show': lazy(
    'Shows the details of an attested agent given its SPIFFE ID',
    async () => (await import('./agent-read.ts')).agentShow,
  ),
  'bundle count': lazy('Count bundles', async () => (await import('./bundle.ts')).bundleCount),
  'bundle delete': lazy(
    'Deletes federated bundle data',
    async () => (await import('./bundle.ts')).bundleDelete,
  ),
  'bundle list': lazy(
    'Lists federated bundle data',
    async () => (await import('./bundle.ts')).bundleList,
  ),
  'bundle set': lazy(
    'Creates or updates federated bundle data',
    async () => (await import('./bundle.ts')).bundleSet,
  ),
  'bundle show': lazy(
    'Prints server CA bundle to stdout',
    async () => (await import('./bundle.ts')).bundleShow,
  ),
  'x509 mint': lazy('Mints an X509-SVID', async () => (await import('./mint.ts')).x509Mint),
  'jwt mint': lazy('Mints a JWT-SVID', async () => (await import('./mint.ts')).jwtMint),
  'debug getinfo': lazy(
    'Prints debug information about the server',
    async () => (await import('./health.ts')).debugGetInfo,
  ),
}

export function serverProgram(version: string, run: Command): Program {
  return { name: 'signet server', version, commands: { ...COMMANDS, run } }
}
