/** The authorities of a running server with their keys, opened as the server opens them: a thief's view. */
import { createPrivateKey, type KeyObject } from 'node:crypto'
import { join } from 'node:path'
import { createSystemRandom } from '../../src/base/random.ts'
import { createSealedCustody } from '../../src/ca/signer/custody.ts'
import { readKekFile } from '../../src/ca/signer/kek.ts'
import type { KeyBinding } from '../../src/ca/signer/port.ts'
import type { LiveServer } from './live-server.ts'

export interface StolenAuthority {
  readonly kind: KeyBinding['kind']
  readonly clusterId: number
  readonly key: KeyObject
  /** DER; null of JWT keys. */
  readonly certificate: Buffer | null
}

interface Row extends Omit<KeyBinding, 'trustDomain' | 'clusterId'> {
  readonly cluster_id: number
  readonly kek_id: string
  readonly sealed_key: Buffer
  readonly public_key: Buffer
  readonly certificate: Buffer | null
}

export async function stealAuthorities(server: LiveServer): Promise<StolenAuthority[]> {
  const kek = readKekFile(join(server.dataDir, 'kek'))
  const custody = createSealedCustody([kek], createSystemRandom())
  const rows = (await server.rows('select * from signet.authority')) as unknown as Row[]
  return rows.map((row) => {
    const { cluster_id: clusterId, kind, generation, certificate } = row
    const binding = { trustDomain: 'example.org', clusterId, kind, generation }
    const sealed = { kekId: row.kek_id, blob: row.sealed_key }
    const der = Buffer.from(custody.open(sealed, binding, row.public_key))
    const key = createPrivateKey({ key: der, format: 'der', type: 'pkcs8' })
    return { kind, clusterId, key, certificate }
  })
}
