/**
 * What operators and SPIRE's suites read of a running server: its log, its audit log, its metrics
 * and its health (features.md §4).
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { BundleService } from '../../../src/wire/gen/spire/api/server/bundle/v1/bundle.ts'
import { EntryService } from '../../../src/wire/gen/spire/api/server/entry/v1/entry.ts'
import { attestWithToken, type RawIdentity } from '../../interop/raw-client.ts'
import { freePort } from '../../interop/rig.ts'
import { call, LiveServer } from '../../rigs/live-server.ts'
import { until } from '../../rigs/until.ts'

let server: LiveServer
let metricsPort: number
let healthPort: number

beforeAll(async () => {
  metricsPort = await freePort()
  healthPort = await freePort()
  server = await LiveServer.start({
    server: 'audit_log_enabled = true',
    blocks: `telemetry { Prometheus { host = "127.0.0.1" port = ${metricsPort} } }
      health_checks { listener_enabled = true bind_port = "${healthPort}" }`,
  })
}, 90_000)
afterAll(() => server?.[Symbol.asyncDispose]())

const cli = (...args: string[]) => server.deployment.serverOk(args)
/** Lines of the log that hold all of `parts`. */
const lines = (...parts: string[]) =>
  server.daemon.output.split('\n').filter((line) => parts.every((part) => line.includes(part)))
const logged = (...parts: string[]) =>
  until(`a line with ${parts.join(', ')}`, () => lines(...parts)[0], 10_000)
const ask = (identity: RawIdentity) =>
  call(server.tls(identity), EntryService.getAuthorizedEntries, { outputMask: undefined })

describe('the log', () => {
  test('says twice that the APIs start', () => {
    const starting = lines('msg="Starting Server APIs"', 'subsystem_name=endpoints')
    expect(starting.map((line) => /network=(\w+)/.exec(line)?.[1]).sort()).toEqual(['tcp', 'unix'])
    for (const line of starting) expect(line).toMatch(/^time="[^"]+" level=info /)
  })

  test('names agents that are banned, deleted, and come all the same', async () => {
    const identity = await server.attest()
    expect((await ask(identity)).code).toBe(0)
    const spiffe = `spiffe_id="${identity.spiffeId}"`
    const caller = `caller_id="${identity.spiffeId}"`

    await cli('agent', 'ban', '-spiffeID', identity.spiffeId)
    await logged('level=info', 'msg="Agent banned"', spiffe, 'authorized_as=local')
    expect(await ask(identity)).toMatchObject({ code: 7 })
    await logged('level=error', 'msg="Agent is banned"', caller, 'caller_addr=')

    await cli('agent', 'evict', '-spiffeID', identity.spiffeId)
    await logged('level=info', 'msg="Agent deleted"', spiffe)
    expect(await ask(identity)).toMatchObject({ code: 7 })
    await logged(
      'level=error',
      'msg="Agent is not attested"',
      caller,
      'method=GetAuthorizedEntries',
    )
  })

  test('says why a token attests nobody', async () => {
    const again = 'no-such-token'
    const attesting = attestWithToken(server.address, server.rootsPem, again, server.deployment.dir)
    const text = 'failed to attest: join token does not exist or has already been used'
    await expect(attesting).rejects.toMatchObject({ code: 3, details: text })
    await logged('level=error', text, 'method=AttestAgent', 'service=agent.v1.Agent')
    // The token could be somebody else's in the next moment.
    expect(server.daemon.output).not.toContain(again)
  })

  test('tells of an attestation that went well', async () => {
    const identity = await server.attest()
    await logged(
      'msg="Agent attestation request completed"',
      `agent_id="${identity.spiffeId}"`,
      'node_attestor_type=join_token',
    )
  })
})

describe('the audit log', () => {
  test('names a local caller by its process', async () => {
    await cli('entry', 'show', '-hint', 'audited')
    const line = await logged('msg="API accessed"', 'type=audit', 'hint=audited')
    for (const part of [
      'level=info',
      'method=ListEntries',
      'service=entry.v1.Entry',
      'status=success',
      `caller_uid=${process.getuid?.()}`,
      `caller_gid=${process.getgid?.()}`,
      'caller_path=',
      'authorized_as=local',
      'authorized_via=transport',
      'subsystem_name=api',
    ]) {
      expect(line).toContain(part)
    }
    expect(line).toMatch(/request_id=[0-9a-f]{8}-[0-9a-f]{4}-4/)
  })

  test('names a remote caller by its SPIFFE ID, and says how a call failed', async () => {
    const identity = await server.attest()
    await ask(identity)
    const caller = `caller_id="${identity.spiffeId}"`
    const line = await logged('type=audit', 'method=GetAuthorizedEntries', caller)
    expect(line).toContain('status=success')
    expect(line).toContain('authorized_as=agent')
    expect(line).not.toContain('caller_uid')

    const missing = await server.deployment.server(['entry', 'show', '-entryID', 'none'])
    expect(missing.code).toBe(1)
    const failed = await logged('type=audit', 'method=GetEntry', 'entry_id=none')
    expect(failed).toContain('status=error status_code=NotFound status_message="entry not found"')
  })

  test('has one record for each item of a batch', async () => {
    const parent = 'spiffe://example.org/node'
    const create = ['entry', 'create', '-parentID', parent, '-selector', 'unix:uid:7']
    await cli(...create, '-spiffeID', 'spiffe://example.org/audited')
    await server.deployment.server([...create, '-spiffeID', 'spiffe://example.org/audited'])
    const records = lines('type=audit', 'method=BatchCreateEntry', 'example.org/audited')
    expect(records.map((line) => /status_code=(\w+)/.exec(line)?.[1])).toEqual([
      undefined,
      'AlreadyExists',
    ])
    expect(records[0]).toContain('selectors="unix:uid:7"')
  })

  test('keeps no record of what was not let in', async () => {
    const anonymous = server.tls()
    await call(anonymous, EntryService.getAuthorizedEntries, { outputMask: undefined })
    await logged('method=GetAuthorizedEntries', 'level=error')
    expect(lines('type=audit', 'status_code=PermissionDenied')).toEqual([])
  })
})

describe('the metrics', () => {
  const scrape = async () => (await fetch(`http://127.0.0.1:${metricsPort}/`)).text()
  const metric = (text: string, name: string, ...labels: string[]) => {
    const line = text
      .split('\n')
      .find((one) => one.startsWith(`${name}{`) && labels.every((label) => one.includes(label)))
    return line === undefined ? undefined : Number(line.slice(line.lastIndexOf(' ')))
  }

  test('have SPIRE’s names and labels', async () => {
    const identity = await server.attest()
    await ask(identity)
    await call(server.tls(), BundleService.getBundle, { outputMask: undefined })
    await cli('entry', 'count')
    await cli('agent', 'count')
    await cli('bundle', 'count')
    await cli('x509', 'mint', '-spiffeID', 'spiffe://example.org/minted')
    await cli('jwt', 'mint', '-spiffeID', 'spiffe://example.org/minted', '-audience', 'a')
    const text = await scrape()
    const ok = 'status="OK"'
    for (const [name, ...labels] of [
      ['started', 'version=', 'trust_domain_id="example_org"'],
      ['uptime_in_ms'],
      ['rpc_agent_v1_agent_attest_agent', ok],
      ['rpc_agent_v1_agent_attest_agent_elapsed_time_count', ok],
      ['rpc_bundle_v1_bundle_get_bundle', ok],
      ['rpc_entry_v1_entry_get_authorized_entries', ok],
      ['rpc_svid_v1_svid_mint_x509svid', ok],
      ['ca_manager_x509_ca_prepare', ok],
      ['ca_manager_x509_ca_prepare_elapsed_time_count', ok],
      ['ca_manager_jwt_key_prepare', ok],
      ['ca_manager_x509_ca_activate'],
      ['manager_jwt_key_activate'],
      ['manager_x509_ca_rotate_expiration', 'trust_domain_id='],
      ['manager_x509_ca_rotate_ttl', 'trust_domain_id='],
      ['server_ca_sign_x509_svid'],
      ['server_ca_sign_jwt_svid'],
      ['svid_rotate', ok],
      ['datastore_node_create', ok],
      ['datastore_node_count', ok],
      ['datastore_registration_entry_count', ok],
      ['datastore_bundle_count', ok],
      ['datastore_join_token_create', ok],
      ['datastore_join_token_delete', ok],
      ['entry_cache_reload', ok],
      ['entry_cache_reload_elapsed_time_count', ok],
      ['node_agents_by_id_cache_count'],
      ['entry_entries_by_entryid_cache_count'],
      ['entry_nodealiases_by_entryid_cache_count'],
    ] as [string, ...string[]][]) {
      const value = metric(text, `spire_server_${name}`, 'host=', ...labels)
      expect(value, name).toBeGreaterThanOrEqual(0)
    }
  })

  test.each([
    // One change log takes the place of SPIRE's two event tables, and it skips nothing.
    'datastore_node_event_fetch',
    'datastore_node_event_list',
    'datastore_node_event_prune',
    'datastore_registration_entry_event_fetch',
    'datastore_registration_entry_event_list',
    'datastore_registration_entry_event_prune',
    'node_skipped_node_event_ids_count',
    'entry_skipped_entry_event_ids_count',
    // Indexes that the entry cache does without.
    'node_agents_by_expiresat_cache_count',
    'entry_nodealiases_by_selector_cache_count',
    // One statement does what SPIRE does in several.
    'datastore_join_token_fetch',
    'datastore_node_selectors_fetch',
    'datastore_node_selectors_list',
    'datastore_node_selectors_set',
  ])('%s stands for nothing here, and is not shown as a zero', async (name) => {
    await ask(await server.attest())
    const text = await scrape()
    expect(text).toContain('spire_server_datastore_node_create{')
    expect(text).not.toContain(`spire_server_${name}`)
  })

  test('follow what happens', async () => {
    const entriesBefore = metric(
      await scrape(),
      'spire_server_entry_entries_by_entryid_cache_count',
    )!
    await server.deployment.createEntry([
      ...['-parentID', 'spiffe://example.org/node', '-spiffeID', 'spiffe://example.org/counted'],
      ...['-selector', 'unix:uid:8'],
    ])
    await until('the gauge to follow', async () => {
      const now = metric(await scrape(), 'spire_server_entry_entries_by_entryid_cache_count')
      return now === entriesBefore + 1
    })
    const aliases = 'spire_server_entry_nodealiases_by_entryid_cache_count'
    const aliasesBefore = metric(await scrape(), aliases)!
    await cli(
      'entry',
      'create',
      '-node',
      '-spiffeID',
      'spiffe://example.org/alias',
      ...[...['-selector', 'x509pop:a', '-selector', 'x509pop:b']],
    )
    await until('the aliases to follow', async () => {
      return metric(await scrape(), aliases) === aliasesBefore + 1
    })
    const refused = 'spire_server_rpc_entry_v1_entry_get_authorized_entries'
    const denied = async () => metric(await scrape(), refused, 'status="PermissionDenied"') ?? 0
    const before = await denied()
    await call(server.tls(), EntryService.getAuthorizedEntries, { outputMask: undefined })
    expect(await denied()).toBe(before + 1)
  })
})

describe('health', () => {
  const get = async (path: string) => {
    const answer = await fetch(`http://127.0.0.1:${healthPort}/${path}`)
    return { status: answer.status, body: (await answer.json()) as object }
  }

  test('names SPIRE’s subsystems, and costs no ledger row', async () => {
    await until('readiness', async () => (await get('ready')).status === 200)
    const count = async () =>
      (await server.rows('select count(*) as n from signet.ledger'))[0]!.n as unknown
    const before = await count()
    for (const path of ['live', 'ready']) {
      const { status, body } = await get(path)
      expect(status).toBe(200)
      expect(Object.keys(body).sort()).toEqual([
        'catalog.datastore',
        'server',
        'server.ca',
        'server.ca.rotator',
      ])
    }
    expect((await server.deployment.server(['healthcheck'])).stdout).toBe('Server is healthy.\n')
    expect(await count()).toBe(before)
  })
})
