import { verify } from 'node:crypto'
import { describe, expect, test } from 'vitest'
import { CSR_BYTES_MAX } from '../../../src/base/limits.ts'
import {
  createCertificateRequest,
  encodeCertificateRequestInfo,
  parseCertificateRequest,
  requestedNames,
  requestedSubject,
  sliceOf,
} from '../../../src/x509/csr.ts'
import {
  contextTag,
  encodeOctetBits,
  encodeOid,
  encodeSmallUnsigned,
  sequence,
  setOf,
  TAG,
  tlv,
} from '../../../src/x509/der.ts'
import { encodeName, formatName } from '../../../src/x509/name.ts'
import { OID, SIGNATURE_ALGORITHMS } from '../../../src/x509/oid.ts'
import { formatPem, parsePemOf } from '../../../src/x509/pem.ts'
import { importPublicKey } from '../../../src/x509/spki.ts'
import { newCsr, newKey } from '../../rigs/issuing.ts'
import { openssl } from '../../rigs/openssl.ts'

const SUBJECT = encodeName({ country: ['US'], commonName: ['x'] })

describe.each(['ec-p256', 'ec-p384', 'ec-p521', 'rsa-2048', 'ed25519'] as const)('%s', (type) => {
  const key = newKey(type)
  const csr = createCertificateRequest({
    ...key,
    subject: SUBJECT,
    uriNames: ['spiffe://example.org/x'],
    dnsNames: ['a.example.org', 'b.example.org'],
  })

  test('what we make, openssl verifies', () => {
    const args = ['req', '-in', 'csr.pem', '-noout', '-verify', '-text']
    const text = openssl(args, { 'csr.pem': formatPem('CERTIFICATE REQUEST', csr) })
    expect(text).toContain('DNS:a.example.org, DNS:b.example.org, URI:spiffe://example.org/x')
  })

  test('what is read refers to the buffer it was read from', () => {
    const received = Buffer.concat([Buffer.alloc(7), csr, Buffer.alloc(3)])
    const view = received.subarray(7, 7 + csr.length)
    const request = parseCertificateRequest(view)
    expect(request.key.type).toBe(type.startsWith('rsa') ? 'rsa' : type)
    expect(Buffer.from(sliceOf(view, request.publicKey))).toEqual(Buffer.from(key.publicKey))
    const { hash } = SIGNATURE_ALGORITHMS[request.signatureAlgorithm!]
    const proved = verify(
      hash,
      sliceOf(view, request.info),
      importPublicKey(key.publicKey),
      sliceOf(view, request.signature),
    )
    expect(proved).toBe(true)
    expect(requestedNames(request)).toEqual({
      uriNames: ['spiffe://example.org/x'],
      dnsNames: ['a.example.org', 'b.example.org'],
    })
    expect(formatName(requestedSubject(request))).toBe('CN=x,C=US')
  })
})

test('what openssl makes is read', () => {
  const config = [
    '[req]',
    'prompt=no',
    'distinguished_name=dn',
    'req_extensions=ext',
    '[dn]',
    'CN=x',
    '[ext]',
    'subjectAltName=URI:spiffe://example.org/y,IP:10.0.0.1,email:a@b.c',
    'basicConstraints=critical,CA:TRUE',
    '',
  ].join('\n')
  const pem = openssl(
    ['req', '-new', '-newkey', 'rsa:2048', '-nodes', '-keyout', 'k', '-config', 'c'],
    { c: config },
  )
  const [der] = parsePemOf(pem, 'CERTIFICATE REQUEST')
  const request = parseCertificateRequest(der!)
  expect(request.key).toEqual({ type: 'rsa', bits: 2048 })
  expect(requestedNames(request).uriNames).toEqual(['spiffe://example.org/y'])
})

describe('requests that are refused', () => {
  const key = newKey()
  const info = (version: number, ...rest: Uint8Array[]) =>
    sequence(encodeSmallUnsigned(version), SUBJECT, key.publicKey, ...rest)
  const signed = (body: Uint8Array) =>
    sequence(body, SIGNATURE_ALGORITHMS['ecdsa-sha256'].identifier, encodeOctetBits(SUBJECT))
  const attributes = tlv(contextTag(0, true))

  test('the frame of these fixtures is itself accepted', () => {
    expect(requestedNames(parseCertificateRequest(signed(info(0, attributes))))).toEqual({
      uriNames: [],
      dnsNames: [],
    })
    // RFC 2986 wants the attributes, Go and OpenSSL read requests without.
    expect(parseCertificateRequest(signed(info(0))).attributes.length).toBe(0)
  })

  test.each([
    ['version 2', signed(info(1, attributes))],
    ['something after the attributes', signed(info(0, attributes, SUBJECT))],
    ['trailing data', new Uint8Array([...signed(info(0, attributes)), 0])],
    ['no signature', sequence(info(0, attributes))],
    ['nothing', new Uint8Array()],
    ['more than 16 KiB', signed(info(0, tlv(contextTag(0, true), new Uint8Array(17_000))))],
  ])('%s', (_name, der) => {
    expect(() => parseCertificateRequest(der)).toThrow(
      expect.objectContaining({ kind: 'invalid_argument', code: 'malformed_der' }),
    )
  })

  test('16 KiB are accepted, a byte more is not', () => {
    const sized = (fill: number) => signed(info(0, tlv(contextTag(0, true), new Uint8Array(fill))))
    const overhead = sized(16_000).length - 16_000
    const most = sized(CSR_BYTES_MAX - overhead)
    expect(most.length).toBe(CSR_BYTES_MAX)
    expect(parseCertificateRequest(most).key.type).toBe('ec-p256')
    expect(() => parseCertificateRequest(sized(CSR_BYTES_MAX - overhead + 1))).toThrow(
      expect.objectContaining({ code: 'malformed_der' }),
    )
  })

  test('two extension requests', () => {
    const one = encodeCertificateRequestInfo(SUBJECT, key.publicKey, {
      uriNames: ['a:b'],
      dnsNames: [],
    })
    const extension = sequence(
      encodeOid(OID.extensionRequest),
      setOf([sequence(sequence(encodeOid('1.2.3'), tlv(TAG.octetString)))]),
    )
    const twice = signed(info(0, tlv(contextTag(0, true), extension, extension)))
    expect(parseCertificateRequest(signed(one)).key.type).toBe('ec-p256')
    expect(() => requestedNames(parseCertificateRequest(twice))).toThrow(
      expect.objectContaining({ code: 'malformed_der' }),
    )
  })
})

test('an unknown signature algorithm is left undefined', () => {
  const parsed = parseCertificateRequest(newCsr())
  expect(parsed.signatureAlgorithm).toBe('ecdsa-sha256')
  const der = newCsr().slice()
  const at = Buffer.from(der).lastIndexOf(Buffer.from('2a8648ce3d040302', 'hex'))
  der[at + 7] = 1
  expect(parseCertificateRequest(der).signatureAlgorithm).toBeUndefined()
})
