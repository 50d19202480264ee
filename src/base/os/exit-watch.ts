/**
 * Which of many processes have exited, asked with one system call however many they are: their
 * pidfds hang on one epoll descriptor, which is what is owned here.
 *
 * Asked and not waited for: Node can't wait for a descriptor of this kind, and a thread of its pool
 * that waits would be missing elsewhere and hold up the exit.
 */
import { closeSync } from 'node:fs'
import { epollAddOnce, epollCreate, epollReadable } from './libc.ts'
import type { ProcessHandle } from './process-handle.ts'

type Watched = Pick<ProcessHandle, 'pidfd' | 'alive'>

export interface ExitWatch extends Disposable {
  /** Until disposed, or until the process's handle is. */
  add(process: Watched, onExit: () => void): Disposable
  /** Calls `onExit` of those that exited since. */
  check(): void
}

export function createExitWatch(): ExitWatch {
  const epoll = epollCreate()
  const onExits = new Map<number, () => void>()
  /** Kernels without pidfd: each is asked. */
  const polled = new Map<Watched, () => void>()
  let lastKey = 0
  const addPolled = (process: Watched, onExit: () => void) => {
    polled.set(process, onExit)
    return { [Symbol.dispose]: () => void polled.delete(process) }
  }
  return {
    add(process, onExit) {
      const { pidfd } = process
      if (pidfd === undefined) return addPolled(process, onExit)
      // Not the descriptor, whose number goes to others once it is closed.
      const key = ++lastKey
      epollAddOnce(epoll, pidfd, key)
      onExits.set(key, onExit)
      // The kernel takes a closed descriptor off by itself, and a key without owner is passed over.
      return { [Symbol.dispose]: () => void onExits.delete(key) }
    },
    check() {
      for (const key of epollReadable(epoll)) onExits.get(key)?.()
      for (const [process, onExit] of polled) if (!process.alive()) onExit()
    },
    [Symbol.dispose]() {
      onExits.clear()
      closeSync(epoll)
    },
  }
}
