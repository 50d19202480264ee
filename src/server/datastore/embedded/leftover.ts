/**
 * A postmaster that outlived its server (killed with SIGKILL) is stopped before a new one starts.
 * The caller holds the owner lock, so no living server uses it.
 */
import { readFileSync, readlinkSync, realpathSync, rmSync } from 'node:fs'
import path from 'node:path'
import { SignetError } from '../../../base/error.ts'
import type { Clock, Log } from '../../../base/ports.ts'

const POLL_MS = 25
const FAST_MS_MAX = 20_000
const IMMEDIATE_MS_MAX = 20_000

export async function stopLeftover(
  dataDir: string,
  { clock, log }: { readonly clock: Clock; readonly log: Log },
): Promise<void> {
  const pidFile = path.join(dataDir, 'postmaster.pid')
  const pid = readPid(pidFile)
  if (pid === undefined) return
  if (!runsIn(pid, dataDir)) {
    // PostgreSQL would refuse to start when the number now belongs to some other process.
    rmSync(pidFile, { force: true })
    return
  }
  log.warn('Stopping an embedded PostgreSQL that outlived its server', { pid })
  for (const [signal, ms] of [
    ['SIGINT', FAST_MS_MAX],
    ['SIGQUIT', IMMEDIATE_MS_MAX],
  ] as const) {
    process.kill(pid, signal)
    const deadline = clock.monotonicMs() + ms
    while (runsIn(pid, dataDir) && clock.monotonicMs() < deadline) await clock.sleep(POLL_MS)
    if (!runsIn(pid, dataDir)) return
  }
  const text = `an embedded PostgreSQL (process ${pid}) does not stop`
  throw new SignetError('failed_precondition', 'embedded_postgres_stuck', text)
}

function readPid(file: string): number | undefined {
  let text: string
  try {
    text = readFileSync(file, 'utf8')
  } catch {
    return undefined
  }
  const pid = Number.parseInt(text.split('\n')[0] ?? '', 10)
  return Number.isInteger(pid) && pid > 1 ? pid : undefined
}

/** A postmaster works in its data directory. */
function runsIn(pid: number, dataDir: string): boolean {
  try {
    return readlinkSync(`/proc/${pid}/cwd`) === realpathSync(dataDir)
  } catch {
    return false
  }
}
