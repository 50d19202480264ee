import { expect, test } from 'vitest'
import { toHex } from '../../../src/base/bytes.ts'
import { TD } from '../../rigs/datastore.ts'
import { useEmptiedDatastore } from '../../rigs/emptied.ts'
import { authorityStoreContract, jwtDraft, rootDraft } from '../ca/authority-store.contract.ts'

const { empty, database } = useEmptiedDatastore()

authorityStoreContract(async () => {
  const { authorities, bundles } = await empty()
  return {
    store: authorities,
    bundleRoots: async () =>
      ((await bundles.getBundle(TD))?.x509Authorities ?? []).map((a) => toHex(a.certificate)),
    bundleKeyIds: async () =>
      ((await bundles.getBundle(TD))?.jwtAuthorities ?? []).map((authority) => authority.keyId),
  }
})

test('the sequence number of the own bundle grows with each publication and removal', async () => {
  const { authorities, bundles } = await empty()
  const numbers: bigint[] = []
  const look = async () => numbers.push((await bundles.getBundle(TD))!.sequenceNumber)
  const root = await authorities.insertPrepared(rootDraft())
  await look()
  await authorities.insertPrepared(jwtDraft({ holder: 'h' }))
  await look()
  await authorities.activate(root.id)
  await look()
  await authorities.dropHolder('h')
  await look()
  expect(numbers).toEqual([1n, 2n, 2n, 3n])
})

test('every transition is in the change log and in the audit', async () => {
  const { authorities, changeLog } = await empty()
  const start = await changeLog.position()
  const root = await authorities.insertPrepared(rootDraft())
  await authorities.activate(root.id)
  const { changes } = await changeLog.readSince(start)
  expect(changes).toEqual([
    { kind: 'bundle', id: TD },
    { kind: 'authority', id: String(root.id) },
    { kind: 'authority', id: String(root.id) },
  ])
  const { rows } = await database.query('select action, object_id from signet.audit order by id')
  expect(rows).toEqual([
    { action: 'authority.prepare', object_id: root.authorityId },
    { action: 'authority.activate', object_id: root.authorityId },
  ])
})

test('dropping an empty holder drops nothing: those rows are shared', async () => {
  const { authorities } = await empty()
  await authorities.insertPrepared(rootDraft())
  await authorities.dropHolder('')
  expect(await authorities.listAuthorities()).toHaveLength(1)
})
