/**
 * What a process that holds keys asks of the kernel at start (I9): no core dump, and no look into
 * its memory by others of the same user. Keys live in OpenSSL's own memory, whose pages can not be
 * locked one by one: swap must be encrypted or off where that matters.
 */
import { setCoreLimit, setDumpable } from './libc.ts'

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
