/**
 * The `unix` workload attestor: selectors from a process's accounts and executable
 * (features.md §2.3). Reads only through the held process, never by pid.
 */
import { createHash } from 'node:crypto'
import { closeSync, createReadStream, fstatSync } from 'node:fs'
import { SignetError } from '../../../base/error.ts'
import type { AccountNames } from '../../../base/os/account-names.ts'
import type { ProcessHandle } from '../../../base/os/process-handle.ts'
import { dedupeSelectors, type Selector } from '../../../spiffe/selector.ts'
import type { WorkloadAttestor } from '../../contract.ts'
import { parseUnixAttestorConfig, type UnixAttestorConfig } from './config.ts'

/** What attestation reads of the caller. */
export type UnixProcess = Pick<ProcessHandle, 'pid' | 'readText' | 'exePath' | 'openExe'>

export interface UnixWorkloadAttestor extends WorkloadAttestor {
  readonly name: 'unix'
  attest(process: UnixProcess): Promise<readonly Selector[]>
}

/** `pluginData` is the block's `plugin_data` as plain values; throws invalid_argument on a bad one. */
export function createUnixWorkloadAttestor(
  pluginData: Readonly<Record<string, unknown>>,
  names: AccountNames,
): UnixWorkloadAttestor {
  const config = parseUnixAttestorConfig(pluginData)
  return {
    name: 'unix',
    async attest(process) {
      const values = await accountSelectors(process, names)
      if (config.discoverWorkloadPath) values.push(...(await executableSelectors(process, config)))
      return dedupeSelectors(values.map((value) => ({ type: 'unix', value })))
    },
  }
}

/** The *effective* ids of this moment, as SPIRE: a process that dropped root is not root any more. */
async function accountSelectors(process: UnixProcess, names: AccountNames): Promise<string[]> {
  const status = process.readText('status')
  const { uid, gid } = effectiveIds(status)
  const values = [`uid:${uid}`]
  const user = await names.user(uid)
  if (user !== undefined) values.push(`user:${user}`)
  values.push(`gid:${gid}`)
  const group = await names.group(gid)
  if (group !== undefined) values.push(`group:${group}`)
  for (const supplementary of supplementaryGroups(status)) {
    values.push(`supplementary_gid:${supplementary}`)
    const name = await names.group(supplementary)
    if (name !== undefined) values.push(`supplementary_group:${name}`)
  }
  return values
}

/** From where SPIRE takes them, too. */
function effectiveIds(status: string): { readonly uid: number; readonly gid: number } {
  const uid = /^Uid:\s+\d+\s+(\d+)/m.exec(status)?.[1]
  const gid = /^Gid:\s+\d+\s+(\d+)/m.exec(status)?.[1]
  if (uid === undefined || gid === undefined) {
    const text = 'unexpected form of /proc/<pid>/status'
    throw new SignetError('internal', 'bad_proc_status', text)
  }
  return { uid: Number(uid), gid: Number(gid) }
}

function supplementaryGroups(status: string): number[] {
  const line = /^Groups:[\t ]*([\d ]*)/m.exec(status)?.[1] ?? ''
  return line.split(' ').filter(Boolean).map(Number)
}

/** Here a failure fails the attestation: an entry may rely on path or hash to narrow it. */
async function executableSelectors(
  process: UnixProcess,
  config: UnixAttestorConfig,
): Promise<string[]> {
  const values = [`path:${process.exePath()}`]
  if (config.workloadSizeLimitBytes >= 0) {
    values.push(`sha256:${await executableHash(process, config.workloadSizeLimitBytes)}`)
  }
  return values
}

/**
 * Of the running file itself, whatever now lies at its path. Not cached: on a file system of the
 * workload's making every stat field that could key a cache is the workload's to choose.
 */
async function executableHash(process: UnixProcess, sizeLimitBytes: number): Promise<string> {
  const fd = process.openExe()
  let stream: ReturnType<typeof createReadStream>
  try {
    checkSize(process.pid, fstatSync(fd).size, sizeLimitBytes)
    stream = createReadStream('', { fd, autoClose: true, highWaterMark: 256 * 1024 })
  } catch (error) {
    closeSync(fd)
    throw error
  }
  const digest = createHash('sha256')
  let size = 0
  // Leaving the loop by a throw destroys the stream, which closes the descriptor.
  for await (const chunk of stream as AsyncIterable<Buffer>) {
    size += chunk.length
    checkSize(process.pid, size, sizeLimitBytes)
    digest.update(chunk)
  }
  return digest.digest('hex')
}

function checkSize(pid: number, sizeBytes: number, limitBytes: number): void {
  if (limitBytes === 0 || sizeBytes <= limitBytes) return
  throw new SignetError(
    'failed_precondition',
    'workload_too_large',
    `SHA256 digest: workload /proc/${pid}/exe exceeds size limit (${sizeBytes} > ${limitBytes})`,
  )
}
