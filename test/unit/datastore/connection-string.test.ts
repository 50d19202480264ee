/** Connection strings in libpq's two forms. */
import { rmSync, writeFileSync } from 'node:fs'
import { tmpdir, userInfo } from 'node:os'
import path from 'node:path'
import { getCACertificates } from 'node:tls'
import { afterAll, describe, expect, test } from 'vitest'
import { parseConnectionString } from '../../../src/server/datastore/connection-string.ts'

const ssl = {
  rejectUnauthorized: false,
  host: 'db',
  servername: 'db',
  checkServerIdentity: expect.any(Function),
}
const plain = { host: 'db', port: 5432, user: 'u', database: 'd', ssl }
const { ssl: _, ...local } = plain
/** No server name: TLS has none for addresses. */
const unnamed = (host: string) => ({
  rejectUnauthorized: false,
  host,
  checkServerIdentity: expect.any(Function),
})

describe('accepted', () => {
  test.each([
    ['host=db user=u dbname=d', plain],
    ["  host = 'db'  user='u' dbname=d  ", plain],
    ['postgres://u@db/d', plain],
    ['postgresql://u@db:5433/d', { ...plain, port: 5433 }],
    ["host=db user=u dbname=d password='a \\' \\\\ b'", { ...plain, password: "a ' \\ b" }],
    ['host=db user=u dbname=d password=a\\ b', { ...plain, password: 'a b' }],
    ["host=db user=u dbname=d password=''", { ...plain, password: '' }],
    ['postgres://u:p%40%3A%2F@db/d', { ...plain, password: 'p@:/' }],
    ['postgres://u@[::1]:1/d', { ...plain, host: '::1', port: 1, ssl: unnamed('::1') }],
    ['postgres:///d?host=/run/pg&user=u', { ...local, host: '/run/pg' }],
    ['host=db user=u', { ...plain, database: 'u' }],
    ['host=db user=u dbname=d sslmode=disable', local],
    ['hostaddr=10.0.0.2 user=u dbname=d', { ...plain, host: '10.0.0.2', ssl: unnamed('10.0.0.2') }],
    ['host=db hostaddr=10.0.0.1 user=u dbname=d', { ...plain, host: '10.0.0.1' }],
    [
      'host=db user=u dbname=d connect_timeout=3 application_name=spire',
      { ...plain, connectionTimeoutMillis: 3000, application_name: 'spire' },
    ],
    ['host=/run/postgresql user=u dbname=d sslmode=require', { ...local, host: '/run/postgresql' }],
    ['host=db user=u dbname=d target_session_attrs=read-write client_encoding=UTF8', plain],
    [
      '',
      {
        host: '/var/run/postgresql',
        port: 5432,
        user: userInfo().username,
        database: userInfo().username,
      },
    ],
  ])('%j', (text, address) => {
    expect(parseConnectionString(text)).toEqual(address)
  })
})

describe('TLS', () => {
  const root = path.join(tmpdir(), `signet-root-${process.pid}.pem`)
  writeFileSync(root, 'PEM')
  afterAll(() => rmSync(root))
  const tls = (rest: string) => parseConnectionString(`host=db user=u dbname=d ${rest}`).ssl

  test('require checks no certificate, unless a root is given', () => {
    expect(tls('sslmode=require')).toMatchObject({ rejectUnauthorized: false, servername: 'db' })
    expect(tls(`sslmode=require sslrootcert=${root}`)).toMatchObject({
      rejectUnauthorized: true,
      ca: 'PEM',
    })
  })

  test('verify-ca does not look at the name, verify-full does', () => {
    const ca = tls(`sslmode=verify-ca sslrootcert=${root}`)
    expect(ca?.rejectUnauthorized).toBe(true)
    expect(ca?.checkServerIdentity).toBeTypeOf('function')
    const full = tls(`sslmode=verify-full sslrootcert=${root} sslcert=${root} sslkey=${root}`)
    expect(full).toEqual({
      rejectUnauthorized: true,
      ca: 'PEM',
      cert: 'PEM',
      key: 'PEM',
      host: 'db',
      servername: 'db',
    })
  })

  test.each(['sslmode=verify-full', 'sslmode=verify-ca', 'sslrootcert=system'])(
    "%s trusts the system's roots",
    (rest) => {
      expect(tls(rest)).toMatchObject({
        rejectUnauthorized: true,
        ca: getCACertificates('system'),
      })
    },
  )

  test('required by default, none when disabled or merely allowed', () => {
    expect(tls('')).toMatchObject({ rejectUnauthorized: false })
    expect(tls('sslmode=disable')).toBeUndefined()
    expect(tls('sslmode=allow')).toBeUndefined()
  })
})

test.each([
  'host=a,b',
  'host=a,b port=1,2 target_session_attrs=read-write',
  'host=a port=1,2',
  'hostaddr=10.0.0.1,10.0.0.2',
  'postgres:///d?host=a,b',
  'postgres://u@a:1,b:2/d',
])('a list of hosts is refused with what to do instead: %s', (text) => {
  expect(() => parseConnectionString(text)).toThrow(
    'bad connection_string: several hosts are not supported: give one address that follows the ' +
      'primary (a virtual IP, a proxy, the read-write service of an operator)',
  )
})

describe('refused', () => {
  test.each([
    ['host=db sslmod=require', 'unknown parameter "sslmod"'],
    ['postgres://u@db/d?gssencmode=prefer', 'unknown parameter "gssencmode"'],
    ['host', 'it must be a URL or a list of key=value'],
    ["host='db", 'the value of "host"'],
    ["host='db'user=u", 'the value of "host"'],
    ['mysql://u@db/d', 'it must be a URL or a list of key=value'],
    ['host=db port=0', 'the port'],
    ['host=db port=65536', 'the port'],
    ['host=db port=x', 'the port'],
    ['host=db sslmode=maybe', 'sslmode "maybe"'],
    ['host=db client_encoding=LATIN1', 'client_encoding must be UTF8'],
    ['host=db target_session_attrs=read-only', 'target_session_attrs'],
    ['host=db connect_timeout=x', 'connect_timeout'],
    ['postgres://u:%zz@db/d', 'it holds a broken percent escape'],
  ])('%j', (text, what) => {
    expect(() => parseConnectionString(text)).toThrow(
      expect.objectContaining({
        kind: 'invalid_argument',
        code: 'bad_connection_string',
        message: `bad connection_string: ${what}`,
      }),
    )
  })

  test('the password is never in the message', () => {
    for (const text of [
      'password=canary host=a,b',
      'postgres://u:canary@a,b/d',
      'password=canary =',
    ]) {
      try {
        parseConnectionString(text)
        expect.unreachable()
      } catch (error) {
        expect(String(error)).not.toContain('canary')
      }
    }
  })

  test('a certificate file that is not there', () => {
    expect(() =>
      parseConnectionString('host=db sslmode=verify-ca sslrootcert=/nowhere.pem'),
    ).toThrow('unable to read /nowhere.pem')
  })
})
