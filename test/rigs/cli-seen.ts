/** What a command line left behind, made comparable between runs. */
import { existsSync, readFileSync, statSync } from 'node:fs'
import type { Asked, CannedApis } from './canned-apis.ts'

export interface Seen {
  readonly code: number
  readonly stdout: string
  readonly stderr: string
  readonly files: Readonly<Record<string, string>>
  readonly asked: readonly Asked[]
}

/** `-instance s` finds the canned socket in its own directory. */
export function filled(text: string, apis: CannedApis, dir: string): string {
  const own = text.includes('%i') ? apis.dir : dir
  return text.replaceAll('SOCKET', apis.socketPath).replaceAll('DIR', own)
}

export function fileFacts(path: string): string {
  if (!existsSync(path)) return 'missing'
  const mode = (statSync(path).mode & 0o777).toString(8)
  return `${mode} ${readFileSync(path, 'utf8')}`
}

/** What differs from run to run by nature: times taken, keys made, requests signed. */
export function normalized(seen: Seen, apis: CannedApis, dir: string): Seen {
  const clean = (raw: string) =>
    raw
      .replaceAll(dir, 'DIR')
      .replaceAll(apis.socketPath, 'SOCKET')
      .replaceAll(apis.dir, 'APIS')
      .replace(/time="[^"]+"/g, 'time="T"')
      .replace(/after [0-9.µmns]+\n/, 'after SOME-TIME\n')
      .replace(/-----BEGIN PRIVATE KEY-----[^-]+/g, '-----BEGIN PRIVATE KEY-----KEY')
      .replace(/"private_key":"[^"]+"/, '"private_key":"KEY"')
      .replace(/"csr":"[^"]+"/, '"csr":"CSR"')
  const cleanAll = <T>(value: T): T =>
    JSON.parse(JSON.stringify(value), (_, inner) =>
      typeof inner === 'string' ? clean(inner) : inner,
    )
  return {
    ...cleanAll({ ...seen, asked: [] }),
    asked: seen.asked.map((one) => ({ ...one, request: withoutCsr(one.request) })),
  }
}

function withoutCsr(request: unknown): unknown {
  const isObject = typeof request === 'object' && request !== null
  return isObject && 'csr' in request ? { ...request, csr: 'CSR' } : request
}

/** Everything but the usage, whose words are each program's own. */
export function complaints(stderr: string): string[] {
  return stderr.split('\n').filter((line) => !/^ {2}-|^\s+\t/.test(line))
}
