import { describe, expect, test } from 'vitest'
import { SignetError } from '../../../src/base/error.ts'
import type { AttestedAgent } from '../../../src/spiffe/attested-agent.ts'
import type { RegistrationEntry } from '../../../src/spiffe/registration-entry.ts'
import { SpiffeId } from '../../../src/spiffe/spiffe-id.ts'
import { TrustDomain } from '../../../src/spiffe/trust-domain.ts'
import { agentToProto } from '../../../src/wire/convert/agent.ts'
import { checkDnsName, checkWildcardOverlap } from '../../../src/wire/convert/dns-name.ts'
import {
  checkNewEntry,
  type EntryFields,
  entryFromProto,
  entryPatchFromProto,
  entryToProto,
} from '../../../src/wire/convert/entry.ts'
import { goTimeComplaint, parseGoTime } from '../../../src/wire/convert/go-time.ts'
import { numberFromInt64 } from '../../../src/wire/convert/int64.ts'
import {
  matchBehaviorFromProto,
  selectorKeysFromProto,
  trustDomainNamesFromProto,
} from '../../../src/wire/convert/selector.ts'
import {
  agentIdFromProto,
  memberIdFromProto,
  workloadIdFromProto,
} from '../../../src/wire/convert/spiffe-id.ts'
import { AgentMask } from '../../../src/wire/gen/spire/api/types/agent.ts'
import { Entry, EntryMask } from '../../../src/wire/gen/spire/api/types/entry.ts'

const TD = TrustDomain.parse('example.org')
const id = (path: string, trustDomain = 'example.org') => ({ trustDomain, path })

const ENTRY: RegistrationEntry = {
  id: 'entry-1',
  spiffeId: SpiffeId.parse('spiffe://example.org/web'),
  parentId: SpiffeId.parse('spiffe://example.org/spire/agent/x/1'),
  selectors: [
    { type: 'unix', value: 'uid:1' },
    { type: 'unix', value: 'gid:1' },
  ],
  x509SvidTtlSeconds: 60,
  jwtSvidTtlSeconds: 30,
  federatesWith: ['other.org'],
  admin: true,
  downstream: true,
  expiresAt: 1_700_000_000,
  dnsNames: ['b.example.org', 'a.example.org'],
  revisionNumber: 7n,
  storeSvid: false,
  hint: 'internal',
  createdAt: 1_600_000_000,
  disableX509SvidPrefetch: true,
  jwtSvidIncludeJti: true,
}

describe('SPIFFE IDs', () => {
  test.each([
    ['a missing ID', undefined, 'request must specify SPIFFE ID'],
    ['a missing trust domain', id('/x', ''), 'trust domain is missing'],
    [
      'another trust domain',
      id('/x', 'b.org'),
      '"spiffe://b.org/x" is not a member of trust domain "example.org"',
    ],
    [
      'an empty path',
      id(''),
      '"spiffe://example.org" is not a workload in trust domain "example.org"; path is empty',
    ],
    [
      'a reserved path',
      id('/spire/agent/x'),
      '"spiffe://example.org/spire/agent/x" is not a workload in trust domain "example.org"; path is in the reserved namespace',
    ],
    ['a relative path', id('x'), 'path must have a leading slash'],
  ])('a workload ID is not %s', (_name, proto, text) => {
    expectInvalid(() => workloadIdFromProto(proto, TD), text)
  })

  test('agent and member classes', () => {
    expect(agentIdFromProto(id('/spire/agent/x/1'), TD).path).toBe('/spire/agent/x/1')
    expect(memberIdFromProto(id('/spire/server'), TD).path).toBe('/spire/server')
    expect(workloadIdFromProto(id('/spirex'), TD).path).toBe('/spirex')
    expectInvalid(
      () => agentIdFromProto(id('/web'), TD),
      '"spiffe://example.org/web" is not an agent in trust domain "example.org"; path is not in the agent namespace',
    )
    expectInvalid(
      () => memberIdFromProto(id(''), TD),
      '"spiffe://example.org" is not a member of trust domain "example.org"; path is empty',
    )
  })
})

describe('entries', () => {
  test('survive the way out and back', () => {
    const { revisionNumber: _r, createdAt: _c, ...fields } = ENTRY
    const decoded = Entry.decode(Entry.encode(entryToProto(ENTRY)).finish())
    expect(entryFromProto(decoded, TD)).toEqual(fields)
    expect(decoded.revisionNumber).toBe(7n)
    expect(decoded.createdAt).toBe(1_600_000_000n)
  })

  test('additional attributes are absent when nothing is set', () => {
    const entry = { ...ENTRY, disableX509SvidPrefetch: false, jwtSvidIncludeJti: false }
    expect(entryToProto(entry).additionalAttributes).toBeUndefined()
  })

  const bits = Object.keys(EntryMask.create()) as (keyof EntryMask)[]

  test('an output mask of nothing keeps the id alone', () => {
    expect(entryToProto(ENTRY, EntryMask.create())).toEqual(Entry.create({ id: 'entry-1' }))
  })

  test.each(bits)('an output mask of %s keeps the id and that field', (bit) => {
    const whole = entryToProto({ ...ENTRY, storeSvid: true })
    const masked = entryToProto(
      { ...ENTRY, storeSvid: true },
      { ...EntryMask.create(), [bit]: true },
    )
    expect(masked).toEqual({ ...Entry.create({ id: 'entry-1' }), [bit]: whole[bit] })
  })

  const inputBits = bits.filter((bit) => bit !== 'revisionNumber' && bit !== 'createdAt')

  test.each(inputBits)('an input mask of %s takes that field only', (bit) => {
    const patch = entryPatchFromProto(entryToProto(ENTRY), TD, {
      ...EntryMask.create(),
      [bit]: true,
    })
    expect(patch.id).toBe('entry-1')
    expect(Object.keys(patch)).toHaveLength(bit === 'additionalAttributes' ? 3 : 2)
    expect(entryFromProto(entryToProto(ENTRY), TD)).toMatchObject(patch)
  })

  test('masked-out fields may be missing or malformed', () => {
    const proto = Entry.create({ id: 'x', admin: true, parentId: id('/bad/', '') })
    const mask = EntryMask.create({ admin: true, revisionNumber: true, createdAt: true })
    expect(entryPatchFromProto(proto, TD, mask)).toEqual({ id: 'x', admin: true })
  })

  test.each([
    [{ parentId: undefined }, 'invalid parent ID: request must specify SPIFFE ID'],
    [{ spiffeId: id('/spire/x') }, /^invalid spiffe ID: .*path is in the reserved namespace$/],
    [{ selectors: [] }, 'selector list is empty'],
    [{ selectors: [{ type: '', value: 'x' }] }, 'missing selector type'],
    [{ selectors: [{ type: 'a:b', value: 'x' }] }, "selector type contains ':'"],
    [{ selectors: [{ type: 'a', value: '' }] }, 'missing selector value'],
    [{ dnsNames: ['a..b'] }, /^invalid DNS name: idna error/],
    [{ federatesWith: ['UPPER'] }, /^invalid federated trust domain: /],
    [{ hint: 'x'.repeat(1025) }, 'hint is too long, max length is 1024 characters'],
    [{ hint: 'é'.repeat(513) }, 'hint is too long, max length is 1024 characters'],
    [{ expiresAt: 2n ** 60n }, 'expiry is out of range'],
  ])('refused: %o', (change, text) => {
    const proto = { ...entryToProto(ENTRY), ...change }
    expectInvalid(() => entryFromProto(proto, TD), text)
  })

  test.each([
    ['selectors', 1_000, (n: number) => ({ selectors: list(n, selectorOf) })],
    ['DNS names', 1_000, (n: number) => ({ dnsNames: list(n, (i) => `n${i}.org`) })],
    ['federated', 1_000, (n: number) => ({ federatesWith: list(n, (i) => `td${i}`) })],
    ['hint bytes', 1_024, (n: number) => ({ hint: 'x'.repeat(n) })],
  ])('%s are bounded at %i', (_name, max, change) => {
    const build = (n: number) => entryFromProto({ ...entryToProto(ENTRY), ...change(n) }, TD)
    expect(build(max).id).toBe('entry-1')
    expect(() => build(max + 1)).toThrow(SignetError)
  })

  test('what is unknown in additional attributes is dropped, however much', () => {
    const plain = Entry.encode(entryToProto({ ...ENTRY, jwtSvidIncludeJti: true })).finish()
    // Field 16 once more, with 100,000 bytes of an unknown field 99: decoders merge the two.
    const filler = Buffer.concat([
      Buffer.from([0x9a, 0x06, 0xa0, 0x8d, 0x06]),
      Buffer.alloc(100_000),
    ])
    const head = Buffer.from([0x82, 0x01, 0xa5, 0x8d, 0x06])
    const entry = entryFromProto(Entry.decode(Buffer.concat([plain, head, filler])), TD)
    expect(entry).toMatchObject({ id: 'entry-1' })
    expect(Entry.encode(entryToProto({ ...ENTRY, ...entry })).finish().length).toBeLessThan(1_000)
  })

  test('DNS names keep their order', () => {
    const proto = { ...entryToProto(ENTRY), dnsNames: ['b.org', 'a.org'] }
    expect(entryFromProto(proto, TD).dnsNames).toEqual(['b.org', 'a.org'])
  })

  test('federated trust domains are taken in both forms and once', () => {
    const proto = { ...entryToProto(ENTRY), federatesWith: ['b.org', 'spiffe://b.org', 'a.org'] }
    expect(entryFromProto(proto, TD).federatesWith).toEqual(['b.org', 'a.org'])
  })

  const { revisionNumber: _r, createdAt: _c, ...FIELDS } = ENTRY
  test.each<[string, Partial<EntryFields>, string]>([
    ['long id', { id: 'x'.repeat(256) }, 'invalid registration entry: entry ID too long'],
    ['id', { id: 'a/b' }, 'invalid registration entry: entry ID contains invalid characters'],
    ['TTL', { x509SvidTtlSeconds: -1 }, 'invalid registration entry: X509SvidTtl is not set'],
    ['JWT TTL', { jwtSvidTtlSeconds: -1 }, 'invalid registration entry: JwtSvidTtl is not set'],
    [
      'stored without prefetch',
      { storeSvid: true },
      'specifying cache behaviour is incompatible with storable SVIDs',
    ],
    [
      'mixed selector types of a stored one',
      {
        storeSvid: true,
        disableX509SvidPrefetch: false,
        selectors: [
          { type: 'a', value: '1' },
          { type: 'b', value: '1' },
        ],
      },
      'invalid registration entry: selector types must be the same when store SVID is enabled',
    ],
  ])('rules of a new entry: %s', (_name, change, text) => {
    expectInvalid(() => checkNewEntry({ ...FIELDS, ...change }), `datastore-validation: ${text}`)
  })

  test('a new entry may leave its id to the server', () => {
    expect(() => checkNewEntry({ ...FIELDS, id: '' })).not.toThrow()
    expect(() => checkNewEntry({ ...FIELDS, id: 'x'.repeat(255) })).not.toThrow()
  })
})

describe('DNS names', () => {
  test.each(['com', 'example.com', '*.example.com', 'xn--ls8h.org', 'a-hello.com', '_a.b'])(
    '%s is taken',
    (name) => expect(checkDnsName(name)).toBe(name),
  )

  test.each([
    ['.', 'domain ends with dot'],
    ['example.com.', 'domain ends with dot'],
    ['', 'empty or only whitespace'],
    [' ', 'empty or only whitespace'],
    ['*.', 'empty or only whitespace'],
    ['*', 'wildcard must be first label'],
    ['*.foo.*.bar', 'too many wildcards'],
    ['foo.*.bar', 'wildcard must be first label'],
    ['💩.com', 'name must be ascii'],
    ['-hello.com', 'idna error\nidna: invalid label "-hello"'],
    ['a.b-', 'idna error\nidna: invalid label "b-"'],
    ['a b.com', 'idna error\nidna: invalid label "a b"'],
    ['ab--cd.com', 'idna error\nidna: invalid label "ab--cd"'],
    ['xn--a.com', 'idna error\nidna: invalid label "xn--a"'],
    [`${'a'.repeat(64)}.com`, /^idna error/],
    [`${'a.'.repeat(126)}ab`, `idna error\nidna: invalid label "${'a.'.repeat(126)}ab"`],
  ])('%j is refused', (name, text) => {
    expectInvalid(() => checkDnsName(name), text)
  })

  test('a wildcard that covers another name is refused, in either order', () => {
    expect(() => checkWildcardOverlap(['example.com', '*.example.com'])).not.toThrow()
    expect(() => checkWildcardOverlap(['*.example.com', 'a.b.example.com'])).not.toThrow()
    expectInvalid(() => checkWildcardOverlap(['*.b.c', 'a.b.c']), /wildcard overlap$/)
    expectInvalid(() => checkWildcardOverlap(['a.b.c', '*.b.c']), /wildcard overlap$/)
  })
})

describe('match filters', () => {
  test.each(['exact', 'subset', 'superset', 'any'] as const)('number %# is %s', (match) => {
    const number = ['exact', 'subset', 'superset', 'any'].indexOf(match) as 0
    const selectors = [selectorOf(1), selectorOf(1), selectorOf(2)]
    expect(matchBehaviorFromProto(number)).toBe(match)
    expect(selectorKeysFromProto(selectors)).toEqual(['t:1', 't:2'])
    expect(trustDomainNamesFromProto(['a.org', 'spiffe://a.org'])).toEqual(['a.org'])
  })

  test.each([4, -1])('behaviour %i is internal, as SPIRE’s store has it', (number) => {
    const text = `datastore-sql: unhandled selectors match behavior ${number}`
    expect(() => matchBehaviorFromProto(number, 'selectors ')).toThrow(
      expect.objectContaining({ kind: 'internal', message: text }),
    )
  })
})

describe('agents', () => {
  const agent: AttestedAgent = {
    id: SpiffeId.parse('spiffe://example.org/spire/agent/x/1'),
    attestationType: 'x',
    serialNumber: '12',
    expiresAt: 100,
    newSerialNumber: '13',
    newExpiresAt: 200,
    canReattest: true,
    agentVersion: '1.2.3',
    selectors: [selectorOf(1)],
    clusterId: 2,
  }

  test('whole, and banned when the serial is gone', () => {
    expect(agentToProto(agent)).toEqual({
      id: id('/spire/agent/x/1'),
      attestationType: 'x',
      x509svidSerialNumber: '12',
      x509svidExpiresAt: 100n,
      selectors: [{ type: 't', value: '1' }],
      banned: false,
      canReattest: true,
      agentVersion: '1.2.3',
    })
    expect(agentToProto({ ...agent, serialNumber: '' }).banned).toBe(true)
  })

  test.each(Object.keys(AgentMask.create()) as (keyof AgentMask)[])('mask of %s', (bit) => {
    const banned = { ...agent, serialNumber: bit === 'banned' ? '' : '12' }
    const none = agentToProto(banned, AgentMask.create())
    const masked = agentToProto(banned, { ...AgentMask.create(), [bit]: true })
    expect(masked).toEqual({ ...none, [bit]: agentToProto(banned)[bit] })
    expect(masked).not.toEqual(none)
  })
})

describe('times and numbers', () => {
  test.each([
    ['2026-01-31 10:00:00 +0000 +00', Date.UTC(2026, 0, 31, 10) / 1000],
    ['2026-01-31 10:00:00 +0230 +02', Date.UTC(2026, 0, 31, 7, 30) / 1000],
    ['2026-01-31 10:00:00 -0500 -05', Date.UTC(2026, 0, 31, 15) / 1000],
    ['2026-01-31 1:00:00.5 +0000 +00', Date.UTC(2026, 0, 31, 1) / 1000],
    ['2026-01-31  10:00:00 +0000   +00', Date.UTC(2026, 0, 31, 10) / 1000],
    ['2026-02-30 10:00:00 +0000 +00', undefined],
    ['2026-01-31T10:00:00Z', undefined],
    ['', undefined],
  ])('%j', (text, seconds) => expect(parseGoTime(text)).toBe(seconds))

  // The right column is what Go's time.Parse printed.
  test.each([
    ['tomorrow', 'cannot parse "tomorrow" as "2006"'],
    ['20', 'cannot parse "20" as "2006"'],
    ['2026-1-31 10:00:00 +0000 +00', 'cannot parse "1-31 10:00:00 +0000 +00" as "01"'],
    ['2026-01-31T10:00:00Z', 'cannot parse "T10:00:00Z" as " "'],
    ['2026-01-01 00:00:00', 'cannot parse "" as "-0700"'],
    ['2026-01-31 10:00:00 0000 +00', 'cannot parse "0000 +00" as "-0700"'],
    ['2026-01-31 10:00:00 +0000+00', 'cannot parse "+00" as " "'],
    ['2026-01-31 10:00:00 +0000 +00x', 'extra text: "x"'],
    ['2026-13-31 10:00:00 +0000 +00', 'month out of range'],
    ['2026-02-30 10:00:00 +0000 +00', 'day out of range'],
    ['2026-01-31 24:00:00 +0000 +00', 'hour out of range'],
    ['2026-01-31 10:60:00 +0000 +00', 'minute out of range'],
    ['2026-01-31 10:00:61 +0000 +00', 'second out of range'],
    ['2026-01-31 10:00:00 +2500 +00', 'time zone offset hour out of range'],
    ['2026-01-31 10:00:00 +0061 +00', 'time zone offset minute out of range'],
    ['2026-01-31 10:00:00 +0000 +99', 'time zone offset hour out of range'],
  ])('%j is refused in Go’s words', (text, words) => {
    const layout = words.startsWith('cannot') ? ' as "2006-01-02 15:04:05 -0700 -07"' : ''
    expect(goTimeComplaint(text)).toBe(`parsing time "${text}"${layout}: ${words}`)
    expect(parseGoTime(text)).toBeUndefined()
  })

  test('an int64 becomes a number only when it fits', () => {
    expect(numberFromInt64(2n ** 53n - 1n, 'x')).toBe(Number.MAX_SAFE_INTEGER)
    expectInvalid(() => numberFromInt64(2n ** 53n, 'x'), 'x is out of range')
  })
})

function selectorOf(i: number) {
  return { type: 't', value: `${i}` }
}

function list<T>(length: number, make: (i: number) => T): T[] {
  return Array.from({ length }, (_, i) => make(i))
}

function expectInvalid(run: () => unknown, text: string | RegExp): void {
  expect(run).toThrow(text)
  expect(run).toThrow(expect.objectContaining({ kind: 'invalid_argument' }))
}
