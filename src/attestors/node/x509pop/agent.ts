/**
 * Agent half of the `x509pop` node attestor: presents the node's certificate, from files or from
 * another agent's Workload API, and proves possession of its key. Either is asked at each
 * attestation, so that a renewed certificate is used.
 */
import { createPrivateKey, createPublicKey, type KeyObject } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { bytesEqual } from '../../../base/bytes.ts'
import { SignetError } from '../../../base/error.ts'
import { errorText } from '../../../base/log-text.ts'
import type { Random } from '../../../base/ports.ts'
import { isSystemError } from '../../../base/system-error.ts'
import { parseCertificate } from '../../../x509/certificate.ts'
import type { NodeAttestorAgent, PresentedIdentity } from '../../contract.ts'
import type { X509popAgentConfig } from './config.ts'
import {
  decodeChallenge,
  encodeAttestationData,
  encodeResponse,
  NONCE_BYTES,
  X509POP,
} from './payload.ts'
import { provePossession } from './possession.ts'
import { loadCertificates } from './trust-files.ts'

/** Reads the files once, so that a configuration that cannot work is refused at start. */
export function createX509popAgent(parts: {
  readonly config: X509popAgentConfig
  readonly random: Random
  readonly fetchSvid: (address: string) => Promise<PresentedIdentity>
}): NodeAttestorAgent {
  const { config } = parts
  const isFetched = config.endpointSocket !== ''
  if (!isFetched) loadKeyPair(config)
  return {
    type: X509POP,
    async attest() {
      const { key, certificates } = isFetched
        ? importPair(await parts.fetchSvid(config.endpointSocket))
        : loadKeyPair(config)
      return {
        payload: encodeAttestationData(certificates),
        async respond(challenge) {
          const nonce = parts.random.bytes(NONCE_BYTES)
          return encodeResponse(provePossession(key, decodeChallenge(challenge), nonce))
        },
      }
    },
  }
}

interface KeyPair {
  readonly key: KeyObject
  readonly certificates: readonly Uint8Array[]
}

function importPair({ certificates, privateKey }: PresentedIdentity): KeyPair {
  return orInvalid('unable to use the SVID of the workload API', () => {
    const key = createPrivateKey({ key: Buffer.from(privateKey), format: 'der', type: 'pkcs8' })
    return { key, certificates }
  })
}

function loadKeyPair(config: X509popAgentConfig): KeyPair {
  const pair = orInvalid('unable to load keypair', () => {
    const certificates = loadCertificates(config.certificatePath)
    const key = createPrivateKey(readFileSync(config.privateKeyPath))
    const own = createPublicKey(key).export({ format: 'der', type: 'spki' })
    if (!bytesEqual(own, parseCertificate(certificates[0]!).publicKey)) {
      throw new SignetError(
        'invalid_argument',
        'key_mismatch',
        'private key does not match the certificate',
      )
    }
    return { key, certificates }
  })
  if (config.intermediatesPath === '') return pair
  const intermediates = orInvalid('unable to load intermediate certificates', () =>
    loadCertificates(config.intermediatesPath),
  )
  return { key: pair.key, certificates: [...pair.certificates, ...intermediates] }
}

/** OpenSSL's own error texts may quote the file; only ours and the file system's are passed on. */
function orInvalid<T>(prefix: string, load: () => T): T {
  try {
    return load()
  } catch (cause) {
    const told = cause instanceof SignetError || isSystemError(cause)
    const why = told ? `: ${errorText(cause)}` : ''
    throw new SignetError('invalid_argument', 'bad_keypair', `${prefix}${why}`)
  }
}
