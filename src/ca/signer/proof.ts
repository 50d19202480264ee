/** CSR self-signatures as the signing batch names them. */
import type { SignatureAlgorithm } from '../../x509/oid.ts'
import { SIGNATURE_ALGORITHMS } from '../../x509/oid.ts'
import type { PublicKeyType } from '../../x509/spki.ts'
import { PROOF_ALGORITHM } from './port.ts'

/**
 * RSA-PSS is missing: nothing that SPIRE's agents, CLI or OpenSSL's defaults make uses it for
 * CSRs.
 */
const PROOFS: Partial<Readonly<Record<SignatureAlgorithm, number>>> = {
  'ecdsa-sha256': PROOF_ALGORITHM.ecdsaSha256,
  'ecdsa-sha384': PROOF_ALGORITHM.ecdsaSha384,
  'ecdsa-sha512': PROOF_ALGORITHM.ecdsaSha512,
  'rsa-sha256': PROOF_ALGORITHM.rsaSha256,
  'rsa-sha384': PROOF_ALGORITHM.rsaSha384,
  'rsa-sha512': PROOF_ALGORITHM.rsaSha512,
  ed25519: PROOF_ALGORITHM.ed25519,
}

export function proofAlgorithm(algorithm: SignatureAlgorithm | undefined): number {
  return (algorithm && PROOFS[algorithm]) ?? PROOF_ALGORITHM.none
}

/** Can a key of this type have made a signature of this algorithm, and can the signer check it? */
export function keyFitsProof(
  key: PublicKeyType,
  algorithm: SignatureAlgorithm | undefined,
): boolean {
  if (algorithm === undefined || proofAlgorithm(algorithm) === PROOF_ALGORITHM.none) return false
  const family = key.startsWith('ec-') ? 'ec' : key
  return SIGNATURE_ALGORITHMS[algorithm].keyFamily === family
}
