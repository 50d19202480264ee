/** The agent's two sockets (features.md §1.3): workloads' and administrators' are kept apart. */
import { dirname } from 'node:path'
import { refuse } from '../../base/config/document.ts'
import { absolutePath } from '../../base/config/shared.ts'
import type { RawAgent } from './raw.ts'
import type { AgentConfig } from './types.ts'

const DEFAULT_AGENT_SOCKET = '/tmp/spire-agent/public/api.sock'

type Sockets = Pick<
  AgentConfig,
  'socketPath' | 'adminSocketPath' | 'disableWorkloadApi' | 'disableSdsApi'
>

export function readSockets(agent: RawAgent, workingDir: string): Sockets {
  const disableWorkloadApi = agent.disable_workload_api ?? false
  const disableSdsApi = agent.disable_sds_api ?? false
  const socketPath = absolutePath(agent.socket_path || DEFAULT_AGENT_SOCKET, workingDir)
  const adminSocketPath = agent.admin_socket_path
    ? absolutePath(agent.admin_socket_path, workingDir)
    : ''
  // Whoever may reach the public directory could otherwise reach the admin socket too.
  const publicDir = dirname(socketPath)
  const isShared = adminSocketPath.startsWith(publicDir === '/' ? '/' : `${publicDir}/`)
  if (isShared && !(disableWorkloadApi && disableSdsApi)) {
    throw refuse(
      'admin socket cannot be in the same directory or a subdirectory as that containing the Workload API socket',
    )
  }
  return { socketPath, adminSocketPath, disableWorkloadApi, disableSdsApi }
}
