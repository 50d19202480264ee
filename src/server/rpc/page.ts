/** Paging and batches as requests ask for them, within our bounds (api.md §5.3). */
import { SignetError } from '../../base/error.ts'
import { BATCH_ITEMS_MAX, PAGE_SIZE_MAX } from '../../base/limits.ts'
import type { PageRequest } from '../ports.ts'

/**
 * Larger pages are cut to the bound: the token tells the client to come again. Without a page size
 * there is no paging, whatever the token says.
 */
export function pageOf(request: {
  readonly pageSize: number
  readonly pageToken: string
}): PageRequest {
  if (request.pageSize <= 0) return { size: 0, token: '' }
  return { size: Math.min(request.pageSize, PAGE_SIZE_MAX), token: request.pageToken }
}

export function checkBatch(items: readonly unknown[]): void {
  if (items.length <= BATCH_ITEMS_MAX) return
  throw new SignetError(
    'resource_exhausted',
    'batch_too_large',
    `too many items (${items.length}), the maximum is ${BATCH_ITEMS_MAX}`,
  )
}
