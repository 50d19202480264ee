/**
 * Key pairs made on the node, and the certificate requests for them, in the form SPIRE's agents
 * send: subject C=US, O=SPIRE, for workloads the SPIFFE ID as only SAN. Private keys live as
 * PKCS#8 DER because that is what workloads are given.
 */
import { generateKeyPair, generateKeyPairSync, type KeyObject } from 'node:crypto'
import { promisify } from 'node:util'
import { createCertificateRequest } from '../x509/csr.ts'
import { encodeName } from '../x509/name.ts'

export type WorkloadKeyType = 'ec-p256' | 'ec-p384' | 'rsa-2048'

export interface KeyPair {
  readonly privateKey: KeyObject
  /** PKCS#8 DER. */
  readonly pkcs8: Uint8Array
  /** SubjectPublicKeyInfo DER. */
  readonly publicKey: Uint8Array
}

const SUBJECT = encodeName({ country: ['US'], organization: ['SPIRE'] })

const generateKeyPairAsync = promisify(generateKeyPair)

/** RSA keys take tens of milliseconds and are made off the event loop; EC keys take microseconds. */
export async function generateKeys(type: WorkloadKeyType): Promise<KeyPair> {
  if (type === 'rsa-2048') {
    return keyPair(await generateKeyPairAsync('rsa', { modulusLength: 2048 }))
  }
  return keyPair(generateKeyPairSync('ec', { namedCurve: type === 'ec-p384' ? 'P-384' : 'P-256' }))
}

/** Without `spiffeId`: an agent's own request, which names nobody. */
export function encodeRequest(keys: KeyPair, spiffeId?: string): Uint8Array {
  return createCertificateRequest({
    privateKey: keys.privateKey,
    publicKey: keys.publicKey,
    subject: SUBJECT,
    uriNames: spiffeId === undefined ? [] : [spiffeId],
  })
}

function keyPair(keys: { readonly publicKey: KeyObject; readonly privateKey: KeyObject }): KeyPair {
  return {
    privateKey: keys.privateKey,
    pkcs8: keys.privateKey.export({ type: 'pkcs8', format: 'der' }),
    publicKey: keys.publicKey.export({ type: 'spki', format: 'der' }),
  }
}
