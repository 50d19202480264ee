import { verify } from 'node:crypto'
import { describe, expect, test } from 'vitest'
import { createNodeEngine } from '../../../../src/ca/signer/node-engine.ts'
import {
  ITEM,
  ITEM_STATUS,
  PROOF_ALGORITHM,
  type SigningBatch,
} from '../../../../src/ca/signer/port.ts'
import { importPublicKey } from '../../../../src/x509/spki.ts'
import { newCsr, newKey, type TestKey } from '../../../rigs/issuing.ts'
import { batchOf } from '../../../rigs/signing-batch.ts'

const engine = createNodeEngine()
const pkcs8 = (key: TestKey) => key.privateKey.export({ format: 'der', type: 'pkcs8' })
const key = newKey()
const handle = engine.importKey(pkcs8(key))
const message = new TextEncoder().encode('to be signed')

describe('signatures', () => {
  test.each([
    ['ec-p256', 'sha256'],
    ['ec-p384', 'sha384'],
    ['rsa-2048', 'sha256'],
  ] as const)('by a %s key hash with %s', async (type, digest) => {
    const own = newKey(type)
    const { status, signatures } = await engine.sign(
      batchOf([{ handle: engine.importKey(pkcs8(own)), message }]),
    )
    expect([...status]).toEqual([ITEM_STATUS.ok])
    expect(verify(digest, message, importPublicKey(own.publicKey), signatures[0]!)).toBe(true)
  })

  test('only of what hashes to the digest', async () => {
    const items = [
      { handle, message, digest: new Uint8Array(32) },
      { handle, message },
    ]
    const { status, signatures } = await engine.sign(batchOf(items))
    expect([...status]).toEqual([ITEM_STATUS.digestMismatch, ITEM_STATUS.ok])
    expect(signatures[0]!.length).toBe(0)
  })

  test('never by a handle that is unknown or closed, nor by a later key in its place', async () => {
    const closed = engine.importKey(pkcs8(newKey()))
    engine.closeKey(closed)
    const later = engine.importKey(pkcs8(newKey()))
    expect(later).not.toBe(closed)
    const { status } = await engine.sign(
      batchOf([
        { handle: closed, message },
        { handle: 0, message },
      ]),
    )
    expect([...status]).toEqual([ITEM_STATUS.failed, ITEM_STATUS.failed])
  })
})

describe('proof of possession', () => {
  test.each(['ec-p256', 'ec-p384', 'ec-p521', 'rsa-2048', 'rsa-4096', 'ed25519'] as const)(
    'of a %s key',
    async (type) => {
      const csr = newCsr(newKey(type))
      const forged = csr.slice()
      forged[forged.length - 1] = forged[forged.length - 1]! ^ 1
      const { status } = await engine.sign(
        batchOf([
          { handle, message, csr },
          { handle, message, csr: forged },
        ]),
      )
      expect([...status]).toEqual([ITEM_STATUS.ok, ITEM_STATUS.proofFailed])
    },
  )

  test('by another algorithm than the key’s, or none, fails', async () => {
    for (const algorithm of [PROOF_ALGORITHM.rsaSha256, PROOF_ALGORITHM.ed25519, 0, 99]) {
      const batch = batchOf([{ handle, message, csr: newCsr() }])
      batch.items[ITEM.proofAlgorithm] = algorithm
      const { status, signatures } = await engine.sign(batch)
      expect([...status]).toEqual([ITEM_STATUS.proofFailed])
      expect(signatures[0]!.length).toBe(0)
    }
  })

  test('with a point off its curve fails', async () => {
    const batch = batchOf([{ handle, message, csr: newCsr() }])
    const at = batch.items[ITEM.publicKeyOffset]! + batch.items[ITEM.publicKeyLength]! - 1
    batch.requests[at] = batch.requests[at]! ^ 1
    expect([...(await engine.sign(batch)).status]).toEqual([ITEM_STATUS.proofFailed])
  })
})

describe('batches', () => {
  test('of hundreds let the event loop run', async () => {
    let turns = 0
    let running = true
    const tick = () => {
      turns++
      if (running) setImmediate(tick)
    }
    setImmediate(tick)
    const { status } = await engine.sign(
      batchOf(Array.from({ length: 100 }, () => ({ handle, message }))),
    )
    running = false
    expect(status.every((item) => item === ITEM_STATUS.ok)).toBe(true)
    expect(turns).toBeGreaterThanOrEqual(3)
  })

  test.each<[string, (batch: SigningBatch) => SigningBatch]>([
    ['message beyond its buffer', (b) => ({ ...b, messages: b.messages.subarray(1) })],
    ['request beyond its buffer', (b) => ({ ...b, requests: b.requests.subarray(9) })],
    ['digests missing', (b) => ({ ...b, digests: b.digests.subarray(1) })],
    ['half an item', (b) => ({ ...b, items: b.items.subarray(1) })],
  ])('with %s are refused', async (_name, change) => {
    const batch = change(batchOf([{ handle, message, csr: newCsr() }]))
    await expect(engine.sign(batch)).rejects.toMatchObject({
      kind: 'internal',
      code: 'bad_signing_batch',
    })
  })

  test('may be empty', async () => {
    expect((await engine.sign(batchOf([]))).signatures).toEqual([])
  })
})

test.each(['ed25519', 'ec-p521'] as const)('a %s key does not sign for an authority', (type) => {
  expect(() => engine.importKey(pkcs8(newKey(type)))).toThrow(
    expect.objectContaining({ code: 'unsupported_signing_key' }),
  )
})
