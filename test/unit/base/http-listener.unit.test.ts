/** The plain HTTP listener under peers that hold on to it: at its limit and one beyond. */
import { connect, type Socket } from 'node:net'
import { afterEach, expect, test } from 'vitest'
import { listenHttp } from '../../../src/base/http-listener.ts'
import { HTTP_CONNECTIONS_MAX } from '../../../src/base/limits.ts'
import { until } from '../../rigs/until.ts'

const sockets: Socket[] = []
afterEach(() => {
  for (const socket of sockets.splice(0)) socket.destroy()
})

/** A connection that has sent half of a request. */
function hold(port: number): Promise<Socket> {
  const socket = connect(port, '127.0.0.1')
  sockets.push(socket)
  socket.on('error', () => {})
  return new Promise((resolve) => {
    socket.once('connect', () => {
      socket.write('GET / HTTP/1.1\r\nHost: x\r\n')
      resolve(socket)
    })
  })
}

test(`${HTTP_CONNECTIONS_MAX} connections are held, one more is closed, and places come back`, async () => {
  const answer = () => ({ status: 200, contentType: 'text/plain', body: 'fine' })
  await using listener = await listenHttp('127.0.0.1', 0, answer)
  const ask = async () => {
    const response = await fetch(`http://127.0.0.1:${listener.port}/`, {
      headers: { connection: 'close' },
    })
    return response.text()
  }
  const held: Socket[] = []
  while (held.length < HTTP_CONNECTIONS_MAX - 1) held.push(await hold(listener.port))
  expect(await ask()).toBe('fine')
  held.push(await until('the place that was asked from', () => hold(listener.port)))
  const closed = new Promise((resolve) => {
    void hold(listener.port).then((socket) => socket.once('close', resolve))
  })
  await closed
  await expect(ask()).rejects.toThrow('fetch failed')
  expect(held.filter((socket) => socket.destroyed)).toEqual([])
  held[0]!.destroy()
  expect(await until('a place', ask)).toBe('fine')
})
