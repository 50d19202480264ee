/** Rotation on a real PostgreSQL: several servers at once, keys sealed in the rows, ledger on. */
import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { toHex } from '../../../src/base/bytes.ts'
import type { Authority } from '../../../src/ca/authority/authority.ts'
import { formatPem } from '../../../src/x509/pem.ts'
import { FakeClock } from '../../fakes/fake-clock.ts'
import { NOW } from '../../rigs/datastore.ts'
import { useEmptiedDatastore } from '../../rigs/emptied.ts'
import { createTestServer } from '../../rigs/test-authorities.ts'

const DAY = 24 * 3600
const { empty, database } = useEmptiedDatastore()

async function servers(count: number) {
  const { authorities: store, ledger } = await empty()
  const clock = new FakeClock(NOW)
  const made = Array.from({ length: count }, (_, i) =>
    createTestServer({ store, clock, name: `server ${i}`, recordedIn: ledger }),
  )
  return { store, clock, made }
}

function slots(rows: readonly Authority[]): string[] {
  return rows.map((row) => `${row.kind}/${row.clusterId} ${row.state}`).sort()
}

test('servers that start and rotate at once make one of each and agree', async () => {
  const { store, clock, made } = await servers(3)
  const settled = [
    'jwt/2 active',
    'x509_intermediate/1 active',
    'x509_intermediate/2 active',
    'x509_root/0 active',
  ]
  const prepared = settled.slice(0, 3).map((slot) => slot.replace('active', 'prepared'))
  const old = settled.slice(0, 3).map((slot) => slot.replace('active', 'old'))
  for (const [age, expected] of [
    [0, settled],
    [0.5, [...settled, ...prepared]],
    [5 / 6, [...settled, ...old]],
  ] as const) {
    clock.advanceSeconds(Math.round(NOW + age * DAY) - clock.nowSeconds())
    await Promise.all(made.map((server) => server.rotator.step()))
    expect(slots(await store.listAuthorities())).toEqual([...expected].sort())
    await Promise.all(made.map((server) => server.authorities.reload()))
    const issuers = made.map((server) => server.authorities.jwtIssuer(2).authority.authorityId)
    expect(new Set(issuers).size).toBe(1)
  }
})

test('no private key is in the database in clear', async () => {
  const { made } = await servers(1)
  const [server] = made
  await server!.rotator.step()
  const { rows } = await database.query(
    'select encode(sealed_key, $1) as sealed, row_to_json(a)::text as row from signet.authority a',
    ['hex'],
  )
  expect(rows).toHaveLength(4)
  const text = JSON.stringify(rows)
  expect(server!.engine.keys.size).toBeGreaterThanOrEqual(4)
  for (const key of server!.engine.keys.values()) {
    const scalar = Buffer.from(key.export({ format: 'jwk' }).d!, 'base64url')
    expect(text).not.toContain(toHex(scalar))
    expect(text).not.toContain(scalar.toString('base64').slice(0, 40))
  }
})

test('OpenSSL verifies the intermediates strictly, and the rows are in the ledger', async () => {
  const { store, made } = await servers(1)
  await made[0]!.rotator.step()
  const rows = await store.listAuthorities()
  const directory = mkdtempSync(join(tmpdir(), 'authorities-'))
  try {
    const root = rows.find((row) => row.kind === 'x509_root')!
    writeFileSync(join(directory, 'root.pem'), formatPem('CERTIFICATE', root.certificate!))
    for (const row of rows.filter((other) => other.kind === 'x509_intermediate')) {
      const path = join(directory, 'ca.pem')
      writeFileSync(path, formatPem('CERTIFICATE', row.certificate!))
      const options = ['verify', '-x509_strict', '-attime', String(NOW), '-CAfile']
      const said = execFileSync('openssl', [...options, join(directory, 'root.pem'), path])
      expect(said.toString()).toContain('ca.pem: OK')
    }
  } finally {
    rmSync(directory, { recursive: true })
  }
  const { rows: ledger } = await database.query(
    'select kind, cluster_id from signet.ledger order by cluster_id',
  )
  expect(ledger.map((row) => row.cluster_id)).toEqual([0, 1, 2])
})
