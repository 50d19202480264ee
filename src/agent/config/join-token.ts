/** The join token from its key, its flag or its file. It is a secret: no message holds it. */
import { refuse } from '../../base/config/document.ts'
import type { ConfigFiles } from '../../base/config/types.ts'
import { isSystemError, systemErrorText } from '../../base/system-error.ts'
import type { RawAgent } from './raw.ts'

export function readJoinToken(agent: RawAgent, files: Pick<ConfigFiles, 'readText'>): string {
  if (!agent.join_token_file) return agent.join_token ?? ''
  let text: string
  try {
    text = files.readText(agent.join_token_file)
  } catch (cause) {
    const why = isSystemError(cause) ? systemErrorText(cause) : 'unreadable'
    throw refuse(`unable to read join token file ${JSON.stringify(agent.join_token_file)}: ${why}`)
  }
  const token = text.trim()
  if (token === '') throw refuse('join token file is empty')
  return token
}
