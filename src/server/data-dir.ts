/** Directories in data_dir: made, or refused with who may not. */
import { accessSync, constants, existsSync, mkdirSync } from 'node:fs'
import { dirname } from 'node:path'
import { SignetError } from '../base/error.ts'

/** With its parents; one that is there stays as it is. Throws failed_precondition `bad_data_dir`. */
export function makeDirectory(path: string, mode: number): void {
  try {
    mkdirSync(path, { recursive: true, mode })
  } catch (thrown) {
    const cause = refusalOf(path) ?? thrown
    const text = `directory ${path} of data_dir can not be made by uid ${process.geteuid?.()}`
    throw new SignetError('failed_precondition', 'bad_data_dir', text, { cause })
  }
}

/** Node calls a read-only file system ENOENT when it makes parents as well; the kernel knows. */
function refusalOf(path: string): unknown {
  let there = path
  while (!existsSync(there)) there = dirname(there)
  try {
    accessSync(there, constants.W_OK)
    return undefined
  } catch (cause) {
    return cause
  }
}
