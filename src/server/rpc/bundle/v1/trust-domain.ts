/** The trust domain that a call on federated bundles names: never the server's own. */
import { TrustDomain } from '../../../../spiffe/trust-domain.ts'
import { prefixed } from '../../../../wire/convert/prefixed.ts'
import { invalidArgument } from '../../failure.ts'

export function foreignTrustDomain(
  name: string,
  own: TrustDomain,
  textForOwn: string,
): TrustDomain {
  const trustDomain = prefixed('trust domain argument is not valid', () => TrustDomain.parse(name))
  if (trustDomain.equals(own)) throw invalidArgument(textForOwn)
  return trustDomain
}
