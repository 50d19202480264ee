/** What every JoinTokenStore keeps (server/ports.ts). */
import { describe, expect, test } from 'vitest'
import type { EntryStore, JoinTokenStore } from '../../../src/server/ports.ts'
import { ACTOR, draft, id, NOW } from '../../rigs/datastore.ts'

export interface JoinTokenStoreSubject extends AsyncDisposable {
  readonly joinTokens: JoinTokenStore
  readonly entries: EntryStore
}

type Wrap = (run: (subject: JoinTokenStoreSubject) => Promise<void>) => () => Promise<void>

const token = (value: string, expiresAt = NOW + 60) => ({ value, expiresAt, clusterId: 2 })

export function aliasOf(value: string, entryId = '') {
  const parentId = id(`/spire/agent/join_token/${value}`)
  return draft({
    id: entryId,
    spiffeId: id('/alias'),
    parentId,
    selectors: [{ type: 'spiffe_id', value: parentId.toString() }],
  })
}

export function joinTokenStoreContract(makeSubject: () => Promise<JoinTokenStoreSubject>): void {
  const withSubject: Wrap = (run) => async () => {
    await using subject = await makeSubject()
    await run(subject)
  }
  describe('join tokens', () => {
    test(
      'redeemed once, expired or not',
      withSubject(async ({ joinTokens }) => {
        for (const given of [token('one'), token('two', NOW - 1)]) {
          await joinTokens.createJoinToken(given, undefined, ACTOR)
          expect(await joinTokens.redeemJoinToken(given.value)).toEqual(given)
          expect(await joinTokens.redeemJoinToken(given.value)).toBeUndefined()
        }
        expect(await joinTokens.redeemJoinToken('never made')).toBeUndefined()
      }),
    )

    test(
      'of 500 redemptions at once one wins',
      withSubject(async ({ joinTokens }) => {
        await joinTokens.createJoinToken(token('contended'), aliasOf('contended'), ACTOR)
        const results = await Promise.all(
          Array.from({ length: 500 }, () => joinTokens.redeemJoinToken('contended')),
        )
        expect(results.filter((result) => result !== undefined)).toHaveLength(1)
      }),
    )

    test(
      'a taken value is refused',
      withSubject(async ({ joinTokens }) => {
        await joinTokens.createJoinToken(token('same'), undefined, ACTOR)
        await expect(
          joinTokens.createJoinToken(token('same'), undefined, ACTOR),
        ).rejects.toMatchObject({ kind: 'already_exists', code: 'join_token_taken' })
      }),
    )

    test(
      'the alias entry is there once the token is redeemed in time',
      withSubject(async ({ joinTokens, entries }) => {
        const alias = aliasOf('with-alias', 'alias-1')
        await joinTokens.createJoinToken(token('with-alias'), alias, ACTOR)
        await joinTokens.redeemJoinToken('with-alias')
        expect(await entries.getEntry('alias-1')).toEqual({
          ...alias,
          revisionNumber: 0n,
          createdAt: NOW,
        })
        await joinTokens.createJoinToken(token('late', NOW), aliasOf('late', 'alias-2'), ACTOR)
        await joinTokens.redeemJoinToken('late')
        expect(await entries.getEntry('alias-2')).toBeUndefined()
      }),
    )

    test(
      'pruning takes what has expired before now',
      withSubject(async ({ joinTokens }) => {
        for (const expiresAt of [NOW - 1, NOW, NOW + 1]) {
          await joinTokens.createJoinToken(token(`t${expiresAt}`, expiresAt), undefined, ACTOR)
        }
        expect(await joinTokens.pruneJoinTokens(NOW)).toBe(1)
        expect(await joinTokens.redeemJoinToken(`t${NOW - 1}`)).toBeUndefined()
        expect(await joinTokens.redeemJoinToken(`t${NOW}`)).toBeDefined()
      }),
    )
  })
}
