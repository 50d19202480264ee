import { describe, expect, test } from 'vitest'
import type { Authority } from '../../../../src/ca/authority/authority.ts'
import {
  planRotation,
  type RotationConfig,
  type RotationStep,
} from '../../../../src/ca/authority/plan.ts'

const NOW = 1_800_000_000
const DAY = 24 * 3600
const CONFIG: RotationConfig = {
  caTtlSeconds: DAY,
  rootTtlSeconds: 3650 * DAY,
  keyType: 'ec-p256',
  jwtKeyType: 'ec-p384',
  clusterIds: [1, 2],
  holder: '',
}

let lastId = 0
function row(changes: Partial<Authority>): Authority {
  lastId++
  return {
    id: lastId,
    clusterId: 2,
    kind: 'jwt',
    holder: '',
    state: 'active',
    authorityId: `a${lastId}`,
    keyType: 'ec-p256',
    publicKey: new Uint8Array(0),
    certificate: undefined,
    issuerId: undefined,
    notBefore: NOW,
    notAfter: NOW + DAY,
    generation: `a${lastId}`,
    sealed: undefined,
    ...changes,
  }
}

const ROOT = row({
  kind: 'x509_root',
  clusterId: 0,
  notAfter: NOW + 3650 * DAY,
  notBefore: NOW - 10,
})
const CA = (clusterId: number, changes: Partial<Authority> = {}) =>
  row({
    kind: 'x509_intermediate',
    clusterId,
    issuerId: ROOT.id,
    notBefore: NOW - 10,
    ...changes,
  })
const SETTLED = [ROOT, CA(1), CA(2), row({})]

/** Short names of the steps. */
function plan(
  rows: readonly Authority[],
  at = 0,
  options: { jumped?: boolean; config?: Partial<RotationConfig> } = {},
) {
  const steps = planRotation({
    rows,
    now: NOW + at,
    config: { ...CONFIG, ...options.config },
    clockJumped: options.jumped ?? false,
  })
  return steps.map(nameOf)
}

function nameOf(step: RotationStep): string {
  if (step.step === 'prune') return `prune before ${step.expiredBefore - NOW}`
  if (step.step === 'drop_holder') return `drop ${step.holder}`
  const { kind, clusterId } = step.step === 'prepare' ? step : step.authority
  return `${step.step} ${kind}/${clusterId} (${step.reason})`
}

describe('the plan', () => {
  test('of an empty deployment begins with the root; intermediates wait for it', () => {
    expect(plan([])).toEqual(['prepare x509_root/0 (initial)', 'prepare jwt/2 (initial)'])
    expect(plan([{ ...ROOT, state: 'prepared' }])).toEqual([
      'activate x509_root/0 (initial)',
      'prepare x509_intermediate/1 (initial)',
      'prepare x509_intermediate/2 (initial)',
      'prepare jwt/2 (initial)',
    ])
  })

  test('of a settled one is empty', () => {
    expect(plan(SETTLED)).toEqual([])
    expect(plan(SETTLED, DAY / 2 - 1)).toEqual([])
  })

  test('prepares at half-life and activates at a sixth', () => {
    const prepares = [
      'prepare x509_intermediate/1 (due)',
      'prepare x509_intermediate/2 (due)',
      'prepare jwt/2 (due)',
    ]
    expect(plan(SETTLED, DAY / 2)).toEqual(prepares)
    const next = { state: 'prepared', notAfter: NOW + 2 * DAY } as const
    const prepared = [...SETTLED, CA(1, next), CA(2, next), row(next)]
    expect(plan(prepared, (DAY * 5) / 6 - 1)).toEqual([])
    expect(plan(prepared, (DAY * 5) / 6)).toEqual(
      prepares.map((s) => s.replace('prepare', 'activate')),
    )
  })

  test('is capped for long lives: 30 days and 7 days', () => {
    const life = { notAfter: NOW + 365 * DAY }
    const long = [ROOT, CA(1, life), CA(2, life), row(life)]
    const config = { caTtlSeconds: 365 * DAY }
    expect(plan(long, 335 * DAY - 1, { config })).toEqual([])
    expect(plan(long, 335 * DAY, { config })).toHaveLength(3)
    const next = { state: 'prepared', notAfter: NOW + 700 * DAY } as const
    const prepared = [...long, CA(1, next), CA(2, next), row(next)]
    expect(plan(prepared, 358 * DAY - 1, { config })).toEqual([])
    expect(plan(prepared, 358 * DAY, { config })).toHaveLength(3)
  })

  test('clears a prepared authority that expired unused out of the way', () => {
    const stale = row({ state: 'prepared', notAfter: NOW + DAY / 2 })
    const rows = [...SETTLED, stale]
    expect(plan(rows, DAY / 2)[0]).toBe(`prune before ${DAY / 2 + 1}`)
    expect(plan(rows, DAY / 2 - 1)).toEqual([])
  })

  test('moves intermediates to the next root before the old one would cut them short', () => {
    const config = { caTtlSeconds: 60 * DAY, rootTtlSeconds: 100 * DAY }
    const root = { ...ROOT, notAfter: NOW + 100 * DAY }
    const life = { notAfter: NOW + 60 * DAY }
    const rows = [root, CA(1, life), CA(2, life), row(life)]
    // Half of 60 days: the root has 70 left, enough for a whole life.
    const first = plan(rows, 30 * DAY, { config })
    expect(first).toContain('prepare x509_intermediate/1 (due)')
    // Ten days later it has not.
    const late = plan(rows, 45 * DAY, { config })
    expect(late).toEqual(['prepare x509_root/0 (root_ends)', 'prepare jwt/2 (due)'])
    const next = { ...ROOT, id: 9001, state: 'prepared', notAfter: NOW + 145 * DAY } as const
    const signing = planRotation({
      rows: [...rows, next],
      now: NOW + 45 * DAY,
      config: { ...CONFIG, ...config },
    })
    const made = signing.filter((s) => s.step === 'prepare' && s.kind === 'x509_intermediate')
    expect(made).toHaveLength(2)
    expect(made.every((s) => s.step === 'prepare' && s.issuer === next)).toBe(true)
    // Its root is activated first, then what it signed.
    const under = { issuerId: next.id, state: 'prepared', notAfter: NOW + 105 * DAY } as const
    expect(
      plan([...rows, next, CA(1, under), CA(2, under)], 54 * DAY, { config }).slice(0, 3),
    ).toEqual([
      'activate x509_root/0 (moves_with_intermediate)',
      'activate x509_intermediate/1 (due)',
      'activate x509_intermediate/2 (due)',
    ])
  })

  test('makes room when the prepared root ends too soon as well', () => {
    const config = { caTtlSeconds: 60 * DAY, rootTtlSeconds: 100 * DAY }
    const root = { ...ROOT, notAfter: NOW + 100 * DAY }
    const next = { ...ROOT, id: 9002, state: 'prepared', notAfter: NOW + 102 * DAY } as const
    const life = { notAfter: NOW + 60 * DAY }
    const rows = [
      root,
      next,
      CA(1, life),
      CA(2, life),
      row({ notAfter: NOW + 200 * DAY, notBefore: NOW }),
    ]
    expect(plan(rows, 50 * DAY, { config })).toEqual(['activate x509_root/0 (root_ends)'])
  })

  test('caps an intermediate by its root', () => {
    const root = { ...ROOT, notAfter: NOW + DAY - 30 }
    const [step] = planRotation({
      rows: [root, row({})],
      now: NOW,
      config: { ...CONFIG, rootTtlSeconds: 1.5 * DAY },
    })
    expect(step).toMatchObject({
      step: 'prepare',
      notBefore: NOW - 10,
      notAfter: NOW + DAY - 30,
      issuer: root,
    })
  })

  test('after a clock jump holds only what never existed', () => {
    expect(plan(SETTLED, DAY / 2, { jumped: true })).toEqual([])
    expect(plan(SETTLED, 5 * DAY, { jumped: true })).toEqual([])
    expect(plan([], 0, { jumped: true })).toHaveLength(2)
    expect(plan(SETTLED.slice(0, 3), DAY / 2, { jumped: true })).toEqual([
      'prepare jwt/2 (initial)',
    ])
  })

  test('replaces what expired at once', () => {
    expect(plan(SETTLED, DAY)).toEqual([
      'prepare x509_intermediate/1 (expired)',
      'prepare x509_intermediate/2 (expired)',
      'prepare jwt/2 (expired)',
    ])
  })

  test('treats a tainted active one as missing', () => {
    expect(plan([ROOT, CA(1), CA(2), row({ state: 'tainted' })])).toEqual([
      'prepare jwt/2 (initial)',
    ])
  })

  test('prunes a life after expiry, at most a day', () => {
    const old = row({ state: 'old', notAfter: NOW - DAY })
    expect(plan([...SETTLED, old])).toEqual([])
    expect(plan([...SETTLED, old], 1)).toEqual([`prune before ${1 - DAY}`])
    const config = { caTtlSeconds: 3600 }
    expect(plan([...SETTLED, row({ state: 'old', notAfter: NOW - 3601 })], 0, { config })).toEqual([
      'prune before -3600',
    ])
  })

  test('leaves other holders alone until all of theirs has expired', () => {
    const theirs = (changes: Partial<Authority>) => row({ holder: 'other', ...changes })
    expect(plan([...SETTLED, theirs({ notAfter: NOW - 1 })])).toEqual([])
    const gone = theirs({ notAfter: NOW - DAY - 1 })
    expect(plan([...SETTLED, gone, theirs({ notAfter: NOW })])).toEqual([])
    expect(plan([...SETTLED, gone])).toEqual(['drop other'])
    // Shared rows are nobody's alone.
    const memory = { config: { holder: 'me' } }
    expect(plan([row({ notAfter: NOW - 10 * DAY })], 0, memory)).not.toContain('drop ')
  })

  test('with keys in memory gives the root the life of a CA', () => {
    const [step] = planRotation({ rows: [], now: NOW, config: { ...CONFIG, holder: 'me' } })
    expect(step).toMatchObject({ kind: 'x509_root', notAfter: NOW + DAY, keyType: 'ec-p256' })
  })

  test('numbers generations per slot, from what is there', () => {
    const generations = (rows: readonly Authority[], holder = '') =>
      planRotation({ rows, now: NOW + DAY / 2, config: { ...CONFIG, holder } }).map(
        (step) => step.step === 'prepare' && step.generation,
      )
    expect(generations([])).toEqual(['x509_root/0//1', 'jwt/2//1'])
    const active = row({ generation: 'jwt/2//7' })
    const rows = [ROOT, CA(1), CA(2), active, row({ state: 'old', generation: 'jwt/2//6' })]
    expect(generations(rows)).toContain('jwt/2//8')
    expect(generations(rows)).toContain('x509_intermediate/1//1')
    expect(generations(rows, 'me')).toEqual(['x509_root/0/me/1', 'jwt/2/me/1'])
  })

  test('uses the configured key types', () => {
    const steps = planRotation({ rows: [], now: NOW, config: CONFIG })
    expect(steps.map((step) => step.step === 'prepare' && step.keyType)).toEqual([
      'ec-p256',
      'ec-p384',
    ])
  })
})
