import { type ChildProcess, spawnSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { expect, test } from 'vitest'
import { createExitWatch } from '../../../src/base/os/exit-watch.ts'
import { openProcess } from '../../../src/base/os/process-handle.ts'
import { kill, openDescriptors, useChildren } from '../../rigs/children.ts'

const LIBC = pathToFileURL(join(import.meta.dirname, '../../../src/base/os/libc.ts')).href
/** More than one call to the kernel tells. */
const MANY = 150

const { cleanups, startChild } = useChildren()

test('an exit is told once, and only that of who exited', async () => {
  using watch = createExitWatch()
  const [first, second] = [startChild(), startChild()]
  using dying = openProcess(first.pid!)
  using living = openProcess(second.pid!)
  const told: string[] = []
  using _dying = watch.add(dying, () => told.push('first'))
  using _living = watch.add(living, () => told.push('second'))
  watch.check()
  expect(told).toEqual([])
  await kill(first)
  watch.check()
  watch.check()
  expect(told).toEqual(['first'])
})

test('many exits at once are all told', async () => {
  using watch = createExitWatch()
  const children = Array.from({ length: MANY }, startChild)
  const told = new Set<number>()
  for (const { pid } of children) {
    const handle = openProcess(pid!)
    cleanups.push(() => handle[Symbol.dispose]())
    watch.add(handle, () => told.add(pid!))
  }
  await Promise.all(children.map(kill))
  watch.check()
  expect(told).toEqual(new Set(children.map(({ pid }) => pid)))
})

test('whoever gets the number of the one that exited is not taken for it', async () => {
  using watch = createExitWatch()
  const child = startChild()
  using handle = openProcess(child.pid!)
  let told = 0
  using _watched = watch.add(handle, () => told++)
  await kill(child)
  // Forcing a number needs root; elsewhere the exit alone is what can be shown.
  const recycled = recycle(child.pid!)
  watch.check()
  expect(told).toBe(1)
  if (recycled === undefined) return
  using successor = openProcess(recycled.pid!)
  let successorTold = 0
  using _successor = watch.add(successor, () => successorTold++)
  watch.check()
  expect([told, successorTold]).toEqual([1, 0])
  await kill(recycled)
  watch.check()
  expect([told, successorTold]).toEqual([1, 1])
})

function recycle(pid: number): ChildProcess | undefined {
  for (let attempt = 0; attempt < 50; attempt++) {
    try {
      writeFileSync('/proc/sys/kernel/ns_last_pid', String(pid - 1))
    } catch {
      return undefined
    }
    const child = startChild()
    if (child.pid === pid) return child
    child.kill('SIGKILL')
  }
  return undefined
}

test('who is no longer watched is not told of', async () => {
  using watch = createExitWatch()
  const child = startChild()
  using handle = openProcess(child.pid!)
  const watched = watch.add(handle, () => expect.unreachable())
  watched[Symbol.dispose]()
  watched[Symbol.dispose]()
  await kill(child)
  watch.check()
})

test('a kernel without pidfd is asked for each', () => {
  using watch = createExitWatch()
  let alive = true
  let told = 0
  const process = { pidfd: undefined, alive: () => alive }
  using _watched = watch.add(process, () => told++)
  watch.check()
  expect(told).toBe(0)
  alive = false
  watch.check()
  expect(told).toBe(1)
})

test('watching leaves no descriptor open, whichever is disposed first', () => {
  const before = openDescriptors()
  for (let round = 0; round < 1_000; round++) {
    const watch = createExitWatch()
    const handle = openProcess(process.pid)
    const watched = watch.add(handle, () => expect.unreachable())
    if (round % 2 === 0) watch[Symbol.dispose]()
    watched[Symbol.dispose]()
    handle[Symbol.dispose]()
    if (round % 2 === 1) watch[Symbol.dispose]()
  }
  expect(openDescriptors()).toBe(before)
})

test('a signal in the middle of a look fails nothing', () => {
  const script = `
    import { spawn } from 'node:child_process'
    import { epollCreate, epollReadable, isReadable, pidfdOpen } from '${LIBC}'
    let signals = 0
    process.on('SIGUSR2', () => {
      if (++signals === 5_000) process.exit(0)
    })
    const [pidfd, epoll] = [pidfdOpen(process.pid), epollCreate()]
    spawn('perl', ['-e', '1 while kill("USR2", $ARGV[0])', String(process.pid)])
    const look = () => {
      for (let i = 0; i < 100; i++) if (isReadable(pidfd) || epollReadable(epoll).length) throw 0
      setImmediate(look)
    }
    look()
  `
  const args = ['--input-type=module', '-e', script]
  const result = spawnSync(process.execPath, args, { encoding: 'utf8', timeout: 60_000 })
  expect(result.stderr).toBe('')
  expect(result.status).toBe(0)
})
