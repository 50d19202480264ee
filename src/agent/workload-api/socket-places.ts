/**
 * Where the agent's sockets lie: the public one where every workload passes, the admin one where
 * nobody else does. The configuration compares the two paths as they are written; this compares
 * what they are, symbolic links followed.
 */
import { realpathSync } from 'node:fs'
import { chmod, mkdir, rm } from 'node:fs/promises'
import { dirname, sep } from 'node:path'
import { SignetError } from '../../base/error.ts'
import { prepareSocketPath } from '../../base/os/socket-path.ts'
import type { Log } from '../../base/ports.ts'

const PUBLIC_DIR_MODE = 0o755

/** Makes the directory where absent, and removes a stale socket. */
export async function preparePublicSocket(path: string): Promise<void> {
  const directory = dirname(path)
  const first = await mkdir(directory, { recursive: true, mode: PUBLIC_DIR_MODE })
  if (first !== undefined) {
    // Workloads of every user must pass it, so the umask does not count for what we create.
    for (let made = directory; made.length >= first.length; made = dirname(made)) {
      await chmod(made, PUBLIC_DIR_MODE)
    }
  }
  await rm(path, { force: true })
}

/**
 * The real path of the admin socket. Throws failed_precondition when others may write on the way to
 * it, or when it is at or below `publicPath`'s directory, which everybody reaches (empty: there is
 * no public socket).
 */
export async function prepareAdminSocket(
  path: string,
  publicPath: string,
  log: Log,
): Promise<string> {
  const real = await prepareSocketPath(path, log)
  if (publicPath !== '' && isWithin(dirname(real), realpathSync(dirname(publicPath)))) {
    throw new SignetError(
      'failed_precondition',
      'admin_socket_public',
      'admin socket cannot be in the same directory or a subdirectory as that containing the Workload API socket',
    )
  }
  return real
}

function isWithin(directory: string, ancestor: string): boolean {
  return directory === ancestor || directory.startsWith(ancestor === sep ? sep : ancestor + sep)
}
