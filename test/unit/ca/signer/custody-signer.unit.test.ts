import { createPublicKey, verify } from 'node:crypto'
import { inspect } from 'node:util'
import fc from 'fast-check'
import { beforeEach, describe, expect, test } from 'vitest'
import { toHex, utf8 } from '../../../../src/base/bytes.ts'
import {
  createMemoryCustody,
  createSealedCustody,
  encodeBinding,
} from '../../../../src/ca/signer/custody.ts'
import { createSigner } from '../../../../src/ca/signer/custody-signer.ts'
import { gathering } from '../../../../src/ca/signer/gather.ts'
import { keyEncryptionKey } from '../../../../src/ca/signer/kek.ts'
import { createNodeEngine } from '../../../../src/ca/signer/node-engine.ts'
import type { GeneratedKey, KeyBinding, SigningKeyType } from '../../../../src/ca/signer/port.ts'
import { createSeededRandom } from '../../../fakes/seeded-random.ts'
import { createSimpleEngine, type SimpleEngine, singleBatch } from '../../../fakes/simple-engine.ts'

const BINDING: KeyBinding = {
  trustDomain: 'example.org',
  clusterId: 2,
  kind: 'jwt',
  generation: 'generation-1',
}
const KEK = keyEncryptionKey(new Uint8Array(32).fill(1))
const OTHER_KEK = keyEncryptionKey(new Uint8Array(32).fill(2))
const MESSAGE = utf8('a linted message')

let engine: SimpleEngine
beforeEach(() => {
  engine = createSimpleEngine()
})

function sealedSigner(keks: Parameters<typeof createSealedCustody>[0] = [KEK]) {
  return createSigner({ engine, custody: createSealedCustody(keks, createSeededRandom()) })
}

async function expectSigns(
  signer: ReturnType<typeof createSigner>,
  handle: number,
  publicKey: Uint8Array,
) {
  const { status, signatures } = await signer.sign(singleBatch(handle, MESSAGE))
  expect([...status]).toEqual([0])
  const key = createPublicKey({ key: Buffer.from(publicKey), format: 'der', type: 'spki' })
  const digest = key.asymmetricKeyDetails?.namedCurve === 'secp384r1' ? 'sha384' : 'sha256'
  expect(verify(digest, MESSAGE, key, signatures[0]!)).toBe(true)
}

describe('sealed', () => {
  test.each<SigningKeyType>(['ec-p256', 'ec-p384', 'rsa-2048'])(
    'a %s key survives its signer',
    async (type) => {
      const made = await sealedSigner().generateKey(type, BINDING)
      expect(made.sealed!.kekId).toBe(KEK.id)
      const later = sealedSigner()
      const handle = await later.openKey(made.sealed!, BINDING, made.publicKey)
      await expectSigns(later, handle, made.publicKey)
    },
  )

  test.each<SigningKeyType>(['ec-p256', 'ec-p384', 'rsa-2048', 'rsa-4096'])(
    'the engine of production takes a %s key',
    async (type) => {
      const custody = createSealedCustody([KEK], createSeededRandom())
      const signer = createSigner({ engine: gathering(createNodeEngine()), custody })
      const made = await signer.generateKey(type, BINDING)
      await expectSigns(signer, made.handle, made.publicKey)
      const opened = await signer.openKey(made.sealed!, BINDING, made.publicKey)
      await expectSigns(signer, opened, made.publicKey)
    },
  )

  test('every key given opens, the first one seals', async () => {
    const made = await sealedSigner([OTHER_KEK]).generateKey('ec-p256', BINDING)
    const signer = sealedSigner([KEK, OTHER_KEK])
    await signer.openKey(made.sealed!, BINDING, made.publicKey)
    expect((await signer.generateKey('ec-p256', BINDING)).sealed!.kekId).toBe(KEK.id)
  })

  test('another key-encryption key does not open it', async () => {
    const made = await sealedSigner([OTHER_KEK]).generateKey('ec-p256', BINDING)
    const opening = sealedSigner().openKey(made.sealed!, BINDING, made.publicKey)
    await expect(opening).rejects.toMatchObject({
      kind: 'failed_precondition',
      code: 'key_unsealable',
    })
    // Not even when the row claims to be sealed by a key that is configured.
    const renamed = { ...made.sealed!, kekId: KEK.id }
    await expect(sealedSigner().openKey(renamed, BINDING, made.publicKey)).rejects.toMatchObject({
      code: 'key_unsealable',
    })
  })

  test.each<[string, Partial<KeyBinding>]>([
    ['trust domain', { trustDomain: 'example.com' }],
    ['cluster', { clusterId: 1 }],
    ['kind', { kind: 'x509_root' }],
    ['generation', { generation: 'generation-2' }],
  ])('a row moved to another %s does not open', async (_name, change) => {
    const signer = sealedSigner()
    const made = await signer.generateKey('ec-p256', BINDING)
    const opening = signer.openKey(made.sealed!, { ...BINDING, ...change }, made.publicKey)
    await expect(opening).rejects.toMatchObject({ code: 'key_unsealable' })
  })

  test('nor one with another public key beside it', async () => {
    const signer = sealedSigner()
    const made = await signer.generateKey('ec-p256', BINDING)
    const other = await signer.generateKey('ec-p256', BINDING)
    await expect(signer.openKey(made.sealed!, BINDING, other.publicKey)).rejects.toMatchObject({
      code: 'key_unsealable',
    })
  })

  test('a private key sealed under a foreign public key is noticed', async () => {
    const custody = createSealedCustody([KEK], createSeededRandom())
    const made = await sealedSigner().generateKey('ec-p256', BINDING)
    const other = await sealedSigner().generateKey('ec-p256', BINDING)
    const pkcs8 = custody.open(made.sealed!, BINDING, made.publicKey)
    const forged = custody.seal(pkcs8, BINDING, other.publicKey)!
    await expect(sealedSigner().openKey(forged, BINDING, other.publicKey)).rejects.toMatchObject({
      code: 'key_unsealable',
    })
  })

  test('no flipped bit and no truncation opens', async () => {
    const signer = sealedSigner()
    const { sealed, publicKey } = await signer.generateKey('ec-p256', BINDING)
    const open = (blob: Uint8Array) => signer.openKey({ ...sealed!, blob }, BINDING, publicKey)
    for (let i = 0; i < sealed!.blob.length; i++) {
      const blob = sealed!.blob.slice()
      blob[i]! ^= 1 << (i % 8)
      await expect(open(blob)).rejects.toMatchObject({ code: 'key_unsealable' })
      await expect(open(sealed!.blob.subarray(0, i))).rejects.toMatchObject({
        code: 'key_unsealable',
      })
    }
  })

  test('neither the key object nor the sealed blob shows the private key', async () => {
    const made = await sealedSigner().generateKey('ec-p256', BINDING)
    const scalar = engine.keys.get(made.handle)!.export({ format: 'jwk' }).d!
    const hex = toHex(new Uint8Array(Buffer.from(scalar, 'base64url')))
    for (const text of [inspect(made), JSON.stringify(made), toHex(made.sealed!.blob)]) {
      expect(text).not.toContain(scalar)
      expect(text).not.toContain(hex)
    }
  })
})

describe('memory', () => {
  test('seals nothing and opens nothing', async () => {
    const signer = createSigner({ engine, custody: createMemoryCustody() })
    const made = await signer.generateKey('ec-p256', BINDING)
    expect(made.sealed).toBeUndefined()
    await expectSigns(signer, made.handle, made.publicKey)
    const blob = { kekId: KEK.id, blob: new Uint8Array(100) }
    await expect(signer.openKey(blob, BINDING, made.publicKey)).rejects.toMatchObject({
      code: 'key_unsealable',
    })
  })
})

describe('release', () => {
  let made: GeneratedKey
  let signer: ReturnType<typeof createSigner>
  const status = async () => {
    const results = await signer.sign(singleBatch(made.handle, MESSAGE))
    return { status: results.status[0], empty: results.signatures[0]!.length === 0 }
  }
  const corrupt = () => {
    engine.tamper = (results) => ({
      ...results,
      signatures: results.signatures.map((signature) => {
        const copy = Uint8Array.from(signature)
        copy[copy.length - 1]! ^= 1
        return copy
      }),
    })
  }
  beforeEach(async () => {
    signer = sealedSigner()
  })

  test('a wrong first signature of a key is held back, again and again', async () => {
    made = await signer.generateKey('ec-p256', BINDING)
    corrupt()
    expect(await status()).toEqual({ status: 3, empty: true })
    expect(await status()).toEqual({ status: 3, empty: true })
    engine.tamper = undefined
    expect(await status()).toEqual({ status: 0, empty: false })
  })

  test('every RSA signature is verified', async () => {
    made = await signer.generateKey('rsa-2048', BINDING)
    expect(await status()).toEqual({ status: 0, empty: false })
    corrupt()
    expect(await status()).toEqual({ status: 3, empty: true })
  })

  test('a failing engine is found within 1024 signatures', async () => {
    made = await signer.generateKey('ec-p256', BINDING)
    await status()
    corrupt()
    let released = 0
    while ((await status()).status === 0) released++
    expect(released).toBe(1023)
  })

  test('what does not hash to its digest is not signed, other items are', async () => {
    made = await signer.generateKey('ec-p256', BINDING)
    const batch = singleBatch(made.handle, MESSAGE)
    batch.digests[0]! ^= 1
    expect([...(await signer.sign(batch)).status]).toEqual([2])
  })

  test('a closed key signs no more; closing twice is harmless; disposing closes all', async () => {
    made = await signer.generateKey('ec-p256', BINDING)
    await signer.generateKey('ec-p256', BINDING)
    signer.closeKey(made.handle)
    signer.closeKey(made.handle)
    expect(await status()).toEqual({ status: 3, empty: true })
    expect(engine.keys.size).toBe(1)
    await signer[Symbol.asyncDispose]()
    expect(engine.keys.size).toBe(0)
  })
})

// Method: any two bindings, keys and KEK ids that differ somewhere must differ in their encoding.
test('no two bindings share an encoding', () => {
  const binding = fc.record({
    trustDomain: fc.string({ maxLength: 6 }),
    clusterId: fc.nat({ max: 20 }),
    kind: fc.constantFrom<KeyBinding['kind']>('x509_root', 'x509_intermediate', 'jwt'),
    generation: fc.string({ maxLength: 6 }),
  })
  const whole = fc.tuple(binding, fc.uint8Array({ maxLength: 3 }), fc.string({ maxLength: 4 }))
  fc.assert(
    fc.property(whole, whole, (a, b) => {
      const same = inspect(a) === inspect(b)
      expect(toHex(encodeBinding(...a)) === toHex(encodeBinding(...b))).toBe(same)
    }),
  )
})
