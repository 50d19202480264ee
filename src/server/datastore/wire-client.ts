/** The part of a `pg` client below its query queue, which the driver's published types leave out. */
import type { EventEmitter } from 'node:events'
import type { Socket } from 'node:net'
import type pg from 'pg'

export interface WireConnection extends EventEmitter {
  readonly stream: Socket
}

export function wireOf(client: pg.Client): WireConnection {
  return (client as unknown as { readonly connection: WireConnection }).connection
}
