/**
 * One server per embedded database: a listening socket in Linux's abstract namespace, which the
 * kernel frees at the owner's death, however it dies. Its name holds a random word kept in the
 * private directory, so that nobody else can take it first.
 */
import { linkSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import path from 'node:path'
import { toHex } from '../../../base/bytes.ts'
import { SignetError } from '../../../base/error.ts'
import type { Random } from '../../../base/ports.ts'

const NAME_BYTES = 16

export async function lockOwner(dir: string, random: Random): Promise<AsyncDisposable> {
  const name = ownerName(dir, random)
  const server = createServer((socket) => socket.destroy())
  await new Promise<void>((resolve, reject) => {
    server.once('error', (cause: NodeJS.ErrnoException) => {
      if (cause.code !== 'EADDRINUSE') return reject(cause)
      reject(
        new SignetError(
          'failed_precondition',
          'data_dir_in_use',
          `another server is running on the embedded database in ${dir}`,
        ),
      )
    })
    server.listen(`\0signet-postgres-${name}`, resolve)
  })
  server.unref()
  return {
    [Symbol.asyncDispose]: () => new Promise<void>((resolve) => server.close(() => resolve())),
  }
}

/** Made once; the hard link makes two first starts agree on one name. */
function ownerName(dir: string, random: Random): string {
  const file = path.join(dir, 'owner')
  const fresh = toHex(random.bytes(NAME_BYTES))
  const draft = path.join(dir, `owner.${fresh}`)
  writeFileSync(draft, fresh, { mode: 0o600 })
  try {
    linkSync(draft, file)
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== 'EEXIST') throw cause
  } finally {
    rmSync(draft)
  }
  return readFileSync(file, 'utf8')
}
