import { describe, expect, test } from 'vitest'
import { encodeOid, sequence, setOf, TAG, tlv } from '../../../src/x509/der.ts'
import {
  commonName,
  encodeName,
  formatName,
  isEmptyName,
  nameFields,
  normalizeName,
} from '../../../src/x509/name.ts'
import { openssl } from '../../rigs/openssl.ts'

const attribute = (oid: string, tag: number, bytes: Uint8Array) =>
  setOf([sequence(encodeOid(oid), tlv(tag, bytes))])
const ascii = (text: string) => new TextEncoder().encode(text)

describe('the order and form of Go', () => {
  test.each([
    [{ country: ['US'], organization: ['SPIRE'] }, 'O=SPIRE,C=US'],
    [
      { country: ['US'], organization: ['SPIFFE'], serialNumber: ['12'] },
      'SERIALNUMBER=12,O=SPIFFE,C=US',
    ],
    [{ commonName: ['a.example.org'], country: ['US'] }, 'CN=a.example.org,C=US'],
    [
      {
        organization: ['o'],
        organizationalUnit: ['u'],
        locality: ['l'],
        province: ['s'],
        streetAddress: ['r'],
        postalCode: ['p'],
        commonName: ['c'],
        serialNumber: ['7'],
        country: ['DE'],
      },
      'SERIALNUMBER=7,CN=c,OU=u,O=o,POSTALCODE=p,STREET=r,L=l,ST=s,C=DE',
    ],
    [{ organizationalUnit: ['b', 'a'] }, 'OU=a+OU=b'],
    [{ commonName: ['a,b+c"d\\e<f>g;h'] }, 'CN=a\\,b\\+c\\"d\\\\e\\<f\\>g\\;h'],
    [{ commonName: [' x '] }, 'CN=\\ x\\ '],
    [{ commonName: ['#x#'] }, 'CN=\\#x#'],
    [{}, ''],
  ])('%j prints as %s', (fields, text) => {
    expect(formatName(encodeName(fields))).toBe(text)
  })

  test('text that fits is a PrintableString, other text UTF-8', () => {
    const printable = Buffer.from(encodeName({ commonName: ['a-b.c'] })).toString('hex')
    expect(printable).toContain('1305612d622e63')
    expect(Buffer.from(encodeName({ commonName: ['a_b'] })).toString('hex')).toContain('0c03615f62')
    expect(Buffer.from(encodeName({ commonName: ['ü'] })).toString('hex')).toContain('0c02c3bc')
  })
})

test('foreign attributes print in hex and are dropped when a name is made again', () => {
  const der = sequence(
    attribute('2.5.4.45', TAG.bitString, Uint8Array.of(0, 1)),
    attribute('2.5.4.3', TAG.utf8String, ascii('x')),
  )
  expect(formatName(der)).toBe('CN=x,2.5.4.45=#03020001')
  expect(formatName(normalizeName(der))).toBe('CN=x')
  expect(formatName(normalizeName(der, 'y'))).toBe('CN=y')
})

test('old string types are read', () => {
  const der = sequence(
    attribute('2.5.4.10', TAG.bmpString, Uint8Array.of(0, 0x53, 0, 0xfc)),
    attribute('2.5.4.11', TAG.t61String, Uint8Array.of(0xfc)),
    attribute('2.5.4.3', TAG.ia5String, ascii('first')),
    attribute('2.5.4.3', TAG.ia5String, ascii('last')),
  )
  expect(nameFields(der)).toEqual({
    organization: ['Sü'],
    organizationalUnit: ['ü'],
    commonName: ['last'],
  })
  expect(commonName(der)).toBe('last')
})

test.each([
  ['an empty RDN', sequence(tlv(TAG.set))],
  ['broken UTF-8', sequence(attribute('2.5.4.3', TAG.utf8String, Uint8Array.of(0xff)))],
  ['an odd BMPString', sequence(attribute('2.5.4.3', TAG.bmpString, Uint8Array.of(0)))],
  ['trailing data', new Uint8Array([...sequence(), 5, 0])],
])('%s is refused', (_name, der) => {
  expect(() => nameFields(der)).toThrow(expect.objectContaining({ code: 'malformed_der' }))
})

test('only a name without attributes is empty', () => {
  expect(isEmptyName(encodeName({}))).toBe(true)
  expect(isEmptyName(encodeName({ country: ['US'] }))).toBe(false)
})

test('openssl reads what we write', () => {
  const der = encodeName({ country: ['US'], organization: ['Sü'], commonName: ['a.b'] })
  const text = openssl(['asn1parse', '-inform', 'PEM', '-in', 'name.pem'], {
    'name.pem': `-----BEGIN X-----\n${Buffer.from(der).toString('base64')}\n-----END X-----\n`,
  })
  expect(text).toMatch(/countryName[\s\S]*PRINTABLESTRING\s*:US[\s\S]*UTF8STRING[\s\S]*:a\.b/)
})
