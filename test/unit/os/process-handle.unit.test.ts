import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, mkdtempSync, openSync, rmSync, writeFileSync } from 'node:fs'
import { connect, createServer, Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { expect, test } from 'vitest'
import { createAccountNames } from '../../../src/base/os/account-names.ts'
import { peerCredentials, socketFd } from '../../../src/base/os/peer-credentials.ts'
import {
  fingerprintChange,
  openPeerProcess,
  openProcess,
  processFingerprint,
} from '../../../src/base/os/process-handle.ts'
import { FakeClock } from '../../fakes/fake-clock.ts'
import { kill, openDescriptors, useChildren } from '../../rigs/children.ts'

const PROCESS_HANDLE = pathToFileURL(
  join(import.meta.dirname, '../../../src/base/os/process-handle.ts'),
).href
const FAILING_CALLS = 10_000
/** Above every pid_max (2^22), so it never exists. */
const NO_PID = 2 ** 30

const { cleanups, startChild } = useChildren()

function killGroup(leader: ChildProcess): void {
  try {
    process.kill(-leader.pid!, 'SIGKILL')
  } catch {
    // Nobody of it is left.
  }
}

/** The server's end of a connection that `program` (perl, on Unix socket $ARGV[0]) makes. */
async function acceptFrom(program: string): Promise<{ socket: Socket; child: ChildProcess }> {
  const directory = mkdtempSync(join(tmpdir(), 'peer-'))
  const path = join(directory, 's')
  const server = createServer({ pauseOnConnect: true }).listen(path)
  cleanups.push(() => {
    server.close()
    rmSync(directory, { recursive: true })
  })
  await once(server, 'listening')
  const connected = once(server, 'connection')
  const opening =
    'use Socket; socket(S, PF_UNIX, SOCK_STREAM, 0); connect(S, sockaddr_un($ARGV[0])) or die;'
  const command = ['-e', opening + program, path]
  // A group of its own: what it forks ends with it, instead of holding our output open after us.
  const child = spawn('perl', command, { stdio: 'inherit', detached: true })
  cleanups.push(() => killGroup(child))
  const [socket] = (await connected) as [Socket]
  cleanups.push(() => socket.destroy())
  return { socket, child }
}

test('credentials name the process that connected', async () => {
  const { socket, child } = await acceptFrom('sleep 60')
  const expected = { pid: child.pid, uid: process.getuid!(), gid: process.getgid!() }
  expect(peerCredentials(socketFd(socket))).toEqual(expected)
  using handle = openPeerProcess(socket)
  expect(handle).toMatchObject(expected)
  expect(handle.alive()).toBe(true)
  expect(handle.exePath()).toMatch(/perl/)
  expect(handle.fingerprint()).toEqual(processFingerprint(child.pid!))
})

test('a socket passed on to a child still names the one that connected', async () => {
  const { socket, child } = await acceptFrom('if (fork()) { sleep 60 } else { sleep 60 }')
  using handle = openPeerProcess(socket)
  expect(handle.pid).toBe(child.pid)
  await kill(child)
  expect(handle.alive()).toBe(false)
})

test('a peer that died before accept is refused', async () => {
  const { socket, child } = await acceptFrom('exit 0')
  if (child.exitCode === null) await once(child, 'exit')
  expect(() => openPeerProcess(socket)).toThrow(expect.objectContaining({ code: 'process_gone' }))
})

test('a closed socket has no descriptor', () => {
  expect(() => socketFd(new Socket())).toThrow(expect.objectContaining({ code: 'no_socket_fd' }))
  const socket = connect('/nonexistent/socket').on('error', () => {})
  socket.destroy()
  expect(() => socketFd(socket)).toThrow(expect.objectContaining({ code: 'no_socket_fd' }))
})

test('two processes of one program differ, one process agrees with itself', () => {
  const [a, b] = [startChild(), startChild()]
  const [first, second] = [processFingerprint(a.pid!), processFingerprint(b.pid!)]
  expect(fingerprintChange(first, processFingerprint(a.pid!))).toBeUndefined()
  expect(fingerprintChange(first, second)).toMatch(/^(startTime|stackStart)$/)
  expect(first.exe).toBe(second.exe)
})

test('the handle stays with its process when the number is given to another', async () => {
  const child = startChild()
  using handle = openProcess(child.pid!)
  const before = handle.fingerprint()
  await kill(child)
  const recycled = recycle(child.pid!)
  expect(handle.alive()).toBe(false)
  for (const read of [handle.fingerprint, handle.exePath, handle.openExe]) {
    expect(read).toThrow(expect.objectContaining({ kind: 'unavailable', code: 'process_gone' }))
  }
  // Forcing a number needs root; elsewhere the dead process is all that can be shown.
  if (recycled) expect(fingerprintChange(before, recycled)).toBeDefined()
})

/** Makes a process with that number, if the kernel lets us, and returns its fingerprint. */
function recycle(pid: number): ReturnType<typeof processFingerprint> | undefined {
  for (let attempt = 0; attempt < 50; attempt++) {
    try {
      writeFileSync('/proc/sys/kernel/ns_last_pid', String(pid - 1))
    } catch {
      return undefined
    }
    const child = startChild()
    if (child.pid === pid) return processFingerprint(pid)
    child.kill('SIGKILL')
  }
  return undefined
}

test('a zombie is not alive', async () => {
  // The parent never reaps; its own child exits at once and says so by closing the pipe.
  const program = 'my $p = fork(); exit 0 unless $p; $| = 1; print "$p\\n"; sleep 60'
  const parent = spawn('perl', ['-e', program], { stdio: ['ignore', 'pipe', 'inherit'] })
  cleanups.push(() => parent.kill('SIGKILL'))
  const [line] = await once(parent.stdout!, 'data')
  const zombie = Number(String(line))
  await expect
    .poll(() => spawnSync('cat', [`/proc/${zombie}/stat`]).stdout.toString())
    .toMatch(/\) Z /)
  expect(() => openProcess(zombie)).toThrow(expect.objectContaining({ code: 'process_gone' }))
})

test('a disposed handle answers nothing', () => {
  const handle = openProcess(process.pid)
  handle[Symbol.dispose]()
  handle[Symbol.dispose]()
  expect(handle.alive()).toBe(false)
  expect(handle.fingerprint).toThrow(expect.objectContaining({ code: 'process_gone' }))
})

test.runIf(process.getuid!() === 0)('who may not look at a process says so, part by part', () => {
  const child = startChild()
  const script = `
    import { openProcess } from '${PROCESS_HANDLE}'
    process.setgid(65534)
    process.setuid(65534)
    const handle = openProcess(${child.pid})
    const { exe, mountNamespace, pidNamespace, uid } = handle.fingerprint()
    let code
    try {
      handle.exePath()
    } catch (error) {
      code = error.code
    }
    console.log(JSON.stringify({ exe, mountNamespace, pidNamespace, uid, code }))
  `
  const args = ['--input-type=module', '-e', script]
  const { stdout } = spawnSync(process.execPath, args, { encoding: 'utf8' })
  const hidden = { exe: '', mountNamespace: '', pidNamespace: '' }
  expect(JSON.parse(stdout)).toEqual({ ...hidden, uid: 0, code: 'process_unreadable' })
})

// T-W7 (SPI-01-006): descriptors leaked on the error path exhaust the agent.
test('failing calls leave no descriptor open', { timeout: 60_000 }, async () => {
  const { socket, child } = await acceptFrom('sleep 60')
  await kill(child)
  const file = openSync('/dev/null', 'r')
  cleanups.push(() => closeSync(file))
  const notASocket = Object.assign(new Socket(), { _handle: { fd: file } })
  const fail = [
    () => openPeerProcess(socket),
    () => openProcess(NO_PID),
    () => processFingerprint(NO_PID),
    () => peerCredentials(file),
    () => openPeerProcess(notASocket),
  ]
  const before = openDescriptors()
  for (let call = 0; call < FAILING_CALLS; call++) {
    expect(fail[call % fail.length]).toThrow()
  }
  expect(openDescriptors()).toBe(before)
  Object.assign(notASocket, { _handle: null })
})

test('successful calls leave no descriptor open either', () => {
  const before = openDescriptors()
  for (let call = 0; call < 1_000; call++) processFingerprint(process.pid)
  expect(openDescriptors()).toBe(before)
})

test('account names come from the name services; unknown ids have none', async () => {
  const names = createAccountNames(new FakeClock())
  const expected = spawnSync('id', ['-un']).stdout.toString().trim()
  const expectedGroup = spawnSync('id', ['-gn']).stdout.toString().trim()
  expect(await names.user(process.getuid!())).toBe(expected)
  expect(await names.group(process.getgid!())).toBe(expectedGroup)
  expect(await names.user(4_000_000_000)).toBeUndefined()
  expect(await names.group(4_000_000_000)).toBeUndefined()
})

test('account names are shared for one second, and failures hide the name', async () => {
  const clock = new FakeClock()
  let asked = 0
  const names = createAccountNames(clock, async (kind, id) => {
    asked += 1
    if (kind === 'group') throw new Error('name service is down')
    return `name-${id}-${asked}`
  })
  expect(await Promise.all([names.user(1), names.user(1)])).toEqual(['name-1-1', 'name-1-1'])
  clock.advanceMs(999)
  expect(await names.user(1)).toBe('name-1-1')
  clock.advanceMs(1)
  expect(await names.user(1)).toBe('name-1-2')
  expect(await names.group(1)).toBeUndefined()
})
