import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { createServer, type Server, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Metadata } from '@grpc/grpc-js'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { systemClock } from '../../../src/base/clock.ts'
import {
  connectErrorText,
  connectionText,
  isConnectionText,
  isUnknownAuthorityText,
} from '../../../src/wire/connection-text.ts'
import { HealthService } from '../../../src/wire/gen/grpc/health/v1/health.ts'
import { callUnary } from '../../../src/wire/transport/call.ts'
import { openTcpChannel, openUnixChannel } from '../../../src/wire/transport/channel.ts'

const failed = (reason: string) =>
  `No connection established. Last error: ${reason}. Resolution note: `

describe('what grpc-js says, as grpc-go says it', () => {
  test.each([
    [
      failed('Error: connect ECONNREFUSED 10.0.0.1:8081'),
      'transport: Error while dialing: dial tcp 10.0.0.1:8081: connect: connection refused',
    ],
    [
      failed('Error: connect ENOENT /run/a b.sock'),
      'transport: Error while dialing: dial unix /run/a b.sock: connect: no such file or directory',
    ],
    [
      failed('Error: connect EODD 10.0.0.1:8081'),
      'transport: Error while dialing: dial tcp 10.0.0.1:8081: connect: EODD',
    ],
    [
      `round_robin: ${failed('No connection established. Last error: Error: unable to get local issuer certificate')}`,
      'transport: authentication handshake failed: x509svid: could not verify leaf certificate: x509: certificate signed by unknown authority',
    ],
    [
      failed('Error: certificate has expired'),
      'transport: authentication handshake failed: certificate has expired',
    ],
    [failed('Error: got "[x]"'), 'transport: authentication handshake failed: got \\"[x]\\"'],
    [
      failed('read ECONNRESET (2026-11-24T21:26:45.538Z)'),
      'error reading server preface: connection reset by peer',
    ],
    [failed('Failed to connect (2026-11-24T21:26:43.906Z)'), 'error reading server preface: EOF'],
    [
      'Name resolution failed for target dns:///no.such.host:8081',
      'transport: Error while dialing: dial tcp: lookup no.such.host: no such host',
    ],
  ])('%s', (theirs, ours) => {
    const text = connectionText(theirs)
    expect(text).toBe(`connection error: desc = "${ours}"`)
    expect(isConnectionText(text)).toBe(true)
    expect(isUnknownAuthorityText(text)).toBe(ours.includes('unknown authority'))
  })

  test('a peer’s own words stay as they are', () => {
    expect(connectionText('agent is shutting down')).toBe('agent is shutting down')
    expect(isConnectionText('agent is shutting down')).toBe(false)
    expect(isUnknownAuthorityText('x509: certificate signed by unknown authority')).toBe(false)
  })

  test('a socket’s error, one of several or one of TLS', () => {
    const refused = Object.assign(new Error('x'), {
      code: 'ECONNREFUSED',
      syscall: 'connect',
      address: '127.0.0.1',
      port: 1,
    })
    const text = `connection error: desc = "transport: Error while dialing: dial tcp 127.0.0.1:1: connect: connection refused"`
    expect(connectErrorText(refused)).toBe(text)
    expect(connectErrorText(new AggregateError([refused, refused]))).toBe(text)
    expect(connectErrorText(new Error('bad certificate'))).toContain('handshake failed: bad cert')
  })
})

// The texts above are grpc-js' own: what the installed version says must still be understood.
describe('the installed grpc-js', () => {
  let dir: string
  let server: Server | undefined
  const sockets = new Set<Socket>()
  beforeEach(async () => {
    dir = await mkdtemp(join(tmpdir(), 'text-'))
  })
  afterEach(async () => {
    for (const socket of sockets) socket.destroy()
    server?.close()
    server = undefined
    await rm(dir, { recursive: true, force: true })
  })

  const path = () => join(dir, 's')

  async function listen(onSocket: (socket: Socket) => void): Promise<void> {
    server = createServer((socket) => {
      sockets.add(socket)
      socket.on('error', () => {})
      onSocket(socket)
    })
    await new Promise<void>((resolve) => server!.listen(path(), resolve))
  }

  test.each<[string, () => Promise<void>, string]>([
    ['absent', async () => {}, 'connect: no such file or directory'],
    ['no socket', () => writeFile(path(), ''), 'connect: connection refused'],
    ['closing', () => listen((socket) => socket.destroy()), 'error reading server preface'],
    [
      'of another protocol',
      () => listen((socket) => socket.end('HTTP/1.1 400 Bad Request\r\n\r\n')),
      'error reading server preface: the peer does not speak HTTP/2',
    ],
    ['silent', () => listen(() => {}), 'while waiting for connections to become ready'],
  ])('of a socket that is %s', async (_what, prepare, words) => {
    await prepare()
    expect(await failureOf(openUnixChannel(path()))).toContain(words)
  })

  test('of a port where nobody listens, of a host that is not', async () => {
    expect(await failureOf(openTcpChannel('127.0.0.1:1'))).toBe(
      'connection error: desc = "transport: Error while dialing: dial tcp 127.0.0.1:1: connect: connection refused"',
    )
    expect(await failureOf(openTcpChannel('no-such-host.invalid:1'))).toContain(
      'lookup no-such-host.invalid',
    )
  })
})

async function failureOf(client: ReturnType<typeof openUnixChannel>): Promise<string> {
  const settings = { clock: systemClock, timeoutMs: 1_000, metadata: new Metadata() }
  try {
    await callUnary(client, HealthService.check, { service: '' }, settings)
    return ''
  } catch (error) {
    expect(isConnectionText((error as Error).message)).toBe(true)
    return (error as Error).message
  } finally {
    client.close()
  }
}
