/**
 * Signatures that are almost right, of the kinds that verifiers have believed before: where a node or
 * workload proves that it holds its key, where a chain is checked, and where a JWT-SVID is. The cases
 * are made here, one fault each, from a good signature of the same message.
 */
import { constants, createPublicKey, hash, type KeyObject, privateEncrypt, sign } from 'node:crypto'
import { describe, expect, test } from 'vitest'
import { DEFAULT_CA_SUBJECT, planRoot } from '../../../src/ca/profile/ca-plan.ts'
import { createNodeEngine } from '../../../src/ca/signer/node-engine.ts'
import { ITEM_STATUS, type SigningKeyType } from '../../../src/ca/signer/port.ts'
import { validateJwtSvid } from '../../../src/spiffe/jwt-svid.ts'
import { parseCertificate } from '../../../src/x509/certificate.ts'
import { encodeCertificateRequestInfo } from '../../../src/x509/csr.ts'
import {
  derCursor,
  encodeOctetBits,
  encodeUnsigned,
  enter,
  readUnsigned,
  sequence,
  TAG,
  tlv,
} from '../../../src/x509/der.ts'
import { encodeName } from '../../../src/x509/name.ts'
import { SIGNATURE_ALGORITHMS, type SignatureAlgorithm } from '../../../src/x509/oid.ts'
import { verifyCertificateSignature } from '../../../src/x509/path.ts'
import { createSeededRandom } from '../../fakes/seeded-random.ts'
import { NOW, newKey, signTemplate, TD, type TestKey } from '../../rigs/issuing.ts'
import { batchOf } from '../../rigs/signing-batch.ts'

/** FIPS 186-4 §D.1.2: the orders of the base points. */
const ORDERS: Readonly<Record<'ec-p256' | 'ec-p384', bigint>> = {
  'ec-p256': 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551n,
  'ec-p384': BigInt(
    '0xffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973',
  ),
}
const ES256 = 'ecdsa-sha256'

const hex = (text: string) => new Uint8Array(Buffer.from(text, 'hex'))
const magnitude = (value: bigint) => {
  const digits = value.toString(16)
  return hex(digits.length % 2 === 0 ? digits : `0${digits}`)
}
const integer = (value: bigint) => encodeUnsigned(magnitude(value))
const numberOf = (bytes: Uint8Array) => BigInt(`0x${Buffer.from(bytes).toString('hex')}`)
/** The element with its length in more bytes than it needs. */
const longForm = (der: Uint8Array) =>
  new Uint8Array([der[0]!, 0x81, der[1]!, ...der.subarray(der[1]! > 127 ? 3 : 2)])
const joined = (...parts: Uint8Array[]) => new Uint8Array(Buffer.concat(parts))

interface Numbers {
  readonly r: bigint
  readonly s: bigint
  readonly n: bigint
}

function numbersIn(der: Uint8Array, n: bigint): Numbers {
  const body = enter(derCursor(der), TAG.sequence)
  const [r, s] = [numberOf(readUnsigned(body)), numberOf(readUnsigned(body))]
  return { r, s, n }
}

/** Values out of range, and values that only look like the right ones. */
const BAD_NUMBERS: [string, (of: Numbers) => [bigint, bigint]][] = [
  ['r and s of zero', () => [0n, 0n]],
  ['r of zero', ({ s }) => [0n, s]],
  ['s of zero', ({ r }) => [r, 0n]],
  ['r and s of one', () => [1n, 1n]],
  ['r of the order', ({ n, s }) => [n, s]],
  ['s of the order', ({ r, n }) => [r, n]],
  ['r and s of the order', ({ n }) => [n, n]],
  ['r beyond the order', ({ r, s, n }) => [r + n, s]],
  ['s beyond the order', ({ r, s, n }) => [r, s + n]],
  ['r and s swapped', ({ r, s }) => [s, r]],
  ['another r', ({ r, s }) => [r ^ 1n, s]],
  ['another s', ({ r, s }) => [r, s ^ 1n]],
  ['r of the order less one', ({ s, n }) => [n - 1n, s]],
]

/** The right numbers, written as DER does not (X.690 §8.3, §10.1). */
const BAD_FORMS: [string, (of: Numbers, der: Uint8Array) => Uint8Array][] = [
  ['nothing', () => new Uint8Array()],
  ['an empty sequence', () => sequence()],
  ['r alone', ({ r }) => sequence(integer(r))],
  ['three numbers', ({ r, s }) => sequence(integer(r), integer(s), integer(s))],
  ['a set', ({ r, s }) => tlv(TAG.set, integer(r), integer(s))],
  [
    'octet strings',
    ({ r, s }) => {
      return sequence(tlv(TAG.octetString, magnitude(r)), tlv(TAG.octetString, magnitude(s)))
    },
  ],
  ['numbers without content', () => sequence(tlv(TAG.integer), tlv(TAG.integer))],
  [
    'a padded r',
    ({ r, s }) => {
      return sequence(tlv(TAG.integer, hex('0000'), magnitude(r)), integer(s))
    },
  ],
  [
    'a padded s',
    ({ r, s }) => {
      return sequence(integer(r), tlv(TAG.integer, hex('0000'), magnitude(s)))
    },
  ],
  [
    'a negative r',
    ({ r, s, n }) => {
      return sequence(tlv(TAG.integer, hex('ff'), magnitude(r % n)), integer(s))
    },
  ],
  ['a length of the whole in long form', (_, der) => longForm(der)],
  ['a length of r in long form', ({ r, s }) => sequence(longForm(integer(r)), integer(s))],
  [
    'an indefinite length',
    ({ r, s }) => {
      return joined(hex('3080'), integer(r), integer(s), hex('0000'))
    },
  ],
  ['a byte more', (_, der) => joined(der, hex('00'))],
  ['an element more', (_, der) => joined(der, hex('0500'))],
  ['a byte less', (_, der) => der.subarray(0, -1)],
  ['a NULL inside', ({ r, s }) => sequence(integer(r), integer(s), hex('0500'))],
]

const engine = createNodeEngine()
const signer = engine.importKey(
  newKey().privateKey.export({ format: 'der', type: 'pkcs8' }) as Buffer,
)

/** By the engine: a request for `key` with this signature on it. */
async function provesPossession(
  key: TestKey,
  algorithm: SignatureAlgorithm,
  signature: Uint8Array,
): Promise<boolean> {
  const { identifier } = SIGNATURE_ALGORITHMS[algorithm]
  const csr = sequence(requestInfo(key), identifier, encodeOctetBits(signature))
  const message = new TextEncoder().encode('x')
  const { status, signatures } = await engine.sign(batchOf([{ handle: signer, message, csr }]))
  expect(signatures[0]!.length > 0).toBe(status[0] === ITEM_STATUS.ok)
  return status[0] === ITEM_STATUS.ok
}

function requestInfo(key: TestKey): Uint8Array {
  return encodeCertificateRequestInfo(encodeName({}), key.publicKey, {
    uriNames: [],
    dnsNames: [],
  })
}

function selfSigned(key: TestKey, algorithm: SignatureAlgorithm) {
  const validity = { notBefore: NOW, notAfter: NOW + 60 }
  const request = {
    trustDomain: TD,
    subject: DEFAULT_CA_SUBJECT,
    validity,
    publicKey: key.publicKey,
  }
  const template = planRoot(createSeededRandom('signatures'), request, algorithm)
  return parseCertificate(signTemplate(template, key.privateKey))
}

describe.each([
  ['ec-p256', 'ecdsa-sha256'],
  ['ec-p384', 'ecdsa-sha384'],
] as const)('ECDSA by %s', (type, algorithm) => {
  const key = newKey(type)
  const n = ORDERS[type]
  const info = requestInfo(key)
  const proof = new Uint8Array(sign(SIGNATURE_ALGORITHMS[algorithm].hash, info, key.privateKey))
  const certificate = selfSigned(key, algorithm)

  /** Whether each place believes what `change` makes of its own good signature. */
  async function believed(change: (of: Numbers, der: Uint8Array) => Uint8Array) {
    const inChain = change(numbersIn(certificate.signature, n), certificate.signature)
    return {
      proof: await provesPossession(key, algorithm, change(numbersIn(proof, n), proof)),
      chain: verifyCertificateSignature({ ...certificate, signature: inChain }, certificate),
    }
  }

  test('the signature as made, and with the other root as s', async () => {
    const yes = { proof: true, chain: true }
    expect(await believed((_, der) => der)).toEqual(yes)
    expect(await believed(({ r, s }) => sequence(integer(r), integer(s)))).toEqual(yes)
    expect(await believed(({ r, s }) => sequence(integer(r), integer(n - s)))).toEqual(yes)
  })

  const no = { proof: false, chain: false }
  test.each(BAD_NUMBERS)('%s', async (_, change) => {
    const encode = ([r, s]: [bigint, bigint]) => sequence(integer(r), integer(s))
    expect(await believed((of) => encode(change(of)))).toEqual(no)
  })

  test.each(BAD_FORMS)('%s', async (_, change) => {
    expect(await believed(change)).toEqual(no)
  })

  test('the form of JWS', async () => {
    const bytes = n.toString(16).length / 2
    const raw = ({ r, s }: Numbers) => joined(fixed(r, bytes), fixed(s, bytes))
    expect(await believed(raw)).toEqual(no)
  })
})

function fixed(value: bigint, bytes: number): Uint8Array {
  return hex(value.toString(16).padStart(bytes * 2, '0'))
}

describe('ES256 of a JWT-SVID', () => {
  const key = newKey()
  const n = ORDERS['ec-p256']
  const base64 = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url')
  const claims = { sub: 'spiffe://example.org/w', aud: ['a'], exp: NOW + 60 }
  const input = `${base64({ alg: 'ES256', kid: 'k' })}.${base64(claims)}`
  const der = new Uint8Array(sign('sha256', Buffer.from(input), key.privateKey))
  const good = numbersIn(der, n)

  function check(signature: Uint8Array): string {
    const publicKey: KeyObject = createPublicKey(key.privateKey)
    const keysOf = () => new Map([['k', publicKey]])
    const token = `${input}.${Buffer.from(signature).toString('base64url')}`
    try {
      validateJwtSvid(token, { audience: ['a'], now: NOW, keysOf })
      return 'believed'
    } catch (error) {
      return (error as { code: string }).code
    }
  }

  test('the signature as made, and with the other root as s', () => {
    expect(check(joined(fixed(good.r, 32), fixed(good.s, 32)))).toBe('believed')
    expect(check(joined(fixed(good.r, 32), fixed(n - good.s, 32)))).toBe('believed')
  })

  test.each(BAD_NUMBERS)('%s', (_, change) => {
    const [r, s] = change(good)
    // What is beyond the order may need a byte more than there is room for: as many for both.
    const bytes = r > 2n ** 256n || s > 2n ** 256n ? 33 : 32
    expect(check(joined(fixed(r, bytes), fixed(s, bytes)))).toBe('jwt_bad_signature')
  })

  test.each<[string, Uint8Array]>([
    ['DER', der],
    ['a byte less', joined(fixed(good.r, 32), fixed(good.s, 32)).subarray(0, -1)],
    ['a byte more', joined(fixed(good.r, 32), fixed(good.s, 32), hex('00'))],
    ['both halves a byte longer', joined(fixed(good.r, 33), fixed(good.s, 33))],
    ['r alone', fixed(good.r, 32)],
  ])('%s', (_, signature) => {
    expect(check(signature)).toBe('jwt_bad_signature')
  })
})

describe('RSA with PKCS #1 v1.5', () => {
  const key = newKey('rsa-2048' satisfies SigningKeyType)
  const algorithm = 'rsa-sha256'
  const bytes = 256
  const n = BigInt(`0x${Buffer.from(modulusOf(key)).toString('hex')}`)
  const info = requestInfo(key)
  const digest = new Uint8Array(hash('sha256', info, 'buffer'))
  const sha256 = '0609608648016503040201'
  const digestInfo = joined(hex(`3031300d${sha256}05000420`), digest)
  const good = new Uint8Array(sign('sha256', info, key.privateKey))

  /** RFC 8017 §9.2, with whatever as padding and content. */
  const padded = (content: Uint8Array, padding = bytes - 3 - content.length, filler = 0xff) =>
    joined(hex('0001'), new Uint8Array(padding).fill(filler), hex('00'), content)
  const raw = (encoded: Uint8Array) =>
    new Uint8Array(
      privateEncrypt({ key: key.privateKey, padding: constants.RSA_NO_PADDING }, encoded),
    )

  test('the signature as made, also when made here', async () => {
    expect(raw(padded(digestInfo))).toEqual(good)
    expect(await provesPossession(key, algorithm, good)).toBe(true)
  })

  test.each<[string, () => Uint8Array]>([
    ['nothing', () => new Uint8Array()],
    ['zeros', () => new Uint8Array(bytes)],
    ['one', () => fixed(1n, bytes)],
    ['the modulus', () => fixed(n, bytes)],
    ['the modulus less one', () => fixed(n - 1n, bytes)],
    ['a zero in front', () => joined(hex('00'), good)],
    ['a byte more', () => joined(good, hex('00'))],
    ['a byte less', () => good.subarray(0, -1)],
    ['beyond the modulus', () => magnitude(numberOf(good) + n)],
    ['another digest', () => raw(padded(joined(digestInfo.subarray(0, -1), hex('00'))))],
    ['no algorithm around the digest', () => raw(padded(digest))],
    [
      'no parameters of the algorithm',
      () => {
        return raw(padded(joined(hex(`302f300b${sha256}0420`), digest)))
      },
    ],
    [
      'an algorithm with something after it',
      () => {
        return raw(padded(joined(hex(`3033300f${sha256}050005000420`), digest)))
      },
    ],
    [
      'the name of SHA-1',
      () => {
        return raw(padded(joined(hex('3021300906052b0e03021a05000414'), digest.subarray(0, 20))))
      },
    ],
    [
      'the name of SHA-512',
      () => {
        return raw(padded(joined(hex('3051300d0609608648016503040203050004'), hex('20'), digest)))
      },
    ],
    [
      'a length in long form',
      () => {
        return raw(padded(joined(hex(`308131300d${sha256}05000420`), digest)))
      },
    ],
    [
      'short padding and a tail',
      () => {
        const head = padded(digestInfo, 8)
        return raw(joined(head, new Uint8Array(bytes - head.length)))
      },
    ],
    ['padding of zeros', () => raw(padded(digestInfo, undefined, 0))],
    [
      'padding of block type 2',
      () => {
        const block = padded(digestInfo)
        block[1] = 2
        return raw(block)
      },
    ],
    [
      'PSS',
      () => {
        const padding = constants.RSA_PKCS1_PSS_PADDING
        return new Uint8Array(sign('sha256', info, { key: key.privateKey, padding }))
      },
    ],
    ['SHA-384', () => new Uint8Array(sign('sha384', info, key.privateKey))],
  ])('%s', async (_, make) => {
    expect(await provesPossession(key, algorithm, make())).toBe(false)
  })
})

function modulusOf(key: TestKey): Uint8Array {
  const { n } = createPublicKey(key.privateKey).export({ format: 'jwk' })
  return new Uint8Array(Buffer.from(n!, 'base64url'))
}

test('a signature by one key does not prove another', async () => {
  const [mine, theirs] = [newKey(), newKey()]
  const signature = new Uint8Array(sign('sha256', requestInfo(mine), theirs.privateKey))
  expect(await provesPossession(mine, ES256, signature)).toBe(false)
})
