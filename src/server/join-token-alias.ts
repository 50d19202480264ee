/** The entry that a join token made with a SPIFFE ID brings with it (api.md §7.1, CreateJoinToken). */
import { PLAIN_ENTRY } from '../spiffe/registration-entry.ts'
import type { SpiffeId } from '../spiffe/spiffe-id.ts'
import type { EntryDraft } from './ports.ts'

/**
 * The agent gets a second name, under which entries can be made before it has attested. Deleting
 * the agent deletes this entry, which the store knows by its shape: parent = its only selector.
 */
export function joinTokenAlias(parentId: SpiffeId, spiffeId: SpiffeId, id = ''): EntryDraft {
  return {
    id,
    spiffeId,
    parentId,
    selectors: [{ type: 'spiffe_id', value: parentId.toString() }],
    ...PLAIN_ENTRY,
  }
}
