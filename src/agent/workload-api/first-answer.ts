/** The first message of a Workload API stream, asked for as a workload would: another agent's or ours. */
import { type Client, Metadata, type MethodDefinition } from '@grpc/grpc-js'
import { SignetError } from '../../base/error.ts'
import { fromGrpcError } from '../../wire/status.ts'
import { type CallSettings, callOptions } from '../../wire/transport/call.ts'

/** Closes the client. Rejects with SignetError. */
export function firstAnswer<Request, Response>(
  client: Client,
  method: MethodDefinition<Request, Response>,
  request: Request,
  settings: CallSettings,
): Promise<Response> {
  const metadata = new Metadata()
  metadata.set('workload.spiffe.io', 'true')
  const stream = client.makeServerStreamRequest(
    method.path,
    method.requestSerialize,
    method.responseDeserialize,
    request,
    metadata,
    callOptions(settings),
  )
  return new Promise<Response>((resolve, reject) => {
    stream.once('data', resolve)
    // Comes before `end` where there is one, and again after the cancellation below.
    stream.on('error', (error) => reject(fromGrpcError(error)))
    stream.once('end', () => {
      reject(new SignetError('unavailable', 'no_answer', 'stream ended without a message'))
    })
  }).finally(() => {
    stream.cancel()
    client.close()
  })
}
