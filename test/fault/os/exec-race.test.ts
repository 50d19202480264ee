import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import {
  fingerprintChange,
  openPeerProcess,
  type ProcessFingerprint,
} from '../../../src/base/os/process-handle.ts'

const TRIES = 1_000
const racer = join(import.meta.dirname, 'exec-racer.pl')

interface Tally {
  stayed: number
  changed: number
  wrong: string[]
}

/**
 * How: each caller connects and execs at a varying moment. The listener takes a fingerprint at
 * accept and another for each byte. "A" was written by the first program: when it is seen before
 * any exec the two agree. "B" was written by the second: whoever was seen at accept as the first
 * must now show as changed.
 */
test('a caller that execs after connecting never keeps its identity', {
  timeout: 120_000,
}, async () => {
  const directory = mkdtempSync(join(tmpdir(), 'exec-race-'))
  const path = join(directory, 's.sock')
  const tally: Tally = { stayed: 0, changed: 0, wrong: [] }
  let served = 0
  const server = createServer((socket) => {
    served += 1
    watch(socket, tally)
  })
  try {
    server.listen(path)
    await once(server, 'listening')
    const child = spawn('perl', [racer, path, String(TRIES)], { stdio: 'inherit' })
    const [status] = await once(child, 'exit')
    expect(status).toBe(0)
  } finally {
    server.close()
    rmSync(directory, { recursive: true })
  }
  expect(served).toBe(TRIES)
  expect(tally.wrong).toEqual([])
  // The race really happened: a good part was seen before its exec.
  expect(tally.changed).toBeGreaterThan(TRIES / 20)
  expect(tally.stayed).toBeGreaterThan(0)
})

function watch(socket: Socket, tally: Tally): void {
  const process = openPeerProcess(socket)
  const accepted = process.fingerprint()
  const isFirstProgram = isFirst(process)
  socket.on('error', () => {})
  socket.on('close', () => process[Symbol.dispose]())
  socket.on('data', (data) => {
    for (const byte of data.toString('latin1'))
      judge(byte, isFirstProgram, accepted, process, tally)
    if (data.includes('B')) socket.end('x')
  })
}

/** Read after the fingerprint: when this still is the first program, the fingerprint was too. */
function isFirst(process: ReturnType<typeof openPeerProcess>): boolean {
  return process.readText('cmdline').includes('exec-racer.pl')
}

function judge(
  byte: string,
  isFirstProgram: boolean,
  accepted: ProcessFingerprint,
  process: ReturnType<typeof openPeerProcess>,
  tally: Tally,
): void {
  const change = fingerprintChange(accepted, process.fingerprint())
  if (!isFirstProgram) return
  if (byte === 'B') {
    if (change === undefined) tally.wrong.push(`exec unseen: ${JSON.stringify(accepted)}`)
    else tally.changed += 1
  } else if (isFirst(process)) {
    if (change !== undefined) tally.wrong.push(`changed without exec: ${change}`)
    else tally.stayed += 1
  }
}
