/**
 * What a process that holds keys asks of the kernel at start (I9): no core dump, no look into its
 * memory by others of the same user, and pages with keys never swapped out.
 */
import type { Log } from '../ports.ts'
import { errorName, lockPages, setCoreLimit, setDumpable, unlockPages } from './libc.ts'

/**
 * Also makes /proc/<our pid> root's: a workload attestor of another process can't read ours, and
 * our own reads through /proc/self go on.
 */
export function setNonDumpable(): void {
  setDumpable(false)
}

/** Soft and hard limit 0: a child can't raise it again. */
export function disableCoreDumps(): void {
  setCoreLimit(0n)
}

/**
 * Keeps the pages of this buffer out of swap until unlocked; true when the kernel agreed. Refusal
 * (RLIMIT_MEMLOCK) is no reason to stop: swap may be encrypted or absent. Locks whole pages.
 */
export function lockMemory(buffer: Uint8Array, log: Log): boolean {
  try {
    lockPages(buffer)
    return true
  } catch (error) {
    log.warn('Key memory could not be locked', { errno: errorName(error), bytes: buffer.length })
    return false
  }
}

export function unlockMemory(buffer: Uint8Array): void {
  unlockPages(buffer)
}
