/**
 * The server's two doors with the routes behind them: TLS for agents and remote admins, the
 * private Unix socket for local ones (design.md §5).
 */

import { CONNECTION_AGE_MS_MAX } from '../base/limits.ts'
import { prepareSocketPath } from '../base/os/socket-path.ts'
import type { Authorities } from '../ca/authority/issuers.ts'
import type { ServerConfig } from './config/types.ts'
import type { ConnectionRegistry } from './listener/connection-registry.ts'
import { createGrpcServer } from './listener/grpc-server.ts'
import { isIssuedByLiveIssuer } from './listener/issuer-check.ts'
import { openTlsDoor, type ServerCertificate } from './listener/tls-door.ts'
import { openUdsDoor } from './listener/uds-door.ts'
import { addRoutes, type DoorPorts } from './rpc/door.ts'
import type { HandlerPorts } from './rpc/ports.ts'
import { createTcpRoutes, createUdsRoutes, type SyncHandler } from './rpc/routes.ts'
import type { TrustedRoots } from './trusted-roots.ts'

export interface DoorsParts {
  readonly config: ServerConfig
  readonly ports: DoorPorts & { readonly connections: ConnectionRegistry }
  readonly handlers: HandlerPorts
  readonly sync: SyncHandler
  readonly trustedRoots: TrustedRoots
  readonly authorities: Pick<Authorities, 'isLiveIssuer'>
  readonly certificate: ServerCertificate
}

export interface Doors {
  setCertificate(certificate: ServerCertificate): void
  /** No new connections; running calls finish within GRACEFUL_STOP_MS, then are cut. */
  stop(): Promise<void>
}

export async function openDoors(parts: DoorsParts): Promise<Doors> {
  const { config, ports, handlers } = parts
  const calls = { ...ports, log: ports.log.with({ subsystem_name: 'api' }) }
  const tcp = createGrpcServer({ connectionAgeMsMax: CONNECTION_AGE_MS_MAX }, ports.clock)
  addRoutes(tcp.server, createTcpRoutes(handlers, parts.sync), calls)
  const uds = createGrpcServer({}, ports.clock)
  addRoutes(uds.server, createUdsRoutes(handlers), calls)
  // Before anything listens: agents are not to meet a server that stops at once.
  const socketPath = await prepareSocketPath(config.socketPath, ports.log)
  const tlsDoor = await openTlsDoor(
    { host: config.bindAddress, port: config.bindPort },
    parts.certificate,
    {
      ...ports,
      accept: tcp.inject,
      policy: {
        trustDomain: config.trustDomain,
        adminIds: config.adminIds,
        rootsOf: parts.trustedRoots,
        mayHaveIssued: (chain, id) => isIssuedByLiveIssuer(parts.authorities, chain, id),
      },
    },
  )
  ports.log.info('Starting Server APIs', { address: tlsDoor.address, network: 'tcp' })
  try {
    const udsDoor = await openUdsDoor(socketPath, { ...ports, accept: uds.inject })
    ports.log.info('Starting Server APIs', { address: udsDoor.path, network: 'unix' })
    return {
      setCertificate: tlsDoor.setCertificate,
      async stop() {
        ports.log.info('Stopping Server APIs')
        tlsDoor.close()
        udsDoor.close()
        await Promise.all([tcp.stop(), uds.stop()])
        ports.log.info('Server APIs have stopped')
      },
    }
  } catch (error) {
    tlsDoor.close()
    throw error
  }
}
