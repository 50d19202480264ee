/** A Signet server started from the files of a real SPIRE server, beside that server's data. */
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { Daemon } from '../rigs/process.ts'
import { until } from '../rigs/until.ts'
import { Deployment, program } from './rig.ts'

test('-fresh begins empty beside the data of a SPIRE server, which lives on untouched', async () => {
  await using deployment = await Deployment.create('spire')
  const entry = ['-parentID', 'spiffe://example.org/node', '-selector', 'unix:uid:0']
  const spire = await deployment.startServer({})
  const id = await deployment.createEntry([...entry, '-spiffeID', 'spiffe://example.org/of-spire'])
  const bundle = await deployment.serverOk(['bundle', 'show'])
  await spire.stop()
  const files = ['datastore.sqlite3', 'keys.json'].map((file) =>
    join(deployment.dir, 'server', 'data', file),
  )
  const digests = () =>
    files.map((file) => createHash('sha256').update(readFileSync(file)).digest('hex'))
  const before = digests()

  const [command, lead] = program('signet', 'server')
  const start = (...more: string[]) =>
    Daemon.start(command, [...lead, 'run', '-config', deployment.serverConf, ...more])
  await using refused = start()
  expect(await refused.untilExit()).toBe(1)
  expect(refused.output).toContain(`${files[0]} holds the data of a SPIRE server`)
  expect(digests()).toEqual(before)

  // The second time the data directory is ours already: the flag has done its work.
  for (const flags of [['-fresh'], []]) {
    deployment.serverProduct = 'signet'
    await using signet = start(...flags)
    await until('health', async () => (await deployment.server(['healthcheck'])).code === 0)
    expect(signet.output).toContain('the SQLite file is not used')
    expect(await deployment.serverOk(['bundle', 'show'])).not.toBe(bundle)
    expect(await deployment.serverOk(['entry', 'show'])).toContain('Found 0 entries')
    await deployment.createEntry([...entry, '-spiffeID', 'spiffe://example.org/of-signet'])
    await deployment.serverOk(['entry', 'delete', '-entryID', await onlyEntry(deployment)])
    expect(await signet.stop()).toBe(0)
    expect(digests()).toEqual(before)
  }

  deployment.serverProduct = 'spire'
  await deployment.startServer()
  expect(await onlyEntry(deployment)).toBe(id)
  expect(await deployment.serverOk(['bundle', 'show'])).toBe(bundle)
})

async function onlyEntry(deployment: Deployment): Promise<string> {
  const shown = await deployment.serverOk(['entry', 'show'])
  const ids = [...shown.matchAll(/^Entry ID +: (\S+)/gm)].map((match) => match[1]!)
  expect(ids).toHaveLength(1)
  return ids[0]!
}
