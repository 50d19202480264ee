import fc from 'fast-check'
import { expect, test } from 'vitest'
import type { AuthorizedEntry } from '../../../src/agent/entry.ts'
import { dedupeHints } from '../../../src/agent/svid-cache/hints.ts'
import { JwtSvidCache } from '../../../src/agent/svid-cache/jwt-svid-cache.ts'
import { renewalTime } from '../../../src/agent/svid-cache/rotation-policy.ts'
import { SubsetIndex, SupersetIndex } from '../../../src/agent/svid-cache/selector-index.ts'
import type { WorkloadView } from '../../../src/agent/svid-cache/x509-svid-cache.ts'
import { isSubset } from '../../../src/spiffe/selector.ts'
import { makeCache, selectors, sign } from '../../fakes/agent-cache.ts'
import { makeEntry } from '../../fakes/make-entry.ts'
import { createSeededRandom } from '../../fakes/seeded-random.ts'

const key = fc.constantFrom('a:1', 'a:2', 'b:1', 'b:2', 'c:1')
const keySet = fc.uniqueArray(key, { maxLength: 5 }).map((keys) => new Set(keys))
const name = fc.integer({ min: 0, max: 7 })

// Method: any history of filing, re-filing and removing; compared with asking every set.
test('the indexes find what comparing with every set finds', () => {
  const step = fc.record({ name, keys: fc.option(keySet, { nil: undefined }) })
  fc.assert(
    fc.property(fc.array(step, { maxLength: 30 }), keySet, (steps, question) => {
      const subsets = new SubsetIndex<number>()
      const supersets = new SupersetIndex<number>()
      const model = new Map<number, ReadonlySet<string>>()
      for (const { name, keys } of steps) {
        if (keys === undefined) {
          subsets.delete(name)
          supersets.delete(name)
          model.delete(name)
        } else {
          subsets.set(name, keys)
          supersets.set(name, keys)
          model.set(name, keys)
        }
      }
      const where = (test: (keys: ReadonlySet<string>) => boolean) =>
        [...model].filter(([, keys]) => test(keys)).map(([found]) => found)
      const within = where((keys) => keys.size > 0 && isSubset(keys, question))
      expect(subsets.within(question).sort()).toEqual(within.sort())
      const containing = where((keys) => question.size > 0 && isSubset(question, keys))
      expect(supersets.containing(question).sort()).toEqual(containing.sort())
    }),
  )
})

// Method: any history of entries, removals and signing, with listeners that come at any time; at the
// end every listener that was served holds exactly what its selectors entitle it to.
test('after everything is signed each listener holds the entries whose selectors it has', () => {
  const entrySelectors = fc.uniqueArray(key, { minLength: 1, maxLength: 3 })
  const step = fc.oneof(
    fc.record({ do: fc.constant('put' as const), name, keys: entrySelectors }),
    fc.record({ do: fc.constant('remove' as const), name }),
    fc.record({ do: fc.constant('sign' as const), name }),
    fc.record({ do: fc.constant('flush' as const) }),
    fc.record({ do: fc.constant('listen' as const), keys: fc.uniqueArray(key) }),
  )
  fc.assert(
    fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
      const { cache } = makeCache()
      const model = new Map<string, readonly string[]>()
      const listeners: { keys: ReadonlySet<string>; view: WorkloadView | undefined }[] = []
      let revision = 0n
      for (const one of steps) {
        if (one.do === 'put') {
          const id = `e${one.name}`
          model.set(id, one.keys)
          revision++
          const entry = makeEntry({ id, selectors: one.keys, revisionNumber: revision })
          cache.applyEntries({ upserts: [entry], removals: [] })
        } else if (one.do === 'remove') {
          model.delete(`e${one.name}`)
          cache.applyEntries({ upserts: [], removals: [`e${one.name}`] })
        } else if (one.do === 'sign') sign(cache, `e${one.name}`)
        else if (one.do === 'flush') cache.flush()
        else {
          const listener = { keys: new Set(one.keys), view: undefined as WorkloadView | undefined }
          listeners.push(listener)
          cache.subscribe(selectors(...one.keys), (view) => {
            listener.view = view
          })
        }
      }
      sign(cache, ...model.keys())
      cache.flush()
      expect(cache.svidCount).toBe(model.size)
      for (const { keys, view } of listeners) {
        const entitled = [...model].filter(([, own]) => own.every((k) => keys.has(k)))
        const expected = entitled.map(([id]) => id).sort()
        expect(view?.identities.map(({ entry }) => entry.id)).toEqual(expected)
      }
    }),
  )
})

// Method: any history of reads and writes; compared with a list ordered by use.
test('the JWT-SVID cache keeps the tokens used last, never more than its limit', () => {
  const step = fc.record({ write: fc.boolean(), name })
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 4 }), fc.array(step), (sizeMax, steps) => {
      const cache = new JwtSvidCache(sizeMax)
      let model: number[] = []
      for (const { write, name } of steps) {
        const known = model.includes(name)
        if (write) {
          cache.set(String(name), token(String(name)))
          model = [...model.filter((one) => one !== name), name].slice(-sizeMax)
        } else {
          expect(cache.get(String(name)) !== undefined).toBe(known)
          if (known) model = [...model.filter((one) => one !== name), name]
        }
        expect(cache.size).toBe(model.length)
      }
    }),
  )
})

// Method: any lifetime; the draw is uniform, so the bounds are what matters.
test('renewal falls between 45 and 55 percent of the life that remains', () => {
  const seconds = fc.integer({ min: 1, max: 10 ** 7 })
  fc.assert(
    fc.property(seconds, fc.string(), (lifetime, seed) => {
      const policy = { availabilityTargetSeconds: 0 }
      const svid = { notBefore: 1000, notAfter: 1000 + lifetime }
      const remaining = svid.notAfter - renewalTime(svid, policy, createSeededRandom(seed))
      expect(remaining / lifetime).toBeGreaterThanOrEqual(0.45)
      expect(remaining / lifetime).toBeLessThan(0.55)
    }),
  )
})

test('an availability target counts when twelve hours of grace are left, else half-life', () => {
  const hours = (n: number) => n * 3600
  const policy = { availabilityTargetSeconds: hours(24) }
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 96 }), fc.string(), (lifetimeHours, seed) => {
      const svid = { notBefore: 0, notAfter: hours(lifetimeHours) }
      const remaining = svid.notAfter - renewalTime(svid, policy, createSeededRandom(seed))
      if (lifetimeHours > 36) {
        expect(remaining).toBeGreaterThanOrEqual(hours(24))
        expect(remaining).toBeLessThan(hours(24) + 600)
      } else expect(remaining / svid.notAfter).toBeLessThan(0.55)
    }),
  )
})

// Method: any entries with few hints and few creation times.
test('of entries with one hint the oldest stays, and nothing else is dropped', () => {
  const entry = fc.record({
    hint: fc.constantFrom('', 'x', 'y'),
    createdAt: fc.integer({ min: 1, max: 3 }),
  })
  fc.assert(
    fc.property(fc.array(entry, { maxLength: 8 }), (fields) => {
      const entries: AuthorizedEntry[] = fields.map((one, i) => makeEntry({ id: `e${i}`, ...one }))
      const kept = dedupeHints(entries, (one) => one)
      expect(kept.filter(({ hint }) => hint === '')).toEqual(
        entries.filter(({ hint }) => hint === ''),
      )
      for (const hint of ['x', 'y']) {
        const rivals = entries.filter((one) => one.hint === hint)
        const oldest = [...rivals].sort(
          (a, b) => a.createdAt - b.createdAt || (a.id < b.id ? -1 : 1),
        )
        expect(kept.filter((one) => one.hint === hint)).toEqual(oldest.slice(0, 1))
      }
    }),
  )
})

function token(text: string) {
  return { token: text, spiffeId: 'x', issuedAt: 0, expiresAt: 1, keyId: 'k', renewAt: 1 }
}
