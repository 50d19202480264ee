/** What every AgentStore keeps (server/ports.ts). */
import { describe, expect, test } from 'vitest'
import type { AgentAttestation, AgentStore, EntryStore } from '../../../src/server/ports.ts'
import { parseSelector } from '../../../src/spiffe/selector.ts'
import { ACTOR, draft, id, NOW } from '../../rigs/datastore.ts'

export interface AgentStoreSubject extends AsyncDisposable {
  readonly agents: AgentStore
  readonly entries: EntryStore
}

type Wrap = (run: (subject: AgentStoreSubject) => Promise<void>) => () => Promise<void>

const ONE = id('/spire/agent/x509pop/one')
const TWO = id('/spire/agent/x509pop/two')
const ALL = { size: 0, token: '' }

export function attestation(changes: Partial<AgentAttestation> = {}): AgentAttestation {
  return {
    id: ONE,
    attestationType: 'x509pop',
    serialNumber: '123',
    expiresAt: NOW + 3600,
    canReattest: true,
    selectors: [parseSelector('x509pop:subject:cn:a')],
    clusterId: 2,
    ...changes,
  }
}

const stored = (changes: Partial<AgentAttestation> = {}) => ({
  ...attestation(changes),
  newSerialNumber: '',
  newExpiresAt: 0,
  agentVersion: '',
})

export function agentStoreContract(makeSubject: () => Promise<AgentStoreSubject>): void {
  const withSubject: Wrap = (run) => async () => {
    await using subject = await makeSubject()
    await run(subject)
  }
  describe('attesting', () => attesting(withSubject))
  describe('renewing', () => renewing(withSubject))
  describe('removing', () => removing(withSubject))
  describe('listing agents', () => listing(withSubject))
}

function attesting(withSubject: Wrap): void {
  test(
    'a new agent comes back as attested; repeated selectors once',
    withSubject(async ({ agents }) => {
      const selectors = ['b:2', 'a:1', 'b:2'].map(parseSelector)
      const agent = await agents.recordAttestation(attestation({ selectors }), ACTOR)
      expect(agent).toEqual(stored({ selectors: selectors.slice(0, 2) }))
      expect(await agents.getAgent(ONE)).toEqual(agent)
      expect(await agents.getAgent(TWO)).toBeUndefined()
    }),
  )

  test(
    'attesting again replaces serial and selectors, keeps version and cluster',
    withSubject(async ({ agents }) => {
      await agents.recordAttestation(attestation({ clusterId: 1 }), ACTOR)
      await agents.setAgentVersion(ONE, '1.2.3')
      await agents.setNewSerial(ONE, '124', NOW + 7200)
      const again = { serialNumber: '125', selectors: [parseSelector('c:3')], canReattest: false }
      const agent = await agents.recordAttestation(attestation(again), ACTOR)
      expect(agent).toEqual({ ...stored(again), clusterId: 1, agentVersion: '1.2.3' })
    }),
  )

  test(
    'a banned agent is refused until it is deleted',
    withSubject(async ({ agents }) => {
      await agents.recordAttestation(attestation(), ACTOR)
      await agents.banAgent(ONE, ACTOR)
      await expect(agents.recordAttestation(attestation(), ACTOR)).rejects.toMatchObject({
        kind: 'permission_denied',
        code: 'agent_banned',
        message: 'failed to attest: agent is banned',
      })
      expect(await agents.getAgent(ONE)).toMatchObject({ serialNumber: '', newSerialNumber: '' })
      await agents.deleteAgent(ONE, ACTOR)
      await agents.recordAttestation(attestation(), ACTOR)
    }),
  )

  test(
    'whatever the order of a racing ban and attestations, the ban holds',
    withSubject(async ({ agents }) => {
      await agents.recordAttestation(attestation(), ACTOR)
      const attest = () => agents.recordAttestation(attestation(), ACTOR).catch(() => {})
      const renew = () => agents.setNewSerial(ONE, '999', NOW + 7200).catch(() => {})
      const promote = () => agents.promoteNewSerial(ONE, '999').catch(() => {})
      const racers = Array.from({ length: 6 }, () => [attest(), renew(), promote()]).flat()
      await Promise.all([...racers, agents.banAgent(ONE, ACTOR), attest(), renew(), promote()])
      expect(await agents.getAgent(ONE)).toMatchObject({ serialNumber: '', newSerialNumber: '' })
    }),
  )
}

function renewing(withSubject: Wrap): void {
  test(
    'the new serial waits beside the current one until it is promoted',
    withSubject(async ({ agents }) => {
      await agents.recordAttestation(attestation(), ACTOR)
      await agents.setNewSerial(ONE, '124', NOW + 7200)
      const waiting = { ...stored(), newSerialNumber: '124', newExpiresAt: NOW + 7200 }
      expect(await agents.getAgent(ONE)).toEqual(waiting)
      expect(await agents.promoteNewSerial(ONE, '999')).toEqual(waiting)
      const promoted = stored({ serialNumber: '124', expiresAt: NOW + 7200 })
      expect(await agents.promoteNewSerial(ONE, '124')).toEqual(promoted)
      expect(await agents.promoteNewSerial(ONE, '124')).toEqual(promoted)
      expect(await agents.promoteNewSerial(ONE, '')).toEqual(promoted)
      expect(await agents.promoteNewSerial(TWO, '124')).toBeUndefined()
    }),
  )

  test(
    'absent agents are not found, banned ones denied',
    withSubject(async ({ agents }) => {
      const notFound = { kind: 'not_found', code: 'agent_not_found' }
      await expect(agents.setNewSerial(ONE, '1', NOW)).rejects.toMatchObject(notFound)
      await expect(agents.setAgentVersion(ONE, '1')).rejects.toMatchObject(notFound)
      await expect(agents.banAgent(ONE, ACTOR)).rejects.toMatchObject(notFound)
      await expect(agents.deleteAgent(ONE, ACTOR)).rejects.toMatchObject(notFound)
      await agents.recordAttestation(attestation(), ACTOR)
      await agents.banAgent(ONE, ACTOR)
      await expect(agents.setNewSerial(ONE, '1', NOW)).rejects.toMatchObject({
        kind: 'permission_denied',
        denial: 'agent_banned',
      })
    }),
  )

  test(
    'the version is kept',
    withSubject(async ({ agents }) => {
      await agents.recordAttestation(attestation(), ACTOR)
      await agents.setAgentVersion(ONE, '1.15.3')
      await agents.setAgentVersion(ONE, '1.15.3')
      expect(await agents.getAgent(ONE)).toMatchObject({ agentVersion: '1.15.3' })
    }),
  )
}

function removing(withSubject: Wrap): void {
  test(
    'a join-token agent takes its alias along, and nothing else',
    withSubject(async ({ agents, entries }) => {
      const agentId = id('/spire/agent/join_token/token')
      await agents.recordAttestation(
        attestation({ id: agentId, attestationType: 'join_token', selectors: [] }),
        ACTOR,
      )
      await entries.createEntries(
        [
          draft({
            id: 'alias',
            parentId: agentId,
            selectors: [{ type: 'spiffe_id', value: agentId.toString() }],
          }),
          draft({ id: 'child', parentId: agentId }),
        ],
        ACTOR,
      )
      await agents.deleteAgent(agentId, ACTOR)
      expect(await entries.getEntry('alias')).toBeUndefined()
      expect(await entries.getEntry('child')).toBeDefined()
      expect(await agents.getAgent(agentId)).toBeUndefined()
    }),
  )

  test.each([
    [false, 10, ['expired']],
    [true, 10, ['expired', 'expired-tofu']],
    [true, 1, ['expired']],
  ])('pruning with tofu %s and limit %d takes %j', (tofu, limit, gone) =>
    withSubject(async ({ agents }) => {
      const make = (name: string, changes: Partial<AgentAttestation>) =>
        agents.recordAttestation(
          attestation({ id: id(`/spire/agent/t/${name}`), ...changes }),
          ACTOR,
        )
      await make('expired', { expiresAt: NOW - 2 })
      await make('expired-tofu', { expiresAt: NOW - 1, canReattest: false })
      await make('banned', { expiresAt: NOW - 2 })
      await make('alive', { expiresAt: NOW })
      await agents.banAgent(id('/spire/agent/t/banned'), ACTOR)
      expect(await agents.pruneAgents(NOW, { tofu, limit }, ACTOR)).toBe(gone.length)
      const left = (await agents.listAgents({}, ALL)).rows.map((agent) => agent.id.path.slice(15))
      const all = ['expired', 'expired-tofu', 'banned', 'alive']
      expect(left).toEqual(all.filter((name) => !gone.includes(name)).map((name) => name))
    })(),
  )
}

function listing(withSubject: Wrap): void {
  test(
    'filters one by one and together, in pages',
    withSubject(async ({ agents }) => {
      const a = { id: id('/spire/agent/a'), selectors: ['a:1', 'b:2'].map(parseSelector) }
      const b = { id: id('/spire/agent/b'), selectors: [parseSelector('a:1')], canReattest: false }
      const c = { id: id('/spire/agent/c'), attestationType: 'join_token', selectors: [] }
      for (const changes of [a, { ...b, expiresAt: NOW }, c]) {
        await agents.recordAttestation(attestation(changes), ACTOR)
      }
      await agents.banAgent(c.id, ACTOR)
      const list = async (filter: Parameters<AgentStore['listAgents']>[0]) => {
        const { rows } = await agents.listAgents(filter, ALL)
        expect(await agents.countAgents(filter)).toBe(rows.length)
        return rows.map((agent) => agent.id.path.at(-1)).join('')
      }
      expect(await list({})).toBe('abc')
      expect(await list({ banned: true })).toBe('c')
      expect(await list({ banned: false })).toBe('ab')
      expect(await list({ canReattest: true })).toBe('ac')
      expect(await list({ attestationType: 'join_token' })).toBe('c')
      expect(await list({ expiresBefore: NOW + 1 })).toBe('b')
      expect(await list({ selectors: { keys: ['a:1'], match: 'exact' } })).toBe('b')
      expect(await list({ selectors: { keys: ['a:1', 'b:2'], match: 'subset' } })).toBe('ab')
      expect(await list({ selectors: { keys: ['b:2'], match: 'superset' } })).toBe('a')
      expect(await list({ selectors: { keys: ['b:2', 'x:1'], match: 'any' } })).toBe('a')
      expect(await list({ banned: false, canReattest: false })).toBe('b')
      const first = await agents.listAgents({}, { size: 2, token: '' })
      const rest = await agents.listAgents({}, { size: 2, token: first.nextToken })
      expect([first.rows.length, rest.rows.length]).toEqual([2, 1])
      const end = await agents.listAgents({}, { size: 2, token: rest.nextToken })
      expect(end).toEqual({ rows: [], nextToken: '' })
    }),
  )
}
