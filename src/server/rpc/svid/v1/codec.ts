/**
 * The method definitions of the two hot calls with their hand-written codec in place of the
 * generated one (spec/signing.md §3.5). Paths and kinds stay the generated ones.
 */
import type { Outcome } from '../../../../base/error.ts'
import type { IssuedJwtSvid, IssuedX509Svid } from '../../../../ca/issuance.ts'
import { SVIDService } from '../../../../wire/gen/spire/api/server/svid/v1/svid.ts'
import {
  type BatchNewX509SvidRequest,
  decodeBatchNewX509SvidRequest,
  encodeBatchNewX509SvidResponse,
} from '../../../../wire/hot/batch-new-x509-svid.ts'
import {
  decodeNewJwtSvidRequest,
  encodeNewJwtSvidResponse,
  type NewJwtSvidRequest,
} from '../../../../wire/hot/new-jwt-svid.ts'
import type { MethodDefinition } from '../../route.ts'

export const batchNewX509SvidMethod: MethodDefinition<
  BatchNewX509SvidRequest,
  readonly Outcome<IssuedX509Svid>[]
> = {
  ...SVIDService.batchNewX509Svid,
  requestDeserialize: decodeBatchNewX509SvidRequest,
  responseSerialize: encodeBatchNewX509SvidResponse,
}

export const newJwtSvidMethod: MethodDefinition<NewJwtSvidRequest, IssuedJwtSvid> = {
  ...SVIDService.newJwtsvid,
  requestDeserialize: decodeNewJwtSvidRequest,
  responseSerialize: encodeNewJwtSvidResponse,
}
