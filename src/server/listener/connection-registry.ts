/**
 * The open connections of all doors by their peer name, which is how a gRPC handler finds the
 * connection its call came over: grpc-js tells it `remoteAddress:remotePort` of the socket, and
 * the doors define both so that the pair is unique among open connections.
 */
import type { Socket } from 'node:net'
import type { Connection, Connections } from '../connection.ts'

export class ConnectionRegistry implements Connections {
  readonly #open = new Map<string, Connection>()

  get size(): number {
    return this.#open.size
  }

  get(peer: string): Connection | undefined {
    return this.#open.get(peer)
  }

  closeWhere(test: (connection: Connection) => boolean): void {
    for (const connection of [...this.#open.values()]) if (test(connection)) connection.close()
  }

  /** Registers the connection under its socket until that closes. */
  add(socket: Socket, connection: Connection): void {
    this.#open.set(connection.peer, connection)
    socket.once('close', () => {
      // The kernel may have given the port to a successor already.
      if (this.#open.get(connection.peer) === connection) this.#open.delete(connection.peer)
    })
  }
}

/**
 * Gives the socket the name under which grpc-js will show it, which outlives the connection: the
 * socket's own getters forget theirs when it closes, while handlers may still run.
 */
export function nameSocket(socket: Socket, address: string, port: number): string {
  Object.defineProperty(socket, 'remoteAddress', { value: address, configurable: true })
  Object.defineProperty(socket, 'remotePort', { value: port, configurable: true })
  return `${address}:${port}`
}
