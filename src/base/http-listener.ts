/**
 * A plain HTTP listener for machines that watch us: metrics and health. GET and HEAD only, bounded
 * connections and header time, no keep-alive of idle peers. Never for anything secret.
 */
import { createServer, type IncomingMessage, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { HTTP_CONNECTIONS_MAX, HTTP_HEADERS_MS_MAX } from './limits.ts'

export interface HttpAnswer {
  readonly status: number
  readonly contentType: string
  readonly body: string
}

export interface HttpListener extends AsyncDisposable {
  readonly port: number
}

/** `answer` sees the path without query; a rejection becomes 500 without a word of why. */
export async function listenHttp(
  host: string,
  port: number,
  answer: (path: string) => HttpAnswer | Promise<HttpAnswer>,
): Promise<HttpListener> {
  const server = createServer(
    { requestTimeout: HTTP_HEADERS_MS_MAX, headersTimeout: HTTP_HEADERS_MS_MAX },
    async (request, response) => {
      const { status, contentType, body } = await safeAnswer(request, answer)
      response.writeHead(status, { 'Content-Type': contentType })
      response.end(request.method === 'HEAD' ? undefined : body)
    },
  )
  server.maxConnections = HTTP_CONNECTIONS_MAX
  await bind(server, host, port)
  return {
    port: (server.address() as AddressInfo).port,
    [Symbol.asyncDispose]: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      }),
  }
}

async function safeAnswer(
  request: IncomingMessage,
  answer: (path: string) => HttpAnswer | Promise<HttpAnswer>,
): Promise<HttpAnswer> {
  if (request.method !== 'GET' && request.method !== 'HEAD') {
    return { status: 405, contentType: 'text/plain', body: 'method not allowed\n' }
  }
  try {
    return await answer((request.url ?? '/').split('?')[0]!)
  } catch {
    return { status: 500, contentType: 'text/plain', body: 'internal error\n' }
  }
}

function bind(server: Server, host: string, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    // Go binds `localhost` to IPv4 where there is any; resolvers may put ::1 first.
    server.listen({ host: host === 'localhost' ? '127.0.0.1' : host, port }, () => {
      server.off('error', reject)
      resolve()
    })
  })
}
