/** An agent's end of the push stream, as it came: for agents that lie about where they stand. */
import type { Client } from '@grpc/grpc-js'
import {
  type SyncRequest,
  type SyncResponse,
  SyncService,
} from '../../src/wire/gen/signet/sync/v1/sync.ts'
import { until } from './until.ts'

export class PushClient implements Disposable {
  readonly messages: SyncResponse[] = []
  cursor = ''
  /** What the stream ended with. */
  error: Error | undefined
  readonly #call

  constructor(client: Client, cursor = '') {
    const { path, requestSerialize, responseDeserialize } = SyncService.subscribe
    this.#call = client.makeBidiStreamRequest<SyncRequest, SyncResponse>(
      path,
      requestSerialize,
      responseDeserialize,
    )
    this.#call.on('data', (message: SyncResponse) => {
      this.messages.push(message)
      if (message.cursor !== '') this.cursor = message.cursor
    })
    this.#call.on('error', (error) => {
      this.error = error
    })
    this.#call.write({ hello: { cursor, bundleSequence: 0n, agentVersion: 'test' } })
  }

  /** SPIFFE ID paths of all entries that ever came. */
  get paths(): string[] {
    const entries = this.messages.flatMap(({ snapshotPage, delta }) => [
      ...(snapshotPage?.entries ?? []),
      ...(delta?.entriesUpserted ?? []),
    ])
    return [...new Set(entries.map((entry) => entry.spiffeId?.path ?? ''))].sort()
  }

  get hasSnapshot(): boolean {
    return this.messages.some(({ snapshotBegin }) => snapshotBegin !== undefined)
  }

  untilCursor(): Promise<string> {
    return until('a cursor', () => this.cursor || undefined, 10_000)
  }

  /** Milliseconds until an entry of this path came. */
  async untilPath(path: string, timeoutMs = 10_000): Promise<number> {
    const from = performance.now()
    await until(`entry ${path}`, () => this.paths.includes(path), timeoutMs)
    return performance.now() - from
  }

  [Symbol.dispose](): void {
    this.#call.cancel()
  }
}
