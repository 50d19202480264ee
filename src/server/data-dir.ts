/** Directories in data_dir: made, or refused with who may not. */
import { mkdirSync } from 'node:fs'
import { SignetError } from '../base/error.ts'

/** With its parents; one that is there stays as it is. Throws failed_precondition `bad_data_dir`. */
export function makeDirectory(path: string, mode: number): void {
  try {
    mkdirSync(path, { recursive: true, mode })
  } catch (cause) {
    const text = `directory ${path} of data_dir can not be made by uid ${process.geteuid?.()}`
    throw new SignetError('failed_precondition', 'bad_data_dir', text, { cause })
  }
}
