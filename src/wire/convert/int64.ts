/** int64 is `bigint` on the wire side; it is checked before it becomes a number. */
import { SignetError } from '../../base/error.ts'

/** Throws invalid_argument naming `field` for what a number can't hold exactly. */
export function numberFromInt64(value: bigint, field: string): number {
  const number = Number(value)
  if (Number.isSafeInteger(number)) return number
  throw new SignetError('invalid_argument', 'out_of_range', `${field} is out of range`)
}
