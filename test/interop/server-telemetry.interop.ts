/**
 * What operators read of a running server (features.md §4): SPIRE's server and ours are asked the
 * same things, and their metrics, their audit records, their lines about authorities and their
 * health are compared.
 */
import { Client, credentials, type ServiceError } from '@grpc/grpc-js'
import { expect, test } from 'vitest'
import { AttestAgentResponse } from '../../src/wire/gen/spire/api/server/agent/v1/agent.ts'
import { GetAuthorizedEntriesResponse } from '../../src/wire/gen/spire/api/server/entry/v1/entry.ts'
import { MintX509SVIDResponse } from '../../src/wire/gen/spire/api/server/svid/v1/svid.ts'
import type { Daemon } from '../rigs/process.ts'
import { until } from '../rigs/until.ts'
import {
  type AuditedCall,
  attestCall,
  calls,
  type Door,
  ENTRY,
  entryCalls,
  GET_ENTRIES,
  LAST_CALL,
  type Material,
  makeMaterial,
  mintAdmin,
  TOKENS,
  tokenCalls,
} from './audited-calls.ts'
import { channelTo, derToPem } from './raw-client.ts'
import { Deployment, freePort, type Product } from './rig.ts'
import { labelFaults, metricFaults, type Scrape, scrape } from './series.ts'

type Line = Readonly<Record<string, unknown>>

interface Observed {
  readonly audit: readonly Line[]
  readonly lines: readonly Line[]
  readonly metrics: Scrape
  readonly health: readonly string[]
}

const CA_LINES = [
  'Preparing X509 CA',
  'X509 CA prepared',
  'X509 CA activated',
  'Successfully rotated X.509 CA',
  'Preparing JWT key',
  'JWT key prepared',
  'JWT key activated',
]
/** Fractions without idle zeros; none at all is possible, and rare. */
const TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d*[1-9])?(Z|[+-]\d\d:\d\d)$/

test('a server has SPIRE’s metrics, audit records, CA lines and health', async () => {
  const material = await makeMaterial()
  const [spire, signet] = await Promise.all([
    observe('spire', material),
    observe('signet', material),
  ])
  expect(signet.audit.map(comparable)).toEqual(spire.audit.map(comparable))
  expect(spire.audit.length).toBeGreaterThan(100)
  expect(metricFaults(spire.metrics, signet.metrics)).toEqual([])
  expect(labelFaults(spire.metrics, signet.metrics)).toEqual([])
  expect(spire.metrics.types.size).toBeGreaterThan(100)
  for (const message of CA_LINES) {
    const [theirs, ours] = [fieldsOf(spire, message), fieldsOf(signet, message)]
    expect(theirs.length, message).toBeGreaterThan(0)
    expect(ours, message).toEqual(theirs)
  }
  for (const { time } of [...spire.lines, ...signet.lines]) expect(time).toMatch(TIME)
  expect(signet.health).toEqual(spire.health)
}, 300_000)

async function observe(product: Product, material: Material): Promise<Observed> {
  await using deployment = await Deployment.create(product)
  const [metricsPort, healthPort] = [await freePort(), await freePort()]
  const server = await deployment.startServer({
    server: `log_format = "json" audit_log_enabled = true ca_ttl = "60s"
      admin_ids = ["spiffe://example.org/admin"]`,
    blocks: `telemetry { Prometheus { host = "127.0.0.1" port = ${metricsPort} } }
      health_checks { listener_enabled = true bind_port = "${healthPort}" }`,
  })
  await makeCalls(deployment, material)
  await until('the last record', () => server.output.includes('last-call'))
  const audit = linesOf(server).filter(isAsked).filter(isNoRepetition)
  await followAgent(deployment)
  // Both A and B have been in use, and so have the three authorities of ours.
  const rotated = () => linesOf(server).filter(({ msg }) => msg === 'JWT key activated').length > 1
  await until('the authorities to rotate', rotated, 120_000)
  const health = ['live', 'ready'].map(async (path) => {
    const answer = await fetch(`http://127.0.0.1:${healthPort}/${path}`)
    return `${answer.status} ${answer.headers.get('content-type')} ${await answer.text()}`
  })
  return {
    audit,
    lines: linesOf(server),
    metrics: await scrape(metricsPort, 'spire_server_'),
    health: await Promise.all(health),
  }
}

async function makeCalls(deployment: Deployment, material: Material): Promise<void> {
  const roots = await deployment.serverOk(['bundle', 'show'])
  const clients = new Map<Door, Client>()
  const open = (door: Door, chain?: readonly Uint8Array[], keyPem = '') => {
    const chainPem = chain?.map(derToPem).join('')
    const channel =
      chainPem === undefined
        ? channelTo(roots)
        : channelTo(roots, { spiffeId: '', keyPem, chainPem })
    const options = { 'grpc.use_local_subchannel_pool': 1 }
    clients.set(door, new Client(`localhost:${deployment.port}`, channel, options))
  }
  clients.set('local', new Client(`unix:${deployment.serverSocket}`, credentials.createInsecure()))
  open('nobody')
  const make = (one: AuditedCall) => send(clients.get(one.door)!, one)
  try {
    for (const one of tokenCalls()) await make(one)
    for (const door of ['agent', 'banned'] as const) {
      const { csr, keyPem } = material[door]
      const answer = await make(attestCall(TOKENS[door], csr))
      open(door, AttestAgentResponse.decode(answer!).result?.svid?.certChain, keyPem)
    }
    const minted = await make(mintAdmin(material))
    open('admin', MintX509SVIDResponse.decode(minted!).svid?.certChain, material.admin.keyPem)
    for (const one of entryCalls()) await make(one)
    await until('the entry to be served', async () => {
      const { entries } = GetAuthorizedEntriesResponse.decode((await make(GET_ENTRIES))!)
      return entries.some(({ id }) => id === ENTRY)
    })
    for (const one of calls(material)) await make(one)
    await make(LAST_CALL)
  } finally {
    for (const client of clients.values()) client.close()
  }
}

/** The first message of the answer; undefined for a refusal. */
function send(client: Client, one: AuditedCall): Promise<Buffer | undefined> {
  const same = (bytes: Buffer) => bytes
  return new Promise((resolve) => {
    if (!one.streams) {
      const done = (error: ServiceError | null, value?: Buffer) =>
        resolve(error === null ? value : undefined)
      client.makeUnaryRequest(one.path, same, same, one.message, done)
      return
    }
    const stream = client.makeBidiStreamRequest<Buffer, Buffer>(one.path, same, same)
    let first: Buffer | undefined
    stream.on('data', (bytes: Buffer) => {
      first ??= bytes
      stream.end()
    })
    // Only when it has ended is it on record.
    stream.on('end', () => resolve(first))
    stream.on('error', () => resolve(undefined))
    stream.write(one.message)
  })
}

/** A real agent with a workload: what it does is counted. */
async function followAgent(deployment: Deployment): Promise<void> {
  const node = 'spiffe://example.org/node/real'
  const token = await deployment.joinToken(node)
  await deployment.startAgent('spire', { args: ['-joinToken', token] })
  const entry = ['-parentID', node, '-spiffeID', 'spiffe://example.org/real']
  await deployment.createEntry([...entry, '-selector', `unix:uid:${process.getuid?.()}`])
  const fetched = async (...args: string[]) =>
    (await deployment.agent('spire', ['api', 'fetch', ...args])).code === 0
  await until('an identity', () => fetched('x509'), 60_000)
  expect(await fetched('jwt', '-audience', 'a')).toBe(true)
}

function linesOf(server: Daemon): Line[] {
  const whole = server.output.slice(0, server.output.lastIndexOf('\n'))
  return whole.split('\n').map((line) => JSON.parse(line) as Line)
}

/** Records of what the test asked: not those of health checks, by the program or its command. */
function isAsked({ type, service, authorized_as, caller_uid }: Line): boolean {
  const isOwnCheck = authorized_as === 'nobody' && caller_uid !== undefined
  return type === 'audit' && service !== 'Health' && !isOwnCheck
}

/** The one call that was made until its answer was the wanted one. */
function isNoRepetition({ method }: Line, i: number, all: readonly Line[]): boolean {
  return method !== 'GetAuthorizedEntries' || all[i - 1]?.method !== method
}

/** A record without what differs from run to run, and where the text is Go’s parser’s. */
function comparable(record: Line): Line {
  const { time: _time, request_id, caller_addr, caller_path: _path, ...rest } = record
  expect(request_id).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-4/)
  const message = String(rest.status_message ?? '')
  return {
    ...rest,
    ...(caller_addr !== undefined && { caller_addr: String(caller_addr).replace(/:\d+$/, '') }),
    ...(message !== '' && { status_message: message.replace(FOREIGN_TEXT, '$1') }),
    ...(isOwnTime(rest.expires_at) && { expires_at: typeof rest.expires_at }),
    // Differs from SPIRE: in JSON too the text that SPIRE has in its text form, where it dumps a
    // Go struct.
    ...('subject' in rest && { subject: '' }),
  }
}

const FOREIGN_TEXT =
  /^(.*(?:malformed CSR|failed to parse CSR|X.509 authority)): (?:asn1|x509|malformed).*$/

function isOwnTime(value: unknown): boolean {
  return typeof value === 'string' ? TIME.test(value) : Number(value) > 0 && value !== 4e9
}

/** Names of the fields of that line, with the form of each value; of all forms it comes in. */
function fieldsOf({ lines }: Observed, message: string): string[] {
  const forms = lines
    .filter(({ msg }) => msg === message)
    .map(({ reason: _ours, ...line }) =>
      Object.keys(line)
        .sort()
        .map((key) => `${key}:${TIME.test(String(line[key])) ? 'time' : typeof line[key]}`),
    )
  return [...new Set(forms.map((form) => form.join(' ')))]
}
