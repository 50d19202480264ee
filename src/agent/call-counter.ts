/** A call counter as SPIRE has them: a counter and a sample of its duration, both with the status. */
import { SignetError } from '../base/error.ts'
import type { Clock, Metrics } from '../base/ports.ts'

/** Status labels are the names of gRPC codes as Go prints them. */
const CODE_NAMES: Readonly<Record<string, string>> = {
  invalid_argument: 'InvalidArgument',
  not_found: 'NotFound',
  already_exists: 'AlreadyExists',
  permission_denied: 'PermissionDenied',
  unauthenticated: 'Unauthenticated',
  failed_precondition: 'FailedPrecondition',
  resource_exhausted: 'ResourceExhausted',
  aborted: 'Aborted',
  unavailable: 'Unavailable',
  deadline_exceeded: 'DeadlineExceeded',
  canceled: 'Canceled',
  unimplemented: 'Unimplemented',
  internal: 'Internal',
}

export async function countCall<T>(
  ports: { readonly clock: Clock; readonly metrics: Metrics },
  key: string,
  call: () => Promise<T>,
  labels: Readonly<Record<string, string>> = {},
): Promise<T> {
  const startMs = ports.clock.monotonicMs()
  let status = 'OK'
  try {
    return await call()
  } catch (error) {
    status = statusLabel(error)
    throw error
  } finally {
    const all = { ...labels, status }
    ports.metrics.counter(key, 1, all)
    ports.metrics.sample(`${key}.elapsed_time`, ports.clock.monotonicMs() - startMs, all)
  }
}

function statusLabel(error: unknown): string {
  return (error instanceof SignetError ? CODE_NAMES[error.kind] : undefined) ?? 'Unknown'
}
