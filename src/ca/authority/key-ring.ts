/**
 * Handles of authority keys: opened once per key, closed when no row needs them any more.
 *
 * Owns every handle between signer and authorities. A key that leaves use is closed only after a
 * grace, because a batch that is being signed may still refer to it. Keys in memory exist here
 * alone: while their row may exist, they are kept.
 */
import { toHex } from '../../base/bytes.ts'
import { SignetError } from '../../base/error.ts'
import type { Clock } from '../../base/ports.ts'
import { publicKeySha256 } from '../../x509/spki.ts'
import type { GeneratedKey, KeyBinding, KeyHandle, Signer, SigningKeyType } from '../signer/port.ts'
import type { Authority } from './authority.ts'
import { authorityIdOf } from './authority-id.ts'

/** Far longer than any batch takes to sign. */
const CLOSE_GRACE_MS = 30_000

export interface KeyRing {
  /** A new key, kept until `settle` or `discard` whatever rows there are. */
  generate(type: SigningKeyType, binding: Omit<KeyBinding, 'trustDomain'>): Promise<GeneratedKey>
  /** Its row was written or may have been: from now on rows decide. */
  settle(publicKey: Uint8Array): void
  /** Its row was certainly not written. */
  discard(publicKey: Uint8Array): void
  /** Throws failed_precondition `key_unsealable` or `key_missing`. */
  handleFor(authority: Authority): Promise<KeyHandle>
  /** Closes all other keys once they have been unused for a while. */
  retain(inUse: readonly Authority[]): void
}

interface Held {
  readonly handle: Promise<KeyHandle>
  pinned: boolean
  /** Monotonic time after which it is closed. */
  closeAtMs: number | undefined
}

export function createKeyRing(parts: {
  readonly signer: Pick<Signer, 'generateKey' | 'openKey' | 'closeKey'>
  readonly clock: Clock
  readonly trustDomain: string
}): KeyRing {
  const { signer, clock, trustDomain } = parts
  /** By the public key: two servers in a race make different keys for one generation. */
  const held = new Map<string, Held>()
  const close = (id: string) => {
    const key = held.get(id)
    if (!key) return
    held.delete(id)
    // One that never opened has nothing to close.
    void key.handle.then(
      (handle) => signer.closeKey(handle),
      () => {},
    )
  }
  const open = (authority: Authority): Promise<KeyHandle> => {
    const { generation, sealed, publicKey, clusterId, kind } = authority
    if (!sealed) throw missing(authority)
    return signer.openKey(sealed, { trustDomain, clusterId, kind, generation }, publicKey)
  }
  return {
    async generate(type, binding) {
      const key = await signer.generateKey(type, { trustDomain, ...binding })
      const handle = Promise.resolve(key.handle)
      held.set(idOf(key.publicKey), { handle, pinned: true, closeAtMs: undefined })
      return key
    },
    settle(publicKey) {
      const key = held.get(idOf(publicKey))
      if (key) key.pinned = false
    },
    discard: (publicKey) => close(idOf(publicKey)),
    async handleFor(authority) {
      checkAuthorityId(authority)
      const id = idOf(authority.publicKey)
      const known = held.get(id)
      if (known) return known.handle
      const handle = open(authority)
      held.set(id, { handle, pinned: false, closeAtMs: undefined })
      // A failure is not remembered: the key file may be put right.
      handle.catch(() => held.delete(id))
      return handle
    },
    retain(inUse) {
      const now = clock.monotonicMs()
      const ids = new Set(inUse.map((authority) => idOf(authority.publicKey)))
      for (const [id, key] of held) {
        if (key.pinned || ids.has(id)) key.closeAtMs = undefined
        else if (key.closeAtMs === undefined) key.closeAtMs = now + CLOSE_GRACE_MS
        else if (key.closeAtMs <= now) close(id)
      }
    },
  }
}

function idOf(publicKey: Uint8Array): string {
  return toHex(publicKeySha256(publicKey))
}

/**
 * The id that certificates and tokens carry derives from the key, and the sealed key is bound to
 * that (`encodeBinding` in signer/custody.ts): who can write rows can't rename a key.
 */
function checkAuthorityId({ kind, authorityId, publicKey }: Authority): void {
  if (authorityId === authorityIdOf(kind, publicKey)) return
  throw new SignetError(
    'failed_precondition',
    'key_unsealable',
    `authority ${authorityId} does not belong to its key`,
  )
}

function missing({ authorityId }: Authority): SignetError {
  return new SignetError(
    'failed_precondition',
    'key_missing',
    `key of authority ${authorityId} is not held by this server`,
  )
}
