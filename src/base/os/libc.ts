/**
 * The few C library calls that Node lacks, by FFI. The only importer of koffi: everything native
 * that is not the bulk signer passes here, so the surface to review is this file.
 *
 * The symbols are looked up in the running program, which has the C library it was linked with
 * (glibc or musl) already loaded. Constants are those of Linux on x64 and arm64, where they agree.
 */
import koffi from 'koffi'
import { SignetError } from '../error.ts'

/** asm-generic/unistd.h, the same number on every architecture since 5.3. */
const SYS_PIDFD_OPEN = 434
const RLIMIT_CORE = 4
const PR_SET_DUMPABLE = 4
const O_CLOEXEC = 0o2000000
const POLLIN = 1
const EPOLL_CLOEXEC = 0o2000000
const EPOLL_CTL_ADD = 1
const EPOLLIN = 1
const EPOLLONESHOT = 1 << 30
/** `struct epoll_event` has no padding on x64 alone: where the caller's key is, and what it takes. */
const EPOLL_EVENT = process.arch === 'x64' ? { key: 4, bytes: 12 } : { key: 8, bytes: 16 }
const EPOLL_EVENTS_PER_CALL = 64
const SIG_UNBLOCK = 1
const SIG_SETMASK = 2
/** `sigset_t` of glibc and musl; signal n is bit n - 1. */
const SIGNAL_SET_BYTES = 128
/** NSS answers one record into this; glibc suggests 1 KiB, large groups need far more. */
const NSS_BUFFER_BYTES = 256 * 1024

/** PATH_MAX; filled and read in one go. */
const linkTarget = Buffer.alloc(4096)

const program = koffi.load(null)

type GetSockOpt = (
  fd: number,
  level: number,
  name: number,
  value: Uint8Array,
  size: Uint32Array,
) => number
const getsockopt: GetSockOpt = program.func('getsockopt', 'int', [
  'int',
  'int',
  'int',
  'void *',
  'uint32_t *',
])
const syscall: (...args: unknown[]) => number | bigint = program.func(
  'long syscall(long number, ...)',
)
const poll: (fds: Uint8Array, count: number, timeoutMs: number) => number = program.func(
  'int poll(void *fds, unsigned long count, int timeout)',
)
const epollCreate1: (flags: number) => number = program.func('int epoll_create1(int flags)')
const epollCtl: (epoll: number, operation: number, fd: number, event: Uint8Array) => number =
  program.func('int epoll_ctl(int epoll, int operation, int fd, void *event)')
const epollWait: (epoll: number, events: Uint8Array, max: number, timeoutMs: number) => number =
  program.func('int epoll_wait(int epoll, void *events, int max, int timeout)')
const openat: (directory: number, name: string, flags: number) => number = program.func(
  'int openat(int directory, const char *name, int flags)',
)
const readlinkat: (
  directory: number,
  name: string,
  target: Uint8Array,
  size: number,
) => number | bigint = program.func(
  'long readlinkat(int directory, const char *name, void *target, size_t size)',
)
const prctl: (option: number, ...args: unknown[]) => number = program.func(
  'int prctl(int option, ...)',
)
const setrlimit: (resource: number, limits: BigUint64Array) => number = program.func(
  'int setrlimit(int resource, uint64_t *limits)',
)
const pthreadSigmask: (how: number, set: Uint8Array, before: Uint8Array | null) => number =
  program.func('int pthread_sigmask(int how, void *set, void *before)')

/** Fills `value`; how many bytes the kernel wrote. */
export function getSocketOption(
  fd: number,
  level: number,
  name: number,
  value: Uint8Array,
): number {
  const size = Uint32Array.of(value.length)
  const result = getsockopt(fd, level, name, value, size)
  if (result !== 0) throw systemError('getsockopt')
  return size[0]!
}

/** A close-on-exec file descriptor that stands for the process, whatever becomes of its number. */
export function pidfdOpen(pid: number): number {
  const fd = Number(syscall(SYS_PIDFD_OPEN, 'int', pid, 'unsigned int', 0))
  if (fd < 0) throw systemError('pidfd_open')
  return fd
}

/** Has this descriptor something to read now? Never waits. */
export function isReadable(fd: number): boolean {
  const entry = new DataView(new ArrayBuffer(8))
  entry.setInt32(0, fd, true)
  entry.setInt16(4, POLLIN, true)
  uninterrupted('poll', () => poll(new Uint8Array(entry.buffer), 1, 0))
  return (entry.getInt16(6, true) & POLLIN) !== 0
}

/** A close-on-exec descriptor that watches others. */
export function epollCreate(): number {
  const epoll = epollCreate1(EPOLL_CLOEXEC)
  if (epoll < 0) throw systemError('epoll_create1')
  return epoll
}

/** `key`, any number, is told once, when `fd` has something to read. */
export function epollAddOnce(epoll: number, fd: number, key: number): void {
  const event = new DataView(new ArrayBuffer(EPOLL_EVENT.bytes))
  event.setUint32(0, EPOLLIN | EPOLLONESHOT, true)
  // The 64 bits are ours; a number of JavaScript is that long.
  event.setFloat64(EPOLL_EVENT.key, key)
  if (epollCtl(epoll, EPOLL_CTL_ADD, fd, new Uint8Array(event.buffer)) !== 0) {
    throw systemError('epoll_ctl')
  }
}

/** The keys of those that became readable and were not told yet. Never waits. */
export function epollReadable(epoll: number): number[] {
  const events = new DataView(new ArrayBuffer(EPOLL_EVENTS_PER_CALL * EPOLL_EVENT.bytes))
  const buffer = new Uint8Array(events.buffer)
  const keys: number[] = []
  for (;;) {
    const count = uninterrupted('epoll_wait', () =>
      epollWait(epoll, buffer, EPOLL_EVENTS_PER_CALL, 0),
    )
    for (let i = 0; i < count; i++) {
      keys.push(events.getFloat64(i * EPOLL_EVENT.bytes + EPOLL_EVENT.key))
    }
    if (count < EPOLL_EVENTS_PER_CALL) return keys
  }
}

/** A signal that comes in mid-call says nothing about the descriptors: asks again. */
function uninterrupted(call: string, run: () => number): number {
  for (;;) {
    const result = run()
    if (result >= 0) return result
    const error = systemError(call)
    if (errorName(error) !== 'EINTR') throw error
  }
}

/** A close-on-exec descriptor of what `name` means in that directory. */
export function openAt(directory: number, name: string, flags: number): number {
  const fd = openat(directory, name, flags | O_CLOEXEC)
  if (fd < 0) throw systemError('openat')
  return fd
}

/** The target of the link that `name` means in that directory, up to PATH_MAX bytes of it. */
export function readLinkAt(directory: number, name: string): string {
  const size = Number(readlinkat(directory, name, linkTarget, linkTarget.length))
  if (size < 0) throw systemError('readlinkat')
  return linkTarget.toString('utf8', 0, size)
}

/** No core dump, and no ptrace or /proc/<pid>/mem for other processes of the same user. */
export function setDumpable(on: boolean): void {
  const args = ['unsigned long', on ? 1 : 0, 'unsigned long', 0, 'unsigned long', 0]
  if (prctl(PR_SET_DUMPABLE, ...args, 'unsigned long', 0) !== 0) throw systemError('prctl')
}

export function setCoreLimit(bytes: bigint): void {
  if (setrlimit(RLIMIT_CORE, BigUint64Array.of(bytes, bytes)) !== 0) {
    throw systemError('setrlimit')
  }
}

/** Lets a blocked signal through to this thread, pending ones at once, until disposed. */
export function unblockSignal(signal: number): Disposable {
  const set = new Uint8Array(SIGNAL_SET_BYTES)
  const before = new Uint8Array(SIGNAL_SET_BYTES)
  set[(signal - 1) >> 3] = 1 << ((signal - 1) & 7)
  setSignalMask(SIG_UNBLOCK, set, before)
  return { [Symbol.dispose]: () => setSignalMask(SIG_SETMASK, before, null) }
}

function setSignalMask(how: number, set: Uint8Array, before: Uint8Array | null): void {
  const code = pthreadSigmask(how, set, before)
  if (code !== 0) throw systemError('pthread_sigmask', code)
}

/** `struct passwd` and `struct group` begin with the name in glibc and musl; the rest is not read. */
const namedRecord = koffi.struct({ name: 'char *', rest: koffi.array('uint8_t', 56, 'Array') })

type NssLookup = {
  async(
    id: number,
    record: { name?: string | null }[],
    buffer: Uint8Array,
    size: number,
    found: (unknown | null)[],
    done: (error: unknown, status: number) => void,
  ): void
}
const nssSignature = [
  'uint32_t',
  koffi.out(koffi.pointer(namedRecord)),
  'void *',
  'size_t',
  koffi.out(koffi.pointer('void *')),
]
const getpwuid: NssLookup = program.func('getpwuid_r', 'int', nssSignature)
const getgrgid: NssLookup = program.func('getgrgid_r', 'int', nssSignature)

/**
 * The name of a user or group as NSS knows it (files, LDAP, sssd …), or undefined. Runs on a worker
 * thread: a directory service may take seconds.
 */
export function lookUpName(kind: 'user' | 'group', id: number): Promise<string | undefined> {
  const lookup = kind === 'user' ? getpwuid : getgrgid
  const buffer = new Uint8Array(NSS_BUFFER_BYTES)
  const record: { name?: string | null }[] = [{}]
  const found: (unknown | null)[] = [null]
  return new Promise((resolve, reject) => {
    lookup.async(id, record, buffer, buffer.length, found, (error, status) => {
      if (error) return reject(error)
      // POSIX: status 0 with a null result means no such record; other statuses differ by module
      // (ENOENT, ESRCH, EIO …), and all of them mean that the name is not known.
      resolve(status === 0 && found[0] !== null ? (record[0]?.name ?? undefined) : undefined)
    })
  })
}

/** Of two names for one number the first. */
const errnoNames = new Map(
  Object.entries(koffi.os.errno)
    .reverse()
    .map(([name, code]) => [code, name]),
)

/** The errno names callers branch on. */
export function errorName(error: unknown): string {
  return error instanceof SignetError ? String(error.fields.errno ?? '') : ''
}

function systemError(call: string, code = koffi.errno()): SignetError {
  const name = errnoNames.get(code)
  return new SignetError('internal', 'system_call_failed', `${call} failed`, {
    fields: { call, errno: name ?? String(code) },
  })
}
