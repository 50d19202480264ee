import { describe, expect, test } from 'vitest'
import { SignetError } from '../../../../src/base/error.ts'
import {
  type AllowedCaller,
  type AuthorizePorts,
  createAuthorize,
} from '../../../../src/server/authz/authorize.ts'
import type { Connection } from '../../../../src/server/connection.ts'
import type { AttestedAgent } from '../../../../src/spiffe/attested-agent.ts'
import { SpiffeId } from '../../../../src/spiffe/spiffe-id.ts'
import type { Certificate } from '../../../../src/x509/certificate.ts'
import { FakeClock } from '../../../fakes/fake-clock.ts'
import { createMemoryLog } from '../../../fakes/memory-log.ts'
import { AGENT, connectionOf, entryOf, NOW, TRUST_DOMAIN } from '../rpc/rig.ts'

const METHOD = '/spire.api.server.agent.v1.Agent/Test'
const DENIED = `authorization denied for method ${METHOD}`
const ADMIN_ID = SpiffeId.parse('spiffe://example.org/admin')
const FOREIGN_ID = SpiffeId.parse('spiffe://foreign.org/admin')

const local = connectionOf({ transport: 'uds' })
const anonymous = connectionOf({})

function withCertificate(
  spiffeId: SpiffeId,
  leaf: { readonly serial?: number; readonly notAfter?: number } = {},
): Connection {
  const serialNumber = Uint8Array.of(leaf.serial ?? 7)
  const notAfter = leaf.notAfter ?? NOW + 60
  return connectionOf({ spiffeId, chain: [{ serialNumber, notAfter } as Certificate] })
}

/** By default: nobody is an agent, there are no entries, and the ledger knows every serial. */
function authorizeWith(change: Partial<AuthorizePorts> = {}) {
  const log = createMemoryLog()
  const authorize = createAuthorize({
    clock: new FakeClock(NOW),
    trustDomain: TRUST_DOMAIN,
    adminIds: [],
    entries: {
      authorizedEntries: () => [],
      authorizedEntry: () => undefined,
      entriesBySpiffeId: () => [],
    },
    agents: { get: async () => undefined },
    store: { getAgent: async () => undefined, promoteNewSerial: async () => undefined },
    ledger: { hasSerial: async () => true },
    ...change,
  })
  const ask = (allowed: readonly AllowedCaller[], connection: Connection) =>
    authorize(allowed, METHOD, connection, log)
  return { ask, log }
}

function entriesOf(...entries: ReturnType<typeof entryOf>[]): AuthorizePorts['entries'] {
  return {
    authorizedEntries: () => [],
    authorizedEntry: () => undefined,
    entriesBySpiffeId: (id) => entries.filter((entry) => entry.spiffeId.equals(id)),
  }
}

function storeOf(agent: AttestedAgent | undefined): AuthorizePorts['store'] {
  return { getAgent: async () => agent, promoteNewSerial: async () => undefined }
}

describe('any and local', () => {
  test('everybody may call what is for any', async () => {
    const { ask } = authorizeWith()
    for (const connection of [local, anonymous, withCertificate(AGENT.id)]) {
      expect(await ask(['any'], connection)).toMatchObject({ kind: 'nobody', via: '' })
    }
  })

  test('the admin socket is local, TCP never is', async () => {
    const { ask } = authorizeWith()
    expect(await ask(['local'], local)).toEqual({ kind: 'local', via: 'transport' })
    await expect(ask(['local'], anonymous)).rejects.toMatchObject({ message: DENIED })
  })

  test('a local caller is neither agent nor downstream', async () => {
    const { ask } = authorizeWith({ agents: { get: async () => AGENT } })
    await expect(ask(['agent', 'downstream'], local)).rejects.toMatchObject({ message: DENIED })
  })

  test('an empty row admits nobody', async () => {
    const { ask } = authorizeWith()
    await expect(ask([], local)).rejects.toMatchObject({ kind: 'permission_denied' })
  })
})

describe('admins and downstreams', () => {
  const adminEntry = entryOf('admin', { admin: true })
  const downstreamEntry = entryOf('admin', { downstream: true })

  test('an admin by configuration', async () => {
    const { ask } = authorizeWith({ adminIds: [ADMIN_ID] })
    const caller = await ask(['local', 'admin'], withCertificate(ADMIN_ID))
    expect(caller).toEqual({ kind: 'admin', via: 'config', spiffeId: ADMIN_ID })
  })

  test('an admin by any entry that names its ID', async () => {
    const { ask } = authorizeWith({ entries: entriesOf(entryOf('admin'), adminEntry) })
    const caller = await ask(['admin'], withCertificate(ADMIN_ID))
    expect(caller).toEqual({ kind: 'admin', via: 'entries', spiffeId: ADMIN_ID })
  })

  test('a downstream with all its entries', async () => {
    const { ask } = authorizeWith({ entries: entriesOf(downstreamEntry, entryOf('admin')) })
    const caller = await ask(['downstream'], withCertificate(ADMIN_ID))
    expect(caller).toMatchObject({ kind: 'downstream', downstreamEntries: [downstreamEntry] })
  })

  test.each<[string, AllowedCaller, ReturnType<typeof entryOf>]>([
    ['a downstream is no admin', 'admin', downstreamEntry],
    ['an admin is no downstream', 'downstream', adminEntry],
    ['an expired entry gives no right', 'admin', { ...adminEntry, expiresAt: NOW }],
  ])('%s', async (_name, allowed, entry) => {
    const { ask } = authorizeWith({ entries: entriesOf(entry) })
    await expect(ask([allowed], withCertificate(ADMIN_ID))).rejects.toMatchObject({
      kind: 'permission_denied',
      message: DENIED,
    })
  })

  test('an entry that expires later still counts', async () => {
    const { ask } = authorizeWith({ entries: entriesOf({ ...adminEntry, expiresAt: NOW + 1 }) })
    expect(await ask(['admin'], withCertificate(ADMIN_ID))).toMatchObject({ kind: 'admin' })
  })

  test('a failing entry cache is internal, not a denial', async () => {
    const entries = {
      ...entriesOf(),
      entriesBySpiffeId: () => {
        throw new Error('broken')
      },
    }
    const { ask } = authorizeWith({ entries })
    await expect(ask(['admin'], withCertificate(ADMIN_ID))).rejects.toMatchObject({
      kind: 'internal',
      message: 'failed to fetch caller entries',
    })
  })
})

describe('the ledger vouches for admins of our own trust domain', () => {
  test('a certificate it does not know is refused', async () => {
    const serials: number[] = []
    const ledger = {
      hasSerial: async (serial: Uint8Array) => {
        serials.push(...serial)
        return false
      },
    }
    const { ask, log } = authorizeWith({ adminIds: [ADMIN_ID], ledger })
    const denial = ask(['admin'], withCertificate(ADMIN_ID, { serial: 42 }))
    await expect(denial).rejects.toMatchObject({ code: 'not_in_ledger', message: DENIED })
    expect(serials).toEqual([42])
    expect(log.lines.at(-1)).toMatchObject({ message: 'Failed to authenticate caller' })
  })

  test('a foreign admin needs no row here', async () => {
    const ledger = { hasSerial: async () => false }
    const { ask } = authorizeWith({ adminIds: [FOREIGN_ID], ledger })
    expect(await ask(['admin'], withCertificate(FOREIGN_ID))).toMatchObject({ kind: 'admin' })
  })

  test('it is asked once per connection, and again after a refusal', async () => {
    const answers = [false, true]
    let asked = 0
    const ledger = { hasSerial: async () => answers[asked++] ?? false }
    const { ask } = authorizeWith({ adminIds: [ADMIN_ID], ledger })
    const connection = withCertificate(ADMIN_ID)
    await expect(ask(['admin'], connection)).rejects.toMatchObject({ code: 'not_in_ledger' })
    await ask(['admin'], connection)
    await ask(['admin'], connection)
    expect(asked).toBe(2)
  })

  test('a database that is away is unavailable, not a denial', async () => {
    const away = new SignetError('unavailable', 'database', 'database is unavailable')
    const ledger = { hasSerial: () => Promise.reject(away) }
    const { ask } = authorizeWith({ adminIds: [ADMIN_ID], ledger })
    await expect(ask(['admin'], withCertificate(ADMIN_ID))).rejects.toBe(away)
  })
})

describe('agents', () => {
  test('a serial that the cache knows is enough', async () => {
    const store = { ...storeOf(undefined), getAgent: () => Promise.reject(new Error('unused')) }
    const { ask } = authorizeWith({ agents: { get: async () => AGENT }, store })
    expect(await ask(['agent'], withCertificate(AGENT.id))).toEqual({
      kind: 'agent',
      via: 'datastore',
      spiffeId: AGENT.id,
      agent: AGENT,
    })
  })

  test.each<[string, AttestedAgent | undefined]>([
    ['no row', undefined],
    ['a banned row', { ...AGENT, serialNumber: '' }],
    ['an older serial', { ...AGENT, serialNumber: '6' }],
  ])('a cache with %s does not deny what the store allows', async (_name, cached) => {
    const agents = { get: async () => cached }
    const { ask } = authorizeWith({ agents, store: storeOf(AGENT) })
    expect(await ask(['agent'], withCertificate(AGENT.id))).toMatchObject({ agent: AGENT })
  })

  test.each([
    ['no row', undefined, 'agent_not_attested', 'Agent is not attested'],
    ['a banned row', { ...AGENT, serialNumber: '' }, 'agent_banned', 'Agent is banned'],
    [
      'another serial',
      { ...AGENT, serialNumber: '8' },
      'agent_not_active',
      'Agent SVID is not active',
    ],
  ])('%s is a denial with its reason', async (_name, row, denial, line) => {
    const { ask, log } = authorizeWith({ store: storeOf(row) })
    await expect(ask(['agent'], withCertificate(AGENT.id))).rejects.toMatchObject({
      kind: 'permission_denied',
      message: DENIED,
      denial,
    })
    expect(log.lines.map(({ message }) => message)).toEqual([line, 'Failed to authenticate caller'])
  })

  test('the serial is compared as a decimal number', async () => {
    const agent = { ...AGENT, serialNumber: '258' }
    const { ask } = authorizeWith({ store: storeOf(agent) })
    const chain = [{ serialNumber: Uint8Array.of(1, 2), notAfter: NOW + 1 } as Certificate]
    const connection = connectionOf({ spiffeId: AGENT.id, chain })
    expect(await ask(['agent'], connection)).toMatchObject({ agent })
  })

  test.each([
    ['the last second of its life', NOW, 'allowed'],
    ['a second later', NOW - 1, 'agent_expired'],
  ])('a certificate in %s', async (_name, notAfter, outcome) => {
    const { ask } = authorizeWith({ store: storeOf(AGENT) })
    const asked = ask(['agent'], withCertificate(AGENT.id, { notAfter }))
    if (outcome === 'allowed') expect(await asked).toMatchObject({ kind: 'agent' })
    else await expect(asked).rejects.toMatchObject({ denial: outcome, message: DENIED })
  })

  test('without a certificate there is no reason to give', async () => {
    const { ask } = authorizeWith({ store: storeOf(AGENT) })
    await expect(ask(['agent'], anonymous)).rejects.toMatchObject({
      message: DENIED,
      denial: undefined,
    })
  })

  test('a database that is away is unavailable: agents retry instead of giving up', async () => {
    const away = new SignetError('unavailable', 'database', 'database is unavailable')
    const store = { ...storeOf(undefined), getAgent: () => Promise.reject(away) }
    const { ask, log } = authorizeWith({ store })
    await expect(ask(['agent'], withCertificate(AGENT.id))).rejects.toBe(away)
    expect(log.lines[0]?.message).toBe('Unable to look up agent information')
  })
})

describe('the first use of a renewed certificate', () => {
  const renewed: AttestedAgent = {
    ...AGENT,
    serialNumber: '6',
    newSerialNumber: '7',
    newExpiresAt: NOW + 99,
  }

  test('makes it the current one', async () => {
    const promotions: string[] = []
    const store = {
      getAgent: async () => renewed,
      promoteNewSerial: async (id: SpiffeId, serial: string) => {
        promotions.push(`${id} ${serial}`)
        return { ...renewed, serialNumber: serial, newSerialNumber: '' }
      },
    }
    const { ask } = authorizeWith({ store })
    const caller = await ask(['agent'], withCertificate(AGENT.id))
    expect(caller.agent).toMatchObject({ serialNumber: '7', newSerialNumber: '' })
    expect(promotions).toEqual([`${AGENT.id} 7`])
  })

  test('the current one works until then', async () => {
    const { ask } = authorizeWith({ store: storeOf(renewed) })
    const caller = await ask(['agent'], withCertificate(AGENT.id, { serial: 6 }))
    expect(caller.agent).toBe(renewed)
  })

  test('one that lost to another renewal is not active', async () => {
    const store = { ...storeOf(renewed), promoteNewSerial: async () => undefined }
    const { ask } = authorizeWith({ store })
    await expect(ask(['agent'], withCertificate(AGENT.id))).rejects.toMatchObject({
      denial: 'agent_not_active',
    })
  })

  test('a promotion that fails is no denial', async () => {
    const away = new SignetError('unavailable', 'database', 'database is unavailable')
    const store = { ...storeOf(renewed), promoteNewSerial: () => Promise.reject(away) }
    const { ask, log } = authorizeWith({ store })
    await expect(ask(['agent'], withCertificate(AGENT.id))).rejects.toBe(away)
    expect(log.lines[0]?.message).toBe('Unable to activate the new agent SVID')
  })
})

test('an admin is preferred to an agent when a row admits both', async () => {
  const { ask } = authorizeWith({ adminIds: [AGENT.id], store: storeOf(AGENT) })
  const caller = await ask(['local', 'admin', 'agent'], withCertificate(AGENT.id))
  expect(caller).toMatchObject({ kind: 'admin' })
})
