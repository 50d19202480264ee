import { spawn } from 'node:child_process'
import { chmodSync, existsSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { constants } from 'node:os'
import { dirname, join } from 'node:path'
import { Client, credentials } from '@grpc/grpc-js'
import { expect, test } from 'vitest'
import { BundleService } from '../../../src/wire/gen/spire/api/server/bundle/v1/bundle.ts'
import type { Bundle } from '../../../src/wire/gen/spire/api/types/bundle.ts'
import { attestWithToken } from '../../interop/raw-client.ts'
import { Deployment, freePort, program } from '../../interop/rig.ts'
import { startOwnPostgres } from '../../rigs/own-postgres.ts'
import { Daemon, run } from '../../rigs/process.ts'
import { until } from '../../rigs/until.ts'

/** The server as a process of its own, started from SPIRE's configuration files and ended hard. */

test('serves both doors from a plain SPIRE file, stops on SIGTERM and comes back the same', async () => {
  await using deployment = await Deployment.create('signet')
  const healthPort = await freePort()
  const server = await deployment.startServer({
    blocks: `health_checks { listener_enabled = true bind_port = "${healthPort}" }`,
  })
  expect(server.output.match(/msg="Starting Server APIs"/g)).toHaveLength(2)
  // What the file means here is said once each.
  expect(server.output.match(/with sqlite3 means the embedded PostgreSQL/g)).toHaveLength(1)
  expect(server.output.match(/KeyManager \\"disk\\" means \\"sealed\\"/g)).toHaveLength(1)
  await until('readiness', async () => (await health(healthPort, 'ready')) === 200, 10_000)

  const pem = await deployment.serverOk(['bundle', 'show'])
  const overTls = await bundleOverTls(deployment.port, pem)
  expect(overTls.x509Authorities.map(({ asn1 }) => toPem(asn1)).join('')).toBe(pem)
  await expectGoodChain(deployment, pem)

  expect(await server.stop('SIGTERM')).toBe(0)
  expect(server.output).toContain('Server stopped gracefully')
  expect(existsSync(deployment.serverSocket)).toBe(false)

  const again = await deployment.startServer()
  expect(await deployment.serverOk(['bundle', 'show'])).toBe(pem)
  await expectGoodChain(deployment, pem)
  expect(await again.stop('SIGINT')).toBe(0)
})

test('comes back after being killed, with the same keys', async () => {
  await using deployment = await Deployment.create('signet')
  const first = await deployment.startServer({})
  const pem = await deployment.serverOk(['bundle', 'show'])
  const token = await deployment.joinToken()
  await first.stop('SIGKILL')
  expect(statSync(deployment.serverSocket).isSocket()).toBe(true)
  await deployment.startServer()
  expect(await deployment.serverOk(['bundle', 'show'])).toBe(pem)
  // What was acknowledged before the kill is there: the token works.
  await deployment.startAgent('signet', { args: ['-joinToken', token] })
})

test('a socket directory that others may write is refused before anything listens', async () => {
  await using deployment = await Deployment.create('signet')
  deployment.writeServerConf()
  chmodSync(dirname(deployment.serverSocket), 0o777)
  const [command, args] = program('signet', 'server')
  const ended = await run(command, [...args, 'run', '-config', deployment.serverConf])
  const output = ended.stdout + ended.stderr
  expect(ended.code).toBe(1)
  expect(output).toContain('is writable by others')
  expect(output).not.toContain('Starting Server APIs')
})

test('a second server on the same directories is refused, the first goes on', async () => {
  await using deployment = await Deployment.create('signet')
  await deployment.startServer({})
  const second = await run(join(import.meta.dirname, '../../../bin/signet'), [
    'server',
    'run',
    '-config',
    deployment.serverConf,
    '-serverPort',
    String(await freePort()),
  ])
  expect(second.code).toBe(1)
  expect(second.stdout + second.stderr).toContain('Server crashed')
  expect((await deployment.server(['healthcheck'])).code).toBe(0)
})

test('a server that ends instead of starting is reported at once, with its log', async () => {
  await using deployment = await Deployment.create('signet')
  await expect(deployment.startServer({ server: 'surprise = 1' })).rejects.toThrow(
    /^ended \(1\) before it was healthy\n[\s\S]*surprise/,
  )
}, 20_000)

test('a signal during the start ends it with 0', async () => {
  await using deployment = await Deployment.create('signet')
  deployment.writeServerConf({})
  const child = spawn(join(import.meta.dirname, '../../../bin/signet'), [
    'server',
    'run',
    '-config',
    deployment.serverConf,
  ])
  let output = ''
  const ended = new Promise<number | null>((resolve) => child.once('close', resolve))
  child.stdout.on('data', (part) => {
    output += part
    if (output.includes('msg=Configured') && !child.killed) child.kill('SIGTERM')
  })
  expect(await ended).toBe(0)
  expect(output).not.toContain('Starting Server APIs')
})

/** In a signal set, which has signal n at bit n - 1. */
const SIGUSR1_BIT = 1 << (constants.signals.SIGUSR1 - 1)

test('SIGUSR1 opens no inspector', async () => {
  await using deployment = await Deployment.create('signet')
  const port = await freePort()
  // Where Node would open its inspector; whoever else uses its usual port does not disturb.
  const env = { NODE_OPTIONS: `--inspect-port=${port}` }
  const data = join(deployment.dir, 'pop.conf')
  writeFileSync(data, 'mode = "spiffe"')
  deployment.writeServerConf({
    plugins: `NodeAttestor "x509pop" { plugin_data_file = "${data}" }`,
  })
  const [command, args] = program('signet', 'server')
  const run = [...args, 'run', '-config', deployment.serverConf]
  await using server = Daemon.start(command, run, { env })
  // One that comes before there is anybody to hear it waits.
  await signalled(server)
  await until('the API', async () => (await deployment.server(['healthcheck'])).code === 0)
  expect(server.output).toContain('msg="Reconfigure signal received"')

  writeFileSync(data, 'mode = "spiffe" max_intermediates = 3')
  process.kill(server.pid, 'SIGUSR1')
  await server.untilPrinted('msg="Plugin reconfigured"')

  const token = await deployment.joinToken()
  const agent = await deployment.startAgent('signet', { args: ['-joinToken', token], env }, false)
  await signalled(agent)
  await until(
    'the agent',
    async () => (await deployment.agent('signet', ['healthcheck'])).code === 0,
  )
  process.kill(agent.pid, 'SIGUSR1')
  await agent.untilPrinted('msg="Nothing to reconfigure: no plugin is configured from a file"')

  await expect(fetch(`http://127.0.0.1:${port}/json`)).rejects.toThrow('fetch failed')
  expect(server.output + agent.output).not.toContain('Debugger')
  expect([server.exitCode, agent.exitCode]).toEqual([undefined, undefined])
  expect((await deployment.server(['healthcheck'])).code).toBe(0)
  expect(await agent.stop()).toBe(0)
  expect(await server.stop()).toBe(0)
})

/** Sends SIGUSR1 from the first moment that Node takes signals until the program says something. */
async function signalled(daemon: Daemon): Promise<void> {
  const status = () => readFileSync(`/proc/${daemon.pid}/status`, 'utf8')
  const blocked = () => Number.parseInt(/^SigBlk:\s*(\w+)$/m.exec(status())![1]!, 16)
  await until('SIGUSR1 to be blocked', () => (blocked() & SIGUSR1_BIT) !== 0)
  await until('the first line', () => {
    process.kill(daemon.pid, 'SIGUSR1')
    return daemon.output !== ''
  })
}

test('PostgreSQL goes away: nothing is issued, the rest goes on; it comes back: all goes on', async () => {
  await using deployment = await Deployment.create('signet')
  const healthPort = await freePort()
  const database = await startOwnPostgres(join(deployment.dir, 'pg'))
  await deployment.startServer({
    storage: `DataStore "sql" {
        plugin_data { database_type = "postgres" connection_string = "${database.connectionString}" }
      }
      KeyManager "disk" { plugin_data { keys_path = "keys.json" } }`,
    blocks: `health_checks { listener_enabled = true bind_port = "${healthPort}" }`,
  })
  const token = await deployment.joinToken('spiffe://example.org/node')
  const agent = await deployment.startAgent('signet', { args: ['-joinToken', token] })
  await deployment.createEntry([
    ...['-parentID', 'spiffe://example.org/node', '-spiffeID', 'spiffe://example.org/w'],
    ...['-selector', `unix:uid:${process.getuid?.()}`],
  ])
  const fetched = async () =>
    (await deployment.agent('signet', ['api', 'fetch', 'x509', '-timeout', '5s'])).code === 0
  await until('the identity', fetched)
  const pem = await deployment.serverOk(['bundle', 'show'])
  const mint = () =>
    deployment.server(['jwt', 'mint', '-spiffeID', 'spiffe://example.org/m', '-audience', 'a'])
  expect((await mint()).code).toBe(0)

  await database.stop()
  await until('to be found away', async () => (await health(healthPort, 'ready')) === 500)
  const refused = await mint()
  expect([refused.code, refused.stderr]).toEqual([1, expect.stringContaining('Unavailable')])
  // TLS, bundles and what agents hold go on.
  expect((await bundleOverTls(deployment.port, pem)).x509Authorities).toHaveLength(1)
  expect((await deployment.server(['healthcheck'])).code).toBe(0)
  expect(await health(healthPort, 'live')).toBe(200)
  expect(await fetched()).toBe(true)

  await database.start()
  await until('issuing again', async () => (await mint()).code === 0)
  // The agent's stream and the bans work as before.
  const id = /SPIFFE ID +: (\S+)/.exec(await deployment.serverOk(['agent', 'list']))![1]!
  await deployment.serverOk(['agent', 'ban', '-spiffeID', id])
  await agent.untilExit(10_000)
  expect(agent.output).toContain('Agent is banned')
  await database.stop()
}, 180_000)

test('two servers start on one empty database at once and serve as one', async () => {
  await using first = await Deployment.create('signet')
  await using second = await Deployment.create('signet')
  const database = await startOwnPostgres(join(first.dir, 'pg'))
  const keyFile = join(first.dir, 'shared.kek')
  writeFileSync(keyFile, `${Buffer.alloc(32, 7).toString('base64')}\n`, { mode: 0o600 })
  const storage = `DataStore "sql" {
      plugin_data { database_type = "postgres" connection_string = "${database.connectionString}" }
    }
    KeyManager "sealed" { plugin_data { key_files = ["${keyFile}"] } }`
  const options = { storage, server: 'ratelimit { attestation = false }' }
  await Promise.all([first.startServer(options), second.startServer(options)])
  const pem = await first.serverOk(['bundle', 'show'])
  expect(await second.serverOk(['bundle', 'show'])).toBe(pem)
  expect((await bundleOverTls(second.port, pem)).x509Authorities).toHaveLength(1)

  // Made at one, used at the other.
  const token = await first.joinToken('spiffe://example.org/node')
  const agent = await second.startAgent('signet', { args: ['-joinToken', token] })
  await first.createEntry([
    ...['-parentID', 'spiffe://example.org/node', '-spiffeID', 'spiffe://example.org/w'],
    ...['-selector', `unix:uid:${process.getuid?.()}`],
  ])
  await until('the identity', async () => {
    return (await second.agent('signet', ['api', 'fetch', 'x509', '-timeout', '5s'])).code === 0
  })
  const id = /SPIFFE ID +: (\S+)/.exec(await second.serverOk(['agent', 'list']))![1]!

  // One token at both at once: one of all who try gets in (T-S3).
  const contended = await first.joinToken()
  const attempts = Array.from({ length: 24 }, (_, n) => {
    const { port, dir } = n % 2 === 0 ? first : second
    return attestWithToken(`localhost:${port}`, pem, contended, dir)
  })
  const outcomes = await Promise.allSettled(attempts)
  const refusals = outcomes.flatMap((one) => (one.status === 'rejected' ? [one.reason] : []))
  expect(refusals.map(({ code, details }) => `${code} ${details}`)).toEqual(
    Array(23).fill('3 failed to attest: join token does not exist or has already been used'),
  )

  await first.serverOk(['agent', 'ban', '-spiffeID', id])
  // A push stream ends within a second of the ban, whichever server it was said to.
  await agent.untilExit(5_000)
  expect(agent.output).toContain('Agent is banned')
  await database.stop()
}, 180_000)

async function health(port: number, path: string): Promise<number> {
  return (await fetch(`http://127.0.0.1:${port}/${path}`)).status
}

function bundleOverTls(port: number, rootsPem: string): Promise<Bundle> {
  const client = new Client(
    `127.0.0.1:${port}`,
    credentials.createSsl(Buffer.from(rootsPem), null, null, {
      checkServerIdentity: (_host, { subjectaltname }) =>
        subjectaltname === 'URI:spiffe://example.org/spire/server'
          ? undefined
          : new Error(`is ${subjectaltname}`),
    }),
    { 'grpc.ssl_target_name_override': 'server', 'grpc.default_authority': 'server' },
  )
  const { path, requestSerialize, responseDeserialize } = BundleService.getBundle
  return new Promise((resolve, reject) => {
    client.makeUnaryRequest(
      path,
      requestSerialize,
      responseDeserialize,
      { outputMask: undefined },
      { deadline: Date.now() + 10_000 },
      (error, bundle) => {
        client.close()
        if (bundle) resolve(bundle)
        else reject(error)
      },
    )
  })
}

/** By OpenSSL's own strict rules. */
async function expectGoodChain(deployment: Deployment, pem: string): Promise<void> {
  const roots = join(deployment.dir, 'roots.pem')
  writeFileSync(roots, pem)
  const shown = await run('openssl', [
    ...['s_client', '-connect', `127.0.0.1:${deployment.port}`, '-alpn', 'h2'],
    ...['-CAfile', roots, '-x509_strict', '-verify_return_error'],
  ])
  expect(shown.stdout + shown.stderr).toContain('Verify return code: 0 (ok)')
}

function toPem(der: Uint8Array): string {
  const lines = Buffer.from(der)
    .toString('base64')
    .match(/.{1,64}/g)!
  return `-----BEGIN CERTIFICATE-----\n${lines.join('\n')}\n-----END CERTIFICATE-----\n`
}
