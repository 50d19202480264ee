/**
 * Workload attestation: all attestors at once, their selectors together (api.md §12.1). One that
 * fails costs its selectors; the call fails only when every one did.
 */
import type { WorkloadAttestor } from '../../attestors/contract.ts'
import { SignetError } from '../../base/error.ts'
import type { ProcessHandle } from '../../base/os/process-handle.ts'
import type { Clock, Log, Metrics } from '../../base/ports.ts'
import { dedupeSelectors, type Selector, selectorKey } from '../../spiffe/selector.ts'
import { countCall } from '../call-counter.ts'

export interface WorkloadAttestation {
  /** Rejects with unavailable when every attestor failed. */
  attest(process: ProcessHandle): Promise<readonly Selector[]>
}

export function createWorkloadAttestation(
  attestors: readonly WorkloadAttestor[],
  ports: { readonly clock: Clock; readonly log: Log; readonly metrics: Metrics },
): WorkloadAttestation {
  const { log, metrics } = ports
  const attestOne = async (attestor: WorkloadAttestor, process: ProcessHandle) => {
    const labels = { attestor: attestor.name }
    const attest = () => attestor.attest(process)
    try {
      return await countCall(ports, 'workload_api.workload_attestor', attest, labels)
    } catch (error) {
      log.error(`workload attestor ${JSON.stringify(attestor.name)} failed`, {
        pid: process.pid,
        error: error instanceof Error ? error.message : String(error),
      })
      return undefined
    }
  }
  return {
    attest: (process) =>
      countCall(ports, 'workload_api.workload_attestation', async () => {
        const results = await Promise.all(attestors.map((one) => attestOne(one, process)))
        const found = results.filter((selectors) => selectors !== undefined)
        if (attestors.length > 0 && found.length === 0) throw attestationFailed()
        const selectors = dedupeSelectors(found.flat())
        metrics.sample('workload_api.discovered_selectors', selectors.length)
        log.debug('PID attested to have selectors', {
          pid: process.pid,
          selectors: selectors.map(selectorKey),
        })
        return selectors
      }),
  }
}

function attestationFailed(): SignetError {
  return new SignetError(
    'unavailable',
    'workload_attestation_failed',
    'workload attestation failed',
  )
}
