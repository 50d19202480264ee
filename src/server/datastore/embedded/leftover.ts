/**
 * A postmaster that outlived its server (killed with SIGKILL) is stopped before a new one starts.
 * The caller holds the owner lock, so no living server uses it.
 */
import { readdirSync, readFileSync, readlinkSync, realpathSync, rmSync } from 'node:fs'
import path from 'node:path'
import { SignetError } from '../../../base/error.ts'
import type { Clock, Log } from '../../../base/ports.ts'

const POLL_MS = 25
const FAST_MS_MAX = 20_000
const IMMEDIATE_MS_MAX = 20_000

export async function stopLeftover(
  { dataDir, socketDir }: { readonly dataDir: string; readonly socketDir: string },
  { clock, log }: { readonly clock: Clock; readonly log: Log },
): Promise<void> {
  const pidFile = path.join(dataDir, 'postmaster.pid')
  const pid = readPid(pidFile)
  if (pid === undefined) return
  const waitGone = async (ms: number) => {
    const deadline = clock.monotonicMs() + ms
    while (processesIn(dataDir).length > 0) {
      if (clock.monotonicMs() > deadline) return false
      await clock.sleep(POLL_MS)
    }
    return true
  }
  let gone = false
  if (runsIn(pid, dataDir)) {
    log.warn('Stopping an embedded PostgreSQL that outlived its server', { pid })
    process.kill(pid, 'SIGINT')
    gone = await waitGone(FAST_MS_MAX)
    if (!gone && runsIn(pid, dataDir)) process.kill(pid, 'SIGQUIT')
  }
  // Backends of a killed postmaster end by themselves, and hold its shared memory until then.
  if (!gone && !(await waitGone(IMMEDIATE_MS_MAX))) {
    const text = `an embedded PostgreSQL is running in ${dataDir} and does not stop`
    throw new SignetError('failed_precondition', 'embedded_postgres_stuck', text)
  }
  // PostgreSQL would refuse to start if the number lives on as a zombie, or as another process.
  rmSync(pidFile, { force: true })
  for (const name of readdirSync(socketDir)) rmSync(path.join(socketDir, name), { force: true })
}

function processesIn(dataDir: string): readonly number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((pid) => runsIn(pid, dataDir))
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

/** PostgreSQL's processes work in their data directory. A zombie has none. */
function runsIn(pid: number, dataDir: string): boolean {
  try {
    return readlinkSync(`/proc/${pid}/cwd`) === realpathSync(dataDir)
  } catch {
    return false
  }
}
