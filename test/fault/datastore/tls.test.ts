/**
 * TLS to PostgreSQL: the driver's handshake with a real one, behind a door that speaks TLS (the
 * embedded one takes no TCP connections).
 */
import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { type AddressInfo, connect, createServer, type Server } from 'node:net'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { TLSSocket } from 'node:tls'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { parseConnectionString } from '../../../src/server/datastore/connection-string.ts'
import { openTestDatastore } from '../../rigs/datastore.ts'
import { useDatabase } from '../../rigs/postgres.ts'

const db = useDatabase()
const dir = mkdtempSync(path.join(tmpdir(), 'signet-tls-'))
const at = (name: string) => path.join(dir, name)
let certificate = 'both'
let door: Server

beforeAll(async () => {
  makeCertificate('both', 'DNS:localhost,IP:127.0.0.1')
  makeCertificate('name', 'DNS:localhost')
  door = createServer((raw) => {
    raw.once('data', () => {
      // "Yes" to SSLRequest (PostgreSQL 18, §54.2.11); what follows is TLS.
      raw.write('S')
      const key = readFileSync(at(`${certificate}.key`))
      const cert = readFileSync(at(certificate))
      const tls = new TLSSocket(raw, { isServer: true, key, cert })
      const { host, port } = db.poolConfig
      const inside = connect(path.join(host, `.s.PGSQL.${port}`))
      tls.on('error', () => inside.destroy())
      tls.pipe(inside).pipe(tls)
    })
  })
  door.listen(0, '127.0.0.1')
  await once(door, 'listening')
})
afterAll(() => {
  door.close()
  rmSync(dir, { recursive: true })
})

function makeCertificate(file: string, names: string): void {
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes']
  const subject = ['-subj', '/CN=db', '-addext', `subjectAltName=${names}`]
  const args = ['req', '-x509', ...key, ...subject, '-keyout', at(`${file}.key`), '-out', at(file)]
  execFileSync('openssl', args, { stdio: 'pipe' })
}

function connectTo(host: string, tls: string) {
  const { user, password, database } = db.poolConfig
  const { port } = door.address() as AddressInfo
  const address = `host=${host} port=${port} user=${user} password=${password} dbname=${database}`
  return openTestDatastore({ poolConfig: parseConnectionString(`${address} ${tls}`) })
}

test.each([
  ['localhost', 'both', ''],
  ['127.0.0.1', 'both', ''],
  ['localhost', 'name', 'sslmode=verify-full sslrootcert=ROOT'],
  ['127.0.0.1', 'both', 'sslmode=verify-full sslrootcert=ROOT'],
  ['127.0.0.1', 'name', 'sslmode=verify-ca sslrootcert=ROOT'],
])('%s, a certificate for %s, %j', async (host, cert, tls) => {
  certificate = cert
  await using datastore = await connectTo(host, tls.replace('ROOT', at(cert)))
  await datastore.ping()
})

test.each([
  ['without the name that was asked for', '127.0.0.1', 'sslrootcert=NAME'],
  ['of another CA', 'localhost', 'sslrootcert=BOTH'],
  ["of a CA that is not the system's", 'localhost', ''],
])('a certificate %s is refused, with what to do', async (_, host, root) => {
  certificate = 'name'
  const rest = root.replace('NAME', at('name')).replace('BOTH', at('both'))
  await expect(connectTo(host, `sslmode=verify-full ${rest}`)).rejects.toMatchObject({
    code: 'database_untrusted',
    message: expect.stringContaining('sslrootcert must hold its CA'),
  })
})
