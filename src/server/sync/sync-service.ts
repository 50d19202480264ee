/**
 * `signet.sync.v1/Subscribe`: one stream per agent, from its hello to its end. Sends what the agent
 * is owed one message at a time, so that a client that never reads holds one, and hears its acks.
 *
 * Agents get what they may serve now, never what a cursor or an earlier message says.
 */
import { SignetError } from '../../base/error.ts'
import { SYNC_CLOSE_AFTER_MS, SYNC_HELLO_MS_MAX } from '../../base/limits.ts'
import type { Clock } from '../../base/ports.ts'
import type { SpiffeId } from '../../spiffe/spiffe-id.ts'
import type { Hello, SyncRequest, SyncResponse } from '../../wire/gen/signet/sync/v1/sync.ts'
import { type CallContext, callingAgent } from '../rpc/context.ts'
import type { Stream } from '../rpc/route.ts'
import type { AgentSyncState } from './ack-book.ts'
import { Subscriber } from './subscriber.ts'
import { type SyncDeps, SyncHub } from './sync-hub.ts'

export type { SyncDeps } from './sync-hub.ts'

type SyncStream = Stream<SyncRequest, SyncResponse>

export interface SyncService extends Disposable {
  /** The handler of the route, which admits agents only. */
  subscribe(stream: SyncStream, context: CallContext): Promise<void>
  /** What each agent has in use by its own word, connected or not. */
  agents(): readonly AgentSyncState[]
  agent(id: SpiffeId): AgentSyncState | undefined
}

export function createSyncService(deps: SyncDeps): SyncService {
  const hub = new SyncHub(deps)
  const { clock } = deps
  return {
    async subscribe(stream, context) {
      const hello = await receiveHello(clock, stream, context.signal)
      const subscriber = createSubscriber(clock, hub, context)
      hub.add(subscriber, hello)
      try {
        // The door's check lies in the past: a ban since then has been announced already.
        await hub.confirm(subscriber)
        await untilEnd(subscriber, context.signal, [
          sendAll(stream, subscriber),
          receiveAcks(hub, stream, subscriber),
        ])
      } catch (error) {
        if (isDenial(error)) closeSoon(clock, context)
        throw error
      } finally {
        hub.remove(subscriber)
        // Whichever part still runs comes to its next check and stops.
        subscriber.end(new SignetError('canceled', 'stream_over', 'stream is over'))
      }
    },
    agents: () => hub.acks.all(),
    agent: (id) => hub.acks.get(id.toString()),
    [Symbol.dispose]: () => hub[Symbol.dispose](),
  }
}

async function receiveHello(clock: Clock, stream: SyncStream, signal: AbortSignal): Promise<Hello> {
  const received = new AbortController()
  const waiting = AbortSignal.any([signal, received.signal])
  const late = clock.sleep(SYNC_HELLO_MS_MAX, waiting).then(() => {
    throw new SignetError('deadline_exceeded', 'no_hello', 'no hello received')
  })
  late.catch(() => {})
  try {
    const message = await Promise.race([stream.receive(), late])
    if (message?.hello === undefined) {
      throw new SignetError('invalid_argument', 'no_hello', 'the first message must be a hello')
    }
    return message.hello
  } finally {
    received.abort()
  }
}

function createSubscriber(clock: Clock, hub: SyncHub, context: CallContext): Subscriber {
  const { id } = callingAgent(context)
  const leaf = context.connection.chain[0]
  if (leaf === undefined) {
    throw new SignetError('permission_denied', 'denied', 'no client certificate')
  }
  return new Subscriber({ clock, log: context.log }, hub.sources(), id, leaf)
}

async function sendAll(stream: SyncStream, subscriber: Subscriber): Promise<void> {
  const { session, signal } = subscriber
  const send = async (message: SyncResponse) => {
    signal.throwIfAborted()
    await stream.send(message)
    subscriber.sent()
  }
  for (;;) {
    if (session.owes) for (const message of session.take()) await send(message)
    else if (subscriber.isHeartbeatDue) await send(session.heartbeat())
    await subscriber.woken()
    signal.throwIfAborted()
  }
}

/** Resolves when the agent is done sending, which ends the stream. */
async function receiveAcks(
  hub: SyncHub,
  stream: SyncStream,
  subscriber: Subscriber,
): Promise<void> {
  const agentId = subscriber.agentId.toString()
  for (;;) {
    const message = await stream.receive()
    if (message === undefined || subscriber.signal.aborted) return
    if (message.hello !== undefined) {
      throw new SignetError('invalid_argument', 'second_hello', 'hello was sent already')
    }
    // Neither hello nor ack: an addition of a newer agent.
    if (message.ack === undefined) continue
    const position = hub.cursors.decode(agentId, message.ack.cursor)
    if (position === undefined) subscriber.log.debug('Acknowledged cursor is not of this stream')
    else hub.acks.acknowledged(agentId, position.sequence, message.ack)
  }
}

/** The first to settle decides, even while a message waits for a client that never reads. */
async function untilEnd(
  subscriber: Subscriber,
  callSignal: AbortSignal,
  work: readonly Promise<void>[],
): Promise<void> {
  const stop = AbortSignal.any([subscriber.signal, callSignal])
  const ended = new Promise<never>((_, reject) => {
    const onAbort = () => reject(stop.reason)
    if (stop.aborted) onAbort()
    else stop.addEventListener('abort', onAbort, { once: true })
  })
  for (const promise of [ended, ...work]) promise.catch(() => {})
  await Promise.race([ended, ...work])
}

function isDenial(error: unknown): boolean {
  return error instanceof SignetError && error.denial !== undefined
}

/**
 * A client that does not read would not see the stream's end, and an agent that is denied here is
 * denied in every call on this connection. The delay lets the denial arrive first.
 */
function closeSoon(clock: Clock, context: CallContext): void {
  clock.sleep(SYNC_CLOSE_AFTER_MS).then(
    () => context.connection.close(),
    () => {},
  )
}
