import { sign } from 'node:crypto'
import { describe, expect, test } from 'vitest'
import { CHAIN_LENGTH_MAX, CHAIN_SIGNATURE_CHECKS_MAX } from '../../../src/base/limits.ts'
import {
  type Certificate,
  parseCertificate,
  parseTbsCertificate,
} from '../../../src/x509/certificate.ts'
import { derCursor, readContent, sequence, TAG, tlv } from '../../../src/x509/der.ts'
import { encodeExtension } from '../../../src/x509/extensions.ts'
import { encodeName } from '../../../src/x509/name.ts'
import { OID } from '../../../src/x509/oid.ts'
import { verifyCertificateSignature, verifyChain } from '../../../src/x509/path.ts'
import { parsePemOf } from '../../../src/x509/pem.ts'
import { subjectKeyId } from '../../../src/x509/spki.ts'
import {
  type CertificateTemplate,
  encodeCertificate,
  encodeTbsCertificate,
} from '../../../src/x509/template.ts'
import { NOW, newKey, signTemplate, type TestKey } from '../../rigs/issuing.ts'
import { openssl, verifyStrictly } from '../../rigs/openssl.ts'

interface Node {
  readonly name: string
  readonly key: TestKey
  readonly certificate: Certificate
}

let serial = 0

function issue(
  name: string,
  by: Node | undefined,
  change: Partial<CertificateTemplate> = {},
): Node {
  const key = newKey()
  const subject = encodeName({ commonName: [name] })
  const template: CertificateTemplate = {
    serialNumber: Uint8Array.of(0x40, ++serial >> 8, serial & 0xff),
    signatureAlgorithm: 'ecdsa-sha256',
    issuer: by ? by.certificate.subject : subject,
    validity: { notBefore: NOW - 100, notAfter: NOW + 100 },
    subject,
    subjectPublicKeyInfo: key.publicKey,
    isCa: true,
    keyUsage: ['keyCertSign'],
    extKeyUsage: [],
    uriNames: ['spiffe://example.org'],
    dnsNames: [],
    subjectKeyId: subjectKeyId(key.publicKey),
    ...(by ? { authorityKeyId: by.certificate.subjectKeyId } : {}),
    ...change,
  }
  const der = signTemplate(template, (by?.key ?? key).privateKey)
  return { name, key, certificate: parseCertificate(der) }
}

const NO_KEY_ID = new Uint8Array()
const LEAF = { isCa: false, keyUsage: ['digitalSignature'] } as const
const root = issue('root', undefined)

function chains(leaf: Node, intermediates: Node[], roots: Node[] = [root], now = NOW) {
  return verifyChain({
    leaf: leaf.certificate,
    intermediates: intermediates.map((node) => node.certificate),
    roots: roots.map((node) => node.certificate),
    now,
  })
}

const refused = (code: string, text?: string) =>
  expect.objectContaining({
    kind: 'unauthenticated',
    code,
    ...(text ? { message: expect.stringContaining(text) } : {}),
  })

describe('chains that hold', () => {
  test('leaf, intermediate, root; openssl agrees', () => {
    const middle = issue('middle', root)
    const leaf = issue('leaf', middle, LEAF)
    expect(chains(leaf, [middle])).toEqual([
      [leaf.certificate, middle.certificate, root.certificate],
    ])
    const [l, m, r] = [leaf, middle, root].map((node) => node.certificate.der)
    verifyStrictly({ leaf: l!, intermediates: [m!], root: r! }, NOW)
  })

  test('a root is a chain of one, while it is valid', () => {
    expect(chains(root, [])).toEqual([[root.certificate]])
    expect(() => chains(root, [], [root], NOW + 101)).toThrow(refused('certificate_expired'))
  })

  test('all chains are found: a cross-signed intermediate has two', () => {
    const other = issue('other root', undefined)
    const middle = issue('middle', root)
    const cross = parseCertificate(
      signTemplate(
        {
          serialNumber: Uint8Array.of(0x41),
          signatureAlgorithm: 'ecdsa-sha256',
          issuer: other.certificate.subject,
          validity: { notBefore: NOW - 1, notAfter: NOW + 1 },
          subject: middle.certificate.subject,
          subjectPublicKeyInfo: middle.key.publicKey,
          isCa: true,
          keyUsage: ['keyCertSign'],
          extKeyUsage: [],
          uriNames: [],
          dnsNames: [],
          subjectKeyId: middle.certificate.subjectKeyId,
          authorityKeyId: other.certificate.subjectKeyId,
        },
        other.key.privateKey,
      ),
    )
    const leaf = issue('leaf', middle, LEAF)
    const twin = { ...middle, certificate: cross }
    expect(chains(leaf, [middle, twin], [root, other])).toHaveLength(2)
  })

  test.each(['ec-p384', 'rsa-2048', 'ed25519'] as const)('signatures by %s', (type) => {
    const key = newKey(type)
    const algorithm = (
      { 'ec-p384': 'ecdsa-sha384', 'rsa-2048': 'rsa-sha256', ed25519: 'ed25519' } as const
    )[type]
    const subject = encodeName({ commonName: [type] })
    const certificate = parseCertificate(
      signTemplate(
        {
          serialNumber: Uint8Array.of(1),
          signatureAlgorithm: algorithm,
          issuer: subject,
          validity: { notBefore: NOW - 1, notAfter: NOW + 1 },
          subject,
          subjectPublicKeyInfo: key.publicKey,
          isCa: true,
          keyUsage: ['keyCertSign'],
          extKeyUsage: [],
          uriNames: [],
          dnsNames: [],
          subjectKeyId: subjectKeyId(key.publicKey),
        },
        key.privateKey,
      ),
    )
    expect(verifyCertificateSignature(certificate, certificate)).toBe(true)
    expect(verifyCertificateSignature(certificate, root.certificate)).toBe(false)
  })

  test('RSA-PSS as openssl makes it', () => {
    const pem = openssl(
      [
        'req',
        '-x509',
        '-newkey',
        'rsa:2048',
        '-nodes',
        '-keyout',
        'k',
        '-subj',
        '/CN=pss',
        '-sha256',
      ].concat(['-sigopt', 'rsa_padding_mode:pss', '-sigopt', 'rsa_pss_saltlen:32']),
      {},
    )
    const certificate = parseCertificate(parsePemOf(pem, 'CERTIFICATE')[0]!)
    expect(certificate.signatureAlgorithm).toBe('rsa-pss-sha256')
    expect(verifyCertificateSignature(certificate, certificate)).toBe(true)
  })
})

describe('chains that do not hold', () => {
  const middle = issue('middle', root)
  const leaf = issue('leaf', middle, LEAF)

  test('no way to a root', () => {
    expect(() => chains(leaf, [])).toThrow(
      refused('certificate_untrusted', 'x509: certificate signed by unknown authority'),
    )
    expect(() => chains(leaf, [middle], [])).toThrow(refused('certificate_untrusted'))
    expect(() => chains(leaf, [middle], [issue('root', undefined)])).toThrow(
      refused('certificate_untrusted'),
    )
  })

  test('an intermediate is no root', () => {
    expect(() => chains(issue('x', issue('alone', root), LEAF), [middle])).toThrow(
      refused('certificate_untrusted'),
    )
  })

  test.each([
    [NOW - 101, 'before'],
    [NOW + 101, 'after'],
  ])('outside its validity (%i)', (now, relation) => {
    expect(() => chains(leaf, [middle], [root], now)).toThrow(
      refused('certificate_expired', `is ${relation} `),
    )
  })

  test('inside to the second', () => {
    expect(chains(leaf, [middle], [root], NOW - 100)).toHaveLength(1)
    expect(chains(leaf, [middle], [root], NOW + 100)).toHaveLength(1)
  })

  test.each<[string, Partial<CertificateTemplate>, string]>([
    [
      'an expired intermediate',
      { validity: { notBefore: 0, notAfter: NOW - 1 } },
      'certificate_expired',
    ],
    ['an intermediate that is no CA', LEAF, 'certificate_untrusted'],
    ['a CA that may not sign certificates', { keyUsage: ['cRLSign'] }, 'certificate_untrusted'],
  ])('%s', (_name, change, code) => {
    const bad = issue('bad', root, change)
    expect(() => chains(issue('leaf', bad, LEAF), [bad])).toThrow(refused(code))
  })

  test('a path length that is exceeded', () => {
    const short = issue('short', root, { pathLength: 0 })
    const below = issue('below', short)
    expect(chains(issue('leaf', short, LEAF), [short])).toHaveLength(1)
    expect(() => chains(issue('leaf', below, LEAF), [below, short])).toThrow(
      refused('certificate_untrusted', 'too many intermediates'),
    )
  })

  test('a signature by another key under the right name', () => {
    const impostor = issue('middle', root)
    const forged = issue('leaf', impostor, {
      ...LEAF,
      authorityKeyId: middle.certificate.subjectKeyId,
    })
    expect(() => chains(forged, [middle])).toThrow(refused('certificate_untrusted'))
  })

  test.each([
    ['leaf', true],
    ['intermediate', false],
  ])('a critical extension nobody processed, in the %s', (_name, inLeaf) => {
    const strange = inLeaf ? withStrangeExtension(middle) : withStrangeExtension(root)
    const end = inLeaf ? strange : issue('leaf', strange, LEAF)
    expect(() => chains(end, inLeaf ? [middle] : [strange])).toThrow(
      refused('certificate_not_understood', 'unhandled critical extension'),
    )
  })

  test.each([
    ['critical', true],
    ['not critical, as RFC 5280 forbids', false],
  ])('name constraints, %s', (_name, critical) => {
    const dns = tlv(0x82, new TextEncoder().encode('example.org'))
    const permitted = sequence(tlv(0xa0, sequence(dns)))
    const constrained = withExtension(
      root,
      encodeExtension(OID.nameConstraints, critical, permitted),
    )
    expect(() => chains(issue('leaf', constrained, LEAF), [constrained])).toThrow(
      refused('certificate_not_understood', 'name constraints are not supported'),
    )
  })
})

describe('hostile chains cost little', () => {
  test('chains and depth are bounded', () => {
    let node = root
    const nodes: Node[] = []
    for (let depth = 0; depth < CHAIN_LENGTH_MAX; depth++) {
      node = issue(`depth ${depth}`, node)
      nodes.push(node)
    }
    const fits = nodes.slice(0, CHAIN_LENGTH_MAX - 1)
    expect(chains(issue('leaf', fits.at(-1)!, LEAF), fits)).toHaveLength(1)
    expect(() => chains(issue('leaf', node, LEAF), nodes)).toThrow(
      refused('certificate_untrusted', 'too many certificates'),
    )
  })

  test('a maze of equal names ends at the limit of signature checks', () => {
    // Every one claims every other as its issuer; none leads to a root.
    const maze = Array.from({ length: CHAIN_LENGTH_MAX - 1 }, () => {
      const key = newKey()
      const name = encodeName({ commonName: ['maze'] })
      const tbs = encodeTbsCertificate({
        serialNumber: Uint8Array.of(1),
        signatureAlgorithm: 'ecdsa-sha256',
        issuer: name,
        validity: { notBefore: NOW - 1, notAfter: NOW + 1 },
        subject: name,
        subjectPublicKeyInfo: key.publicKey,
        isCa: true,
        keyUsage: ['keyCertSign'],
        extKeyUsage: [],
        uriNames: [],
        dnsNames: [],
        subjectKeyId: new Uint8Array(20),
      })
      const der = encodeCertificate(tbs, 'ecdsa-sha256', sign('sha256', tbs, key.privateKey))
      return { name: 'maze', key, certificate: parseCertificate(der) }
    })
    const started = process.cpuUsage()
    const end = issue('leaf', maze[0], { ...LEAF, authorityKeyId: new Uint8Array(20) })
    expect(() => chains(end, maze)).toThrow(refused('certificate_untrusted'))
    expect(process.cpuUsage(started).user).toBeLessThan(500_000)
  })

  test('certificates of one key under one name are walked once, not in every order', () => {
    const key = newKey()
    const name = encodeName({ commonName: ['twin'] })
    const twins = Array.from({ length: CHAIN_LENGTH_MAX - 1 }, (_, i) => {
      const der = signTemplate(
        {
          serialNumber: Uint8Array.of(1 + i),
          signatureAlgorithm: 'ecdsa-sha256',
          issuer: name,
          validity: { notBefore: NOW - 1, notAfter: NOW + 1 },
          subject: name,
          subjectPublicKeyInfo: key.publicKey,
          isCa: true,
          keyUsage: ['keyCertSign'],
          extKeyUsage: [],
          uriNames: [],
          dnsNames: [],
          subjectKeyId: subjectKeyId(key.publicKey),
        },
        key.privateKey,
      )
      return { name: 'twin', key, certificate: parseCertificate(der) }
    })
    const end = issue('leaf', twins[0], LEAF)
    const started = process.cpuUsage()
    expect(() => chains(end, twins)).toThrow(refused('certificate_untrusted'))
    expect(process.cpuUsage(started).user).toBeLessThan(100_000)
    expect(chains(end, twins.slice(1), [twins[0]!])).toHaveLength(1)
  })

  test('signature checks are counted', () => {
    const namesakes = (count: number) =>
      Array.from({ length: count }, () => issue('root', undefined, { subjectKeyId: NO_KEY_ID }))
    const child = issue('child', namesakes(1)[0], LEAF)
    const roots = namesakes(CHAIN_SIGNATURE_CHECKS_MAX + 1)
    expect(() => chains(child, [], roots.slice(1))).toThrow(
      refused('certificate_untrusted', 'signed by unknown authority'),
    )
    expect(() => chains(child, [], roots)).toThrow(
      refused('certificate_untrusted', 'signature check attempts limit reached'),
    )
  })
})

/** A certificate like any other with one more extension, critical and unknown. */
function withStrangeExtension(by: Node): Node {
  return withExtension(by, encodeExtension('1.2.3.4', true, sequence()))
}

function withExtension(by: Node, extension: Uint8Array): Node {
  const plain = issue('strange', by, by === root ? {} : LEAF)
  const tbs = appendExtension(plain.certificate.tbs, extension)
  const der = encodeCertificate(tbs, 'ecdsa-sha256', sign('sha256', tbs, by.key.privateKey))
  return { ...plain, certificate: parseCertificate(der) }
}

function appendExtension(tbs: Uint8Array, extension: Uint8Array): Uint8Array {
  const parsed = parseTbs(tbs)
  return sequence(parsed.before, tlv(0xa3, sequence(parsed.list, extension)))
}

function parseTbs(tbs: Uint8Array): { before: Uint8Array; list: Uint8Array } {
  const { extensions } = parseTbsCertificate(tbs)
  const whole = readContent(derCursor(tbs), TAG.sequence)
  const explicit = readContent(derCursor(extensions), 0xa3)
  return {
    before: whole.subarray(0, whole.length - extensions.length),
    list: readContent(derCursor(explicit), TAG.sequence),
  }
}
