/** All commands of `signet agent` (features.md §3.3). */
import { later } from '../later.ts'
import { type Command, lazy, type Program } from '../program.ts'

const LATER = ['logger get', 'logger reset', 'logger set']

const COMMANDS: Readonly<Record<string, Command>> = {
  ...Object.fromEntries(LATER.map((name) => [name, later(name)])),
  validate: lazy(
    'Validates a SPIRE agent configuration file',
    async () => (await import('./validate.ts')).agentValidate,
  ),
  healthcheck: lazy(
    'Determines agent health status',
    async () => (await import('./healthcheck.ts')).agentHealthcheck,
  ),
  'api fetch': lazy(
    'Fetches X509 SVIDs from the Workload API',
    async () => (await import('./fetch-x509.ts')).fetchX509,
  ),
  'api fetch x509': lazy(
    'Fetches X509 SVIDs from the Workload API',
    async () => (await import('./fetch-x509.ts')).fetchX509,
  ),
  'api fetch jwt': lazy(
    'Fetches a JWT SVID from the Workload API',
    async () => (await import('./jwt.ts')).fetchJwt,
  ),
  'api validate jwt': lazy(
    'Validates a JWT SVID',
    async () => (await import('./jwt.ts')).validateJwt,
  ),
  'api watch': lazy(
    "Attaches to the Workload API and prints updates as they're received",
    async () => (await import('./watch.ts')).watch,
  ),
  'debug getinfo': lazy(
    'Prints debug information about the agent',
    async () => (await import('./debug.ts')).agentDebugGetInfo,
  ),
}

export function agentProgram(version: string, run: Command): Program {
  return { name: 'signet agent', version, commands: { ...COMMANDS, run } }
}
