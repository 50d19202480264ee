/**
 * Handles of authority keys: opened once per key, closed when no row needs them any more.
 *
 * Owns every handle between signer and authorities. A key that leaves use is closed only after a
 * grace, because a batch that is being signed may still refer to it. Keys in memory exist here alone:
 * while their row may exist, they are kept.
 */
import { toHex } from '../../base/bytes.ts'
import { SignetError } from '../../base/error.ts'
import type { Clock } from '../../base/ports.ts'
import { subjectKeyId } from '../../x509/spki.ts'
import type { GeneratedKey, KeyBinding, KeyHandle, Signer, SigningKeyType } from '../signer/port.ts'
import type { Authority } from './authority.ts'

/** Far longer than any batch takes to sign. */
const CLOSE_GRACE_MS = 30_000

export interface KeyRing {
  /** A new key, kept until `settle` or `discard` whatever rows there are. */
  generate(type: SigningKeyType, binding: Omit<KeyBinding, 'trustDomain'>): Promise<GeneratedKey>
  /** Its row was written or may have been: from now on rows decide. */
  settle(generation: string): void
  /** Its row was certainly not written. */
  discard(generation: string): void
  /** Throws failed_precondition `key_unsealable` or `key_missing`. */
  handleFor(authority: Authority): Promise<KeyHandle>
  /** Closes keys of other generations once they have been unused for a while. */
  retain(generations: ReadonlySet<string>): void
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
  const held = new Map<string, Held>()
  const close = (generation: string) => {
    const key = held.get(generation)
    if (!key) return
    held.delete(generation)
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
      held.set(binding.generation, {
        handle: Promise.resolve(key.handle),
        pinned: true,
        closeAtMs: undefined,
      })
      return key
    },
    settle(generation) {
      const key = held.get(generation)
      if (key) key.pinned = false
    },
    discard: close,
    async handleFor(authority) {
      checkAuthorityId(authority)
      const known = held.get(authority.generation)
      if (known) return known.handle
      const handle = open(authority)
      held.set(authority.generation, { handle, pinned: false, closeAtMs: undefined })
      // A failure is not remembered: the key file may be put right.
      handle.catch(() => held.delete(authority.generation))
      return handle
    },
    retain(generations) {
      const now = clock.monotonicMs()
      for (const [generation, key] of held) {
        if (key.pinned || generations.has(generation)) key.closeAtMs = undefined
        else if (key.closeAtMs === undefined) key.closeAtMs = now + CLOSE_GRACE_MS
        else if (key.closeAtMs <= now) close(generation)
      }
    },
  }
}

/**
 * The id that certificates and tokens will carry must be the one the sealed key is bound to: who can
 * write rows must not be able to rename a key (`encodeBinding` in signer/custody.ts).
 */
function checkAuthorityId({ kind, authorityId, generation, publicKey }: Authority): void {
  const bound = kind === 'jwt' ? generation : toHex(subjectKeyId(publicKey))
  if (authorityId !== bound) {
    throw new SignetError(
      'failed_precondition',
      'key_unsealable',
      `authority ${authorityId} does not belong to its key`,
    )
  }
}

function missing({ authorityId }: Authority): SignetError {
  return new SignetError(
    'failed_precondition',
    'key_missing',
    `key of authority ${authorityId} is not held by this server`,
  )
}
