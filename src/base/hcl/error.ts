/** Complaints about HCL text: `At 3:7: …`, as SPIRE's operators know them. */
import { SignetError } from '../error.ts'
import type { HclPosition } from './ast.ts'

export function hclError(position: HclPosition, text: string): SignetError {
  return new SignetError(
    'invalid_argument',
    'bad_hcl',
    `At ${position.line}:${position.column}: ${text}`,
    { fields: { line: position.line, column: position.column } },
  )
}
