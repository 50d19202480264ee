/**
 * The agent's own keys. `disk` keeps them in `keys.json` of its directory, in SPIRE's format
 * (`{"keys":{"<id>": base64 PKCS#8}}`, mode 0600); `memory` keeps none, so that a restart attests
 * anew. Two slots alternate: the key in use is never overwritten by the one that may replace it.
 */
import { createPrivateKey, createPublicKey, type KeyObject } from 'node:crypto'
import { mkdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import { bytesEqual } from '../../base/bytes.ts'
import { SignetError } from '../../base/error.ts'
import { generateKeys, type KeyPair } from '../key-pair.ts'
import { writePrivateFile } from './private-file.ts'

const SLOTS = ['agent-svid-A', 'agent-svid-B'] as const

const StoredKeys = z.object({ keys: z.record(z.string(), z.string()).nullish() })

export interface AgentKey extends KeyPair {
  readonly id: string
}

export interface KeyStore {
  readonly keys: readonly AgentKey[]
  /** A new key in the slot that `current` does not have; kept before it is returned. */
  generate(current: AgentKey | undefined): Promise<AgentKey>
  /** The key of this SubjectPublicKeyInfo. */
  find(publicKey: Uint8Array): AgentKey | undefined
}

export function memoryKeyStore(): KeyStore {
  return keyStore(new Map(), async () => {})
}

/** The directory is made where absent, for us alone. */
export async function openDiskKeyStore(directory: string): Promise<KeyStore> {
  await mkdir(directory, { recursive: true, mode: 0o700 })
  const path = join(directory, 'keys.json')
  const keys = await loadKeys(path)
  return keyStore(keys, async () => {
    const stored: Record<string, string> = {}
    for (const [id, key] of keys) stored[id] = Buffer.from(key.pkcs8).toString('base64')
    await writePrivateFile(path, JSON.stringify({ keys: stored }, undefined, '\t'))
  })
}

function keyStore(keys: Map<string, AgentKey>, save: () => Promise<void>): KeyStore {
  return {
    get keys() {
      return [...keys.values()]
    },
    async generate(current) {
      const id = current?.id === SLOTS[0] ? SLOTS[1] : SLOTS[0]
      const key = { id, ...(await generateKeys('ec-p256')) }
      keys.set(id, key)
      await save()
      return key
    },
    find: (publicKey) => [...keys.values()].find((key) => bytesEqual(key.publicKey, publicKey)),
  }
}

async function loadKeys(path: string): Promise<Map<string, AgentKey>> {
  const keys = new Map<string, AgentKey>()
  let text: string
  try {
    text = await readFile(path, 'utf8')
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return keys
    throw unreadable(error)
  }
  try {
    for (const [id, base64] of Object.entries(StoredKeys.parse(JSON.parse(text)).keys ?? {})) {
      const pkcs8 = Buffer.from(base64, 'base64')
      const privateKey = createPrivateKey({ key: pkcs8, format: 'der', type: 'pkcs8' })
      keys.set(id, { id, privateKey, pkcs8, publicKey: publicKeyOf(privateKey) })
    }
  } catch (error) {
    throw unreadable(error)
  }
  return keys
}

function publicKeyOf(privateKey: KeyObject): Uint8Array {
  return createPublicKey(privateKey).export({ type: 'spki', format: 'der' })
}

/** The cause is kept out on purpose: a parser's complaint may quote the key. */
function unreadable(_cause: unknown): SignetError {
  return new SignetError('internal', 'keys_unreadable', 'unable to load private key')
}
