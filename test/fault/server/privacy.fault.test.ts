/**
 * Canaries (I9, T-W5, T-D4): keys and tokens of a running server and agent are in no log, metric, error
 * text, database file or core dump, and neither another user nor a debugger gets at them.
 */

import { execFileSync } from 'node:child_process'
import { createPrivateKey, generateKeyPairSync, sign } from 'node:crypto'
import {
  chmodSync,
  chownSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { type Client, credentials, Metadata, status } from '@grpc/grpc-js'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { AgentService } from '../../../src/wire/gen/spire/api/server/agent/v1/agent.ts'
import { EntryService } from '../../../src/wire/gen/spire/api/server/entry/v1/entry.ts'
import { SVIDService } from '../../../src/wire/gen/spire/api/server/svid/v1/svid.ts'
import { SpiffeWorkloadAPIService } from '../../../src/wire/gen/workload.ts'
import { attestWithToken } from '../../interop/raw-client.ts'
import { freePort, PROJECT_DIR } from '../../interop/rig.ts'
import { stealAuthorities } from '../../rigs/authority-keys.ts'
import {
  findInFiles,
  findSecrets,
  PRIVATE_KEY_SHAPES,
  type Secret,
  secretBytes,
  secretText,
} from '../../rigs/canaries.ts'
import { call, LiveServer } from '../../rigs/live-server.ts'
import { p256, signedCsr } from '../../rigs/odd-csr.ts'
import { Daemon } from '../../rigs/process.ts'
import { until } from '../../rigs/until.ts'

const asRoot = process.geteuid?.() === 0
if (!asRoot) console.warn('NOT RUN: what another user can reach, because this is not root')
const KEYS = 'KeyManager "memory" { plugin_data {} }'
const NOBODY = { uid: 65_534, gid: 65_534, cwd: '/' }

let server: LiveServer
let agentProcess: Daemon
let serverMetrics: number
let agentMetrics: number
const secrets: Secret[] = []
/** Texts that callers were answered with. */
const answers: string[] = []

beforeAll(async () => {
  serverMetrics = await freePort()
  server = await LiveServer.start({
    server: 'audit_log_enabled = true',
    blocks: prometheus(serverMetrics),
  })
  const { deployment } = server
  const redeemed = await deployment.joinToken('spiffe://example.org/node')
  const waiting = await deployment.joinToken()
  secrets.push(secretText('join token', redeemed), secretText('unredeemed join token', waiting))
  agentMetrics = await freePort()
  agentProcess = await deployment.startAgent('signet', {
    args: ['-joinToken', redeemed],
    blocks: prometheus(agentMetrics),
  })
  const kek = Buffer.from(readFileSync(join(server.dataDir, 'kek'), 'utf8'), 'base64')
  secrets.push(secretBytes('key-encryption key', kek))
  const password = readFileSync(join(server.postgresDir, 'password'), 'utf8')
  secrets.push(secretText('database password', password))
  await authorityKeys()
  agentKeys()
  await workload()
  await mistakes(waiting)
}, 120_000)
afterAll(() => server?.[Symbol.asyncDispose]())

function prometheus(port: number): string {
  return `telemetry { Prometheus { host = "127.0.0.1" port = ${port} } }`
}

/** Those that sign: they lie sealed in the database. */
async function authorityKeys(): Promise<void> {
  const authorities = await stealAuthorities(server)
  expect(authorities).toHaveLength(4)
  for (const { kind, clusterId, key } of authorities) {
    secrets.push(secretBytes(`key of ${kind} ${clusterId}`, privateScalar(key)))
  }
}

/** Of the agent's own SVID: its KeyManager alone holds them. */
function agentKeys(): void {
  const { keys } = JSON.parse(readFileSync(agentKeyFile(), 'utf8'))
  for (const der of Object.values<string>(keys)) {
    const key = createPrivateKey({ key: Buffer.from(der, 'base64'), format: 'der', type: 'pkcs8' })
    secrets.push(secretBytes('key of the agent', privateScalar(key)))
  }
}

function agentKeyFile(): string {
  return join(server.deployment.dir, 'a1', 'data', 'keys.json')
}

/** A workload's identities of both kinds. */
async function workload(): Promise<void> {
  const { deployment } = server
  await deployment.createEntry([
    ...['-parentID', 'spiffe://example.org/node', '-spiffeID', 'spiffe://example.org/w'],
    ...['-selector', `unix:uid:${process.getuid?.()}`],
  ])
  const api = server.client(`unix:${deployment.agentSocket()}`, credentials.createInsecure())
  const { fetchX509Svid, fetchJwtsvid } = SpiffeWorkloadAPIService
  const svid = await until('an identity', async () => {
    const got = await first(api, fetchX509Svid, {})
    return got.value?.svids[0]
  })
  const key = createPrivateKey({ key: Buffer.from(svid.x509SvidKey), format: 'der', type: 'pkcs8' })
  const scalar = Buffer.from(key.export({ format: 'jwk' }).d!, 'base64url')
  secrets.push(secretBytes('key of an SVID', scalar))
  const jwt = await first(api, fetchJwtsvid, { audience: ['canary'], spiffeId: '' })
  const token = jwt.value!.svids[0]!.svid
  secrets.push(secretText('JWT-SVID', token.split('.')[2]!))
  const broken = token.slice(0, -8)
  const { validateJwtsvid } = SpiffeWorkloadAPIService
  for (const svid of [token, broken, `${token}x`, `x${token}`]) {
    answers.push((await first(api, validateJwtsvid, { svid, audience: 'canary' })).error)
    answers.push((await first(api, validateJwtsvid, { svid, audience: 'other' })).error)
  }
}

/** What goes wrong with secrets in hand. */
async function mistakes(token: string): Promise<void> {
  const { admin, deployment } = server
  const again = { ttl: 600, token, agentId: undefined }
  answers.push((await call(admin, AgentService.createJoinToken, again)).details)
  const half = token.slice(0, -4)
  const attempt = attestWithToken(server.address, server.rootsPem, half, deployment.dir)
  answers.push(
    await attempt.then(
      () => 'attested',
      (error) => String(error),
    ),
  )
  const id = { trustDomain: 'example.org', path: '/m' }
  const minted = await call(admin, SVIDService.mintJwtsvid, { id, audience: ['a'], ttl: 60 })
  secrets.push(secretText('minted JWT-SVID', minted.value!.svid!.token.split('.')[2]!))
  const pair = p256()
  secrets.push(secretBytes('key of a CSR', privateScalar(pair.key)))
  const csr = signedCsr(pair).subarray(0, -3)
  answers.push((await call(admin, SVIDService.mintX509Svid, { csr, ttl: 60 })).details)
}

function privateScalar(key: ReturnType<typeof createPrivateKey>): Buffer {
  return Buffer.from(key.export({ format: 'jwk' }).d!, 'base64url')
}

/** The first message of a Workload API call, or its error. */
function first<Request, Response>(
  client: Client,
  method: {
    readonly path: string
    readonly responseStream: boolean
    readonly requestSerialize: (value: Request) => Buffer
    readonly responseDeserialize: (bytes: Buffer) => Response
  },
  request: Request,
): Promise<{ value: Response | undefined; error: string }> {
  const metadata = new Metadata()
  metadata.set('workload.spiffe.io', 'true')
  return new Promise((resolve) => {
    // A unary answer is a stream of one.
    const stream = client.makeServerStreamRequest(
      method.path,
      method.requestSerialize,
      method.responseDeserialize,
      request,
      metadata,
      { deadline: Date.now() + 10_000 },
    )
    stream.once('data', (value: Response) => {
      resolve({ value, error: '' })
      stream.cancel()
    })
    stream.on('error', (error) => resolve({ value: undefined, error: error.message }))
  })
}

test('the search finds what is there', () => {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const scalar = secretBytes('scalar', privateScalar(privateKey))
  const pem = privateKey.export({ type: 'pkcs8', format: 'pem' })
  const sec1 = privateKey.export({ type: 'sec1', format: 'der' })
  const everything = [scalar, ...PRIVATE_KEY_SHAPES]
  expect(findSecrets(pem, everything)).toEqual(['scalar', 'PKCS#8 P-256', 'PEM'])
  expect(findSecrets(sec1, everything)).toEqual(['scalar', 'SEC1 P-256'])
  expect(findSecrets(sec1.toString('hex'), everything)).toEqual(['scalar', 'SEC1 P-256'])
  expect(findSecrets(`..${sec1.toString('base64')}`, [scalar])).toEqual(['scalar'])
  expect(findSecrets(sign('sha256', Buffer.from('x'), privateKey), everything)).toEqual([])
})

test('no secret in the logs, at DEBUG', () => {
  // The redeemed token is the agent's name from then on, by SPIRE's rule.
  const all = [...secrets.filter(({ name }) => name !== 'join token'), ...PRIVATE_KEY_SHAPES]
  expect(secrets.map(({ name }) => name)).toHaveLength(13)
  expect(server.daemon.output).toContain('level=debug')
  expect(findSecrets(server.daemon.output, all)).toEqual([])
  expect(agentProcess.output).toContain('level=debug')
  expect(findSecrets(agentProcess.output, all)).toEqual([])
  const postgresLog = readFileSync(join(server.postgresDir, 'postgres.log'))
  expect(findSecrets(postgresLog, all)).toEqual([])
})

test('no secret in what callers were told', () => {
  expect(answers.filter((text) => text !== '')).not.toHaveLength(0)
  expect(answers).not.toContain('attested')
  for (const text of answers)
    expect(findSecrets(text, [...secrets, ...PRIVATE_KEY_SHAPES])).toEqual([])
})

test('no secret in metrics', async () => {
  for (const port of [serverMetrics, agentMetrics]) {
    const text = await (await fetch(`http://127.0.0.1:${port}/metrics`)).text()
    expect(text.length).toBeGreaterThan(1_000)
    expect(findSecrets(text, [...secrets, ...PRIVATE_KEY_SHAPES])).toEqual([])
  }
})

test('no secret in the database files, the write-ahead log included', async () => {
  await server.rows('checkpoint')
  const data = join(server.postgresDir, 'data')
  // The search sees rows: this one is no secret.
  const id = secretText('an entry', 'spiffe://example.org/node')
  expect(findInFiles(data, [id]).length).toBeGreaterThan(1)
  const hidden = secrets.filter(({ name }) => name !== 'join token')
  expect(findInFiles(data, [...hidden, ...PRIVATE_KEY_SHAPES])).toEqual([])
}, 60_000)

test('no key in the files of the agent but its own in keys.json', () => {
  const own = secrets.filter(({ name }) => name !== 'join token')
  const found = findInFiles(join(server.deployment.dir, 'a1'), own)
  expect(found).toEqual([`${agentKeyFile()}: key of the agent`])
  expect(statSync(agentKeyFile()).mode & 0o777).toBe(0o600)
})

test('the processes leave no core', () => {
  for (const { pid } of [server.daemon, agentProcess]) {
    const limits = readFileSync(`/proc/${pid}/limits`, 'utf8')
    expect(limits).toMatch(/^Max core file size\s+0\s+0\s/m)
  }
})

test('nobody of the same user looks into the processes', async () => {
  const dir = mkdtempSync(join(tmpdir(), 'sn-'))
  if (asRoot) chownSync(dir, NOBODY.uid, NOBODY.gid)
  const block = (name: string, more: string) =>
    `${name} { trust_domain = "example.org" data_dir = "${dir}/${name}"
       socket_path = "${dir}/${name}.sock" ${more} }`
  const storage = 'DataStore "sql" { plugin_data { database_type = "sqlite3" } }'
  const unix = 'WorkloadAttestor "unix" { plugin_data {} }'
  const confs: [string, string, string][] = [
    [
      'server',
      `${block('server', 'bind_port = "0"')} plugins { ${storage} ${KEYS} }`,
      'Configured',
    ],
    [
      'agent',
      `${block('agent', 'server_address = "127.0.0.1" server_port = 1 insecure_bootstrap = true')}
       plugins { ${unix} ${KEYS} NodeAttestor "join_token" { plugin_data {} } }`,
      'Starting agent',
    ],
  ]
  try {
    for (const [half, conf, started] of confs) {
      writeFileSync(join(dir, `${half}.conf`), conf)
      const args = [half, 'run', '-config', join(dir, `${half}.conf`)]
      const options = asRoot ? { uid: NOBODY.uid, gid: NOBODY.gid, cwd: '/' } : {}
      await using daemon = Daemon.start(join(PROJECT_DIR, 'bin', 'signet'), args, options)
      await daemon.untilPrinted(started)
      // The kernel gives these files to root as soon as nobody else may read them.
      const owner = () => statSync(`/proc/${daemon.pid}/environ`).uid === 0
      await until(`${half} to be closed to its own user`, owner, 5_000)
    }
  } finally {
    rmSync(dir, { recursive: true })
  }
}, 60_000)

test.skipIf(!asRoot)('another user reaches neither database nor keys nor the admin socket', () => {
  const socket = join(server.postgresDir, 'socket', '.s.PGSQL.5432')
  const files = [
    join(server.dataDir, 'kek'),
    join(server.postgresDir, 'password'),
    join(server.postgresDir, 'data', 'PG_VERSION'),
    join(server.postgresDir, 'postgres.log'),
    join(server.deployment.dir, 'a1', 'data', 'agent-data.json'),
  ]
  const script = `
    const { connect } = require('net'), { readFileSync } = require('fs')
    for (const path of ${JSON.stringify([socket, server.deployment.serverSocket, server.deployment.adminSocket()])}) {
      connect(path).on('error', (e) => console.log(e.code)).on('connect', () => console.log('IN', path))
        .on('close', () => console.log('closed')).unref()
    }
    for (const path of ${JSON.stringify(files)}) {
      try { readFileSync(path); console.log('READ', path) } catch (e) { console.log(e.code) }
    }
    setTimeout(() => process.exit(), 1000)`
  const seen = execFileSync(process.execPath, ['-e', script], { ...NOBODY, encoding: 'utf8' })
  expect(seen).not.toMatch(/IN|READ/)
  expect(seen.match(/EACCES|ENOENT/g)?.length).toBe(8)
})

test.skipIf(!asRoot)('nor does it when the directories above stand open', () => {
  for (const dir of [
    server.deployment.dir,
    join(server.deployment.dir, 'server'),
    server.dataDir,
  ]) {
    chmodSync(dir, 0o755)
  }
  const script = `
    const { readFileSync } = require('fs')
    for (const path of process.argv.slice(1)) {
      try { readFileSync(path); console.log('READ', path) } catch (e) { console.log(e.code) }
    }`
  const files = [
    join(server.dataDir, 'kek'),
    join(server.postgresDir, 'password'),
    join(server.postgresDir, 'data', 'PG_VERSION'),
  ]
  const args = ['-e', script, ...files]
  const seen = execFileSync(process.execPath, args, { ...NOBODY, encoding: 'utf8' })
  expect(seen.trim().split('\n')).toEqual(['EACCES', 'EACCES', 'EACCES'])
  expect(dirname(files[0]!)).toBe(server.dataDir)
})

test('all went well meanwhile', async () => {
  const page = { pageSize: 0, pageToken: '', filter: undefined, outputMask: undefined }
  expect((await call(server.admin, EntryService.listEntries, page)).code).toBe(status.OK)
})
