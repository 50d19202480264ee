/** Child processes and other things of one test, ended after it; and descriptors to count. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync } from 'node:fs'
import { afterEach } from 'vitest'

/** `cleanups` run after each test of the file, the last first. */
export function useChildren() {
  const cleanups: (() => void)[] = []
  afterEach(() => {
    for (const cleanup of cleanups.splice(0).reverse()) cleanup()
  })
  /** Holds still until its stdin ends. */
  const startChild = (): ChildProcess => {
    const child = spawn('cat', [], { stdio: ['pipe', 'ignore', 'inherit'] })
    cleanups.push(() => child.kill('SIGKILL'))
    return child
  }
  return { cleanups, startChild }
}

export async function kill(child: ChildProcess): Promise<void> {
  const gone = once(child, 'exit')
  child.kill('SIGKILL')
  await gone
}

/** Of this process. */
export function openDescriptors(): number {
  return readdirSync('/proc/self/fd').length
}
