/**
 * What a linter says: a rule's name, for the log. Callers see an internal error, nothing is
 * signed.
 */
import { SignetError } from '../../base/error.ts'

export function lintFailure(rule: string): SignetError {
  return new SignetError('internal', 'lint_failed', 'internal error', { fields: { rule } })
}
