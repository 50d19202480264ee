/** `debug getinfo` of the agent, on its admin socket (features.md §3.3). */
import { resolve } from 'node:path'
import { formatGoDuration } from '../../base/duration.ts'
import { DebugService } from '../../wire/gen/spire/api/agent/debug/v1/debug.ts'
import { messageOf } from '../error.ts'
import { output, parseFlags, text, usageOf } from '../flags.ts'
import { rfc3339 } from '../output/go-text.ts'
import { answer } from '../output/proto-json.ts'
import type { Runnable } from '../program.ts'
import { idToText } from '../server/spiffe-id.ts'
import { print, type Session, withSession } from '../session.ts'

const DEFAULT_ADMIN_SOCKET = '/tmp/spire-agent/private/admin.sock'
const NAME = 'debug getinfo'
const FLAGS = {
  socketPath: text('Path of the admin socket', DEFAULT_ADMIN_SOCKET),
  output: output(),
}

export const agentDebugGetInfo: Runnable = {
  help: (env) => env.err(usageOf(NAME, FLAGS)),
  run: async (args, env) => {
    const parsed = parseFlags(NAME, FLAGS, args)
    if (!parsed.ok) {
      env.err(parsed.output)
      return 1
    }
    const path = resolve(env.workingDir, parsed.values.socketPath || DEFAULT_ADMIN_SOCKET)
    try {
      await withSession(env, { path }, (session) => show(session, parsed.values.output))
      return 0
    } catch (thrown) {
      env.err(`Error: ${messageOf(thrown)}\n`)
      return 1
    }
  },
}

async function show(session: Session, format: 'pretty' | 'json' | undefined): Promise<void> {
  const { env } = session
  const method = DebugService.getInfo
  const info = await session.call(method, {})
  print(env, format, [answer(method, info)], () => {
    const lastSync = info.lastSyncSuccess === 0n ? '(never)' : rfc3339(Number(info.lastSyncSuccess))
    const line = (label: string, value: unknown) => {
      env.out(`  ${`${label}:`.padEnd(32)} ${String(value)}\n`)
    }
    env.out('Agent Debug Info:\n')
    line('Uptime', formatGoDuration(info.uptime * 1000))
    line('Last Sync Success', lastSync)
    line('Cached X.509 SVIDs', info.cachedX509SvidsCount)
    line('Cached JWT SVIDs', info.cachedJwtSvidsCount)
    line('Cached SVID Store X.509 SVIDs', info.cachedSvidstoreX509SvidsCount)
    if (info.svidChain.length > 0) env.out('  SVID Chain:\n')
    for (const [index, certificate] of info.svidChain.entries()) {
      env.out(`    [${index}] SPIFFE ID:  ${idToText(certificate.id) || '(none)'}\n`)
      env.out(`        Subject:    ${certificate.subject}\n`)
      env.out(`        Expires At: ${rfc3339(Number(certificate.expiresAt))}\n`)
    }
  })
}
