/**
 * Which socket a command talks to (features.md §3.1): `-socketPath` when it is not the default,
 * else the template of `-instance`, else the environment's, else the default.
 */
import { resolve } from 'node:path'
import type { CliEnv } from './env.ts'
import { CliError } from './error.ts'
import { text } from './flags.ts'

export interface SocketKind {
  readonly defaultPath: string
  /** Without `_TEMPLATE`, which holds the template for `-instance`. */
  readonly variable: string
  readonly missingTemplate: string
}

export const SERVER_SOCKET: SocketKind = {
  defaultPath: '/tmp/spire-server/private/api.sock',
  variable: 'SPIRE_SERVER_PRIVATE_SOCKET',
  missingTemplate: 'you must define SPIRE_SERVER_PRIVATE_SOCKET_TEMPLATE to use the instance flag',
}

export const AGENT_SOCKET: SocketKind = {
  defaultPath: '/tmp/spire-agent/public/api.sock',
  variable: 'SPIRE_AGENT_PUBLIC_SOCKET',
  missingTemplate:
    ' SPIRE_AGENT_PUBLIC_SOCKET_TEMPLATE environment variable must be defined when using the instance flag',
}

export function socketFlags(kind: SocketKind) {
  return {
    socketPath: text('Path of the API socket', kind.defaultPath),
    instance: text(`Name that takes the place of %i in ${kind.variable}_TEMPLATE.`),
  }
}

/** Absolute. The template is checked even when another rule wins, as SPIRE does. */
export function socketPathOf(
  kind: SocketKind,
  flags: { readonly socketPath: string; readonly instance: string },
  env: Pick<CliEnv, 'variable' | 'workingDir'>,
): string {
  const template = env.variable(`${kind.variable}_TEMPLATE`) ?? ''
  if (flags.instance !== '') {
    if (template === '') throw new CliError(kind.missingTemplate)
    if (!template.includes('%i')) {
      throw new CliError(`failed to find %i in ${kind.variable}_TEMPLATE`)
    }
  }
  let path = env.variable(kind.variable) || kind.defaultPath
  if (flags.socketPath !== kind.defaultPath) path = flags.socketPath
  else if (flags.instance !== '') path = template.replaceAll('%i', flags.instance)
  return resolve(env.workingDir, path)
}
