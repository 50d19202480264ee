import { spawn } from 'node:child_process'
import { X509Certificate } from 'node:crypto'
import { mkdtempSync, writeFileSync } from 'node:fs'
import { connect as connectTcp } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { status } from '@grpc/grpc-js'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { makeAuthority, makeLeaf } from '../../../rigs/certificates.ts'
import { until } from '../../../rigs/until.ts'
import { ask, client, closed, type Door, openDoor, rawTls, toPem } from './door-rig.ts'

let door: Door
beforeAll(async () => {
  door = await openDoor()
})
afterAll(() => door[Symbol.asyncDispose]())

test('serves callers without a certificate as nobody', async () => {
  const caller = client(door)
  expect(await ask(caller)).toBe('tcp nobody')
  caller.close()
})

test('a good client certificate names the connection, and closing forgets it', async () => {
  const caller = client(door, await door.issue('/web'))
  expect(await ask(caller)).toBe('tcp spiffe://example.org/web')
  let seen = 0
  door.connections.closeWhere((connection) => {
    if (connection.spiffeId?.path !== '/web') return false
    seen++
    return true
  })
  expect(seen).toBe(1)
  await until('the connection is forgotten', () => {
    let open = 0
    door.connections.closeWhere((connection) => {
      if (connection.spiffeId?.path === '/web') open++
      return false
    })
    return open === 0
  })
  caller.close()
})

test('a bad client certificate ends the connection and is logged', async () => {
  const stranger = await makeAuthority('stranger', 'spiffe://example.org')
  const leaf = await makeLeaf(stranger, { uris: ['spiffe://example.org/web'] })
  const socket = await rawTls(door, { cert: toPem(leaf.chain), key: leaf.keyPem })
  expect((await closed(socket)).length).toBe(0)
  expect(door.log.lines.at(-1)).toMatchObject({
    level: 'warn',
    message: 'Client connection refused',
    fields: { error: expect.objectContaining({ code: 'certificate_untrusted' }) },
  })
  const caller = client(door, leaf)
  await expect(ask(caller)).rejects.toMatchObject({ code: 14 })
  caller.close()
})

test('only HTTP/2 is spoken', async () => {
  await expect(rawTls(door, { ALPNProtocols: ['http/1.1'] })).rejects.toThrow(
    /no application protocol/i,
  )
  const silent = await rawTls(door, { ALPNProtocols: [] })
  expect((await closed(silent)).length).toBe(0)
})

test.each([
  ['/no.such.Service/Foo', 'unknown service no.such.Service'],
  ['/test.Echo/Nope', 'unknown method Nope for service test.Echo'],
  ['/test.Echo/Who/', 'unknown service test.Echo/Who'],
  ['/test.Echo/', 'unknown method  for service test.Echo'],
  ['/test.Echo', 'malformed method name: "/test.Echo"'],
])('what is not there is named in the words of Go’s servers: %s', async (path, details) => {
  const caller = client(door)
  await expect(ask(caller, path)).rejects.toMatchObject({ code: status.UNIMPLEMENTED, details })
  caller.close()
})

describe('TLS versions', () => {
  test.each([
    ['TLSv1.2', true],
    ['TLSv1.3', true],
    ['TLSv1.1', false],
  ] as const)('%s: %s', async (version, served) => {
    const attempt = rawTls(door, {
      minVersion: version,
      maxVersion: version,
      ciphers: 'DEFAULT@SECLEVEL=0',
    })
    if (!served) return void (await expect(attempt).rejects.toThrow())
    const socket = await attempt
    expect(socket.getProtocol()).toBe(version)
    socket.destroy()
  })
})

describe('sessions are never resumed (T-S1)', () => {
  test.each(['-tls1_2', '-tls1_3'])('openssl %s', async (version) => {
    const dir = mkdtempSync(join(tmpdir(), 'door-'))
    const leaf = await door.issue('/web')
    writeFileSync(join(dir, 'cert.pem'), toPem(leaf.chain))
    writeFileSync(join(dir, 'key.pem'), leaf.keyPem)
    const session = join(dir, 'session')
    const knock = (...args: string[]) =>
      openssl(
        's_client',
        '-connect',
        `127.0.0.1:${door.door.port}`,
        version,
        '-alpn',
        'h2',
        '-cert',
        join(dir, 'cert.pem'),
        '-key',
        join(dir, 'key.pem'),
        ...args,
      )
    const first = await knock('-sess_out', session)
    expect(first).toMatch(/^New, TLSv1/m)
    // TLS 1.2 may not even give out a session; where it does, it must buy nothing.
    writeFileSync(session, '', { flag: 'a' })
    const second = await knock('-sess_in', session)
    expect(second).not.toMatch(/^Reused/m)
  })

  test('nor does a client of another library get one back', async () => {
    const one = await rawTls(door, { maxVersion: 'TLSv1.2' })
    const session = one.getSession()
    one.destroy()
    const two = await rawTls(door, { maxVersion: 'TLSv1.2', session: session! })
    expect(two.isSessionReused()).toBe(false)
    two.destroy()
  })
})

test('a new certificate is served without restart, open connections stay', async () => {
  const caller = client(door)
  await ask(caller)
  const before = await servedSerial(door)
  const next = await door.issue('/spire/server')
  door.door.setCertificate({ chain: next.chain, privateKeyPem: next.keyPem })
  const after = await servedSerial(door)
  expect(after).not.toBe(before)
  expect(after).toBe(new X509Certificate(next.der).serialNumber)
  expect(await ask(caller)).toBe('tcp nobody')
  // What the first context forbade, the new one forbids.
  await expect(
    rawTls(door, { minVersion: 'TLSv1.1', maxVersion: 'TLSv1.1', ciphers: 'DEFAULT@SECLEVEL=0' }),
  ).rejects.toThrow()
  caller.close()
})

test('a handshake that does not come to an end is cut', async () => {
  await using slow = await openDoor({ handshakeMsMax: 200 })
  const socket = connectTcp(slow.door.port, '127.0.0.1')
  await new Promise((resolve) => socket.once('close', resolve))
  const caller = client(slow)
  expect(await ask(caller)).toBe('tcp nobody')
  caller.close()
})

test('handshakes of one address are bounded, those done give their place back', async () => {
  await using own = await openDoor()
  for (let i = 0; i < 1_100; i++) (await rawTls(own)).destroy()
  expect(own.metrics.counters.get('endpoints.tcp.handshakes_shed')).toBeUndefined()
  const half = Array.from({ length: 1_010 }, () => connectTcp(own.door.port, '127.0.0.1'))
  for (const socket of half) socket.on('error', () => {})
  await until('the rest is shed', () => {
    return (own.metrics.counters.get('endpoints.tcp.handshakes_shed') ?? 0) >= 10
  })
  for (const socket of half) socket.destroy()
  const caller = client(own)
  expect(await until('places are free again', () => ask(caller).catch(() => false))).toBe(
    'tcp nobody',
  )
  caller.close()
})

async function servedSerial(door: Door): Promise<string> {
  const socket = await rawTls(door)
  const serial = socket.getPeerX509Certificate()!.serialNumber
  socket.destroy()
  return serial
}

function openssl(...args: string[]): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn('openssl', args, { stdio: ['pipe', 'pipe', 'pipe'] })
    let text = ''
    const read = (part: Buffer) => {
      text += part
      // The session is written when tickets arrived; the preface makes the server answer.
      if (text.includes('---\n') && /Verify return code/.test(text)) child.stdin.end('Q\n')
    }
    child.stdout.on('data', read)
    child.stderr.on('data', read)
    child.once('error', reject)
    child.once('close', () => resolve(text))
  })
}
