/**
 * Files that only we may read: created 0600, written to a temporary name, synced, renamed and the
 * directory synced, so that after a crash there is the old content or the new, never half of one.
 */
import { open, rename, rm } from 'node:fs/promises'
import { dirname } from 'node:path'

export async function writePrivateFile(path: string, data: string | Uint8Array): Promise<void> {
  const temporary = `${path}.tmp`
  // A leftover with a laxer mode would keep it: `open` applies the mode to new files only.
  await rm(temporary, { force: true })
  const file = await open(temporary, 'wx', 0o600)
  try {
    await file.writeFile(data)
    await file.sync()
  } finally {
    await file.close()
  }
  await rename(temporary, path)
  const directory = await open(dirname(path), 'r')
  try {
    await directory.sync()
  } finally {
    await directory.close()
  }
}
