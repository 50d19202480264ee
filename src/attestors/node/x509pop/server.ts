/**
 * Server half of the `x509pop` node attestor (features.md §2.2): a certificate of a known PKI and a
 * proof that the node holds its key.
 *
 * Bounds come before work: certificates are counted before they are parsed, and keys meet their
 * size limit before a chain is built with them (SPIRE 1.14.2). The proof is checked with the leaf
 * whose chain was verified, and everything returned is read from that certificate.
 */
import { createHash, type KeyObject } from 'node:crypto'
import { isIPv4 } from 'node:net'
import { toDecimal, toHex } from '../../../base/bytes.ts'
import { SignetError, toSignetError } from '../../../base/error.ts'
import type { Clock, Log, Random } from '../../../base/ports.ts'
import type { Selector } from '../../../spiffe/selector.ts'
import { SpiffeId } from '../../../spiffe/spiffe-id.ts'
import type { TrustDomain } from '../../../spiffe/trust-domain.ts'
import { type Certificate, parseCertificate } from '../../../x509/certificate.ts'
import { commonName } from '../../../x509/name.ts'
import { verifyChain } from '../../../x509/path.ts'
import { FOREIGN_KEY_POLICY, importPublicKey, parsePublicKey } from '../../../x509/spki.ts'
import type { NodeAttestationContext, NodeAttestorServer } from '../../contract.ts'
import { hasAddress } from './client-ip.ts'
import type { X509popServerConfig } from './config.ts'
import {
  type AgentPathTemplate,
  type AgentPathVocabulary,
  parseAgentPathTemplate,
} from './path-template.ts'
import {
  decodeAttestationData,
  decodeResponse,
  encodeChallenge,
  NONCE_BYTES,
  X509POP,
} from './payload.ts'
import { checkPossession, proofKind } from './possession.ts'

const VOCABULARY: AgentPathVocabulary = {
  values: [
    'PluginName',
    'Fingerprint',
    'TrustDomain',
    'SerialNumber',
    'SerialNumberHex',
    'SVIDPathTrimmed',
    'Subject.CommonName',
    'Issuer.CommonName',
  ],
  maps: ['URISanSelectors'],
}

export interface X509popServerParts {
  readonly config: X509popServerConfig
  readonly trustDomain: TrustDomain
  readonly clock: Pick<Clock, 'nowSeconds'>
  readonly random: Random
  readonly log: Log
  /** DER. The configured files' CAs, or in mode `spiffe` the server's own bundle of this moment. */
  readonly roots: () => Promise<readonly Uint8Array[]>
}

/** Throws invalid_argument for a template that is not understood. */
export function createX509popServer(parts: X509popServerParts): NodeAttestorServer {
  const { config } = parts
  const fallback =
    config.mode === 'spiffe'
      ? '/{{ .PluginName }}/{{ .SVIDPathTrimmed }}'
      : '/{{ .PluginName }}/{{ .Fingerprint }}'
  const template = parseAgentPathTemplate(config.agentPathTemplate || fallback, VOCABULARY)
  return {
    type: X509POP,
    async attest(context) {
      const presented = parsePresented(config, context.payload)
      const roots = await parseRoots(parts)
      const chains = verifyPresented(parts, presented, roots)
      const leaf = presented[0]!
      if (config.verifyClientIp) checkClientIp(leaf, context.remoteIp)
      await challengeHolder(parts, context, leaf)
      const sanSelectors = uriSanSelectors(parts, leaf)
      return {
        agentId: agentId(parts, template, leaf, sanSelectors),
        selectors: selectorsOf(leaf, chains, sanSelectors),
        canReattest: true,
      }
    },
  }
}

/** Leaf first; at least one. */
function parsePresented(config: X509popServerConfig, payload: Uint8Array): Certificate[] {
  if (payload.length === 0) throw invalid('missing attestation payload')
  const ders = within('failed to unmarshal data', () => decodeAttestationData(payload))
  if (ders.length === 0) throw invalid('no certificate to attest')
  if (ders.length - 1 > config.maxIntermediates) throw invalid('too many intermediate certificates')
  return ders.map((der, index) => {
    const which = index === 0 ? 'leaf certificate' : `intermediate certificate ${index - 1}`
    return within(`unable to parse ${which}`, () => {
      const certificate = parseCertificate(der)
      checkKeySize(certificate, config, which)
      return certificate
    })
  })
}

function checkKeySize(certificate: Certificate, config: X509popServerConfig, which: string): void {
  // Keys beyond any limit are refused by the policy's own maximum, before the modulus is looked at.
  const policy = { ...FOREIGN_KEY_POLICY, rsaBitsMax: config.maxRsaKeySize }
  try {
    parsePublicKey(certificate.publicKey, policy)
  } catch (thrown) {
    const error = toSignetError(thrown)
    if (error.code === 'weak_key' && error.message.endsWith('too large')) {
      throw new SignetError('invalid_argument', 'key_too_large', `${which} key size too large`)
    }
    throw error
  }
}

async function parseRoots(parts: X509popServerParts): Promise<Certificate[]> {
  try {
    return (await parts.roots()).map((der) => parseCertificate(der))
  } catch (cause) {
    throw new SignetError('internal', 'trust_bundle', 'failed to get trust bundle', { cause })
  }
}

function verifyPresented(
  parts: X509popServerParts,
  presented: readonly Certificate[],
  roots: readonly Certificate[],
): Certificate[][] {
  const [leaf, ...intermediates] = presented
  try {
    return verifyChain({
      leaf: leaf!,
      intermediates,
      roots,
      now: parts.clock.nowSeconds(),
      keyPolicy: { ...FOREIGN_KEY_POLICY, rsaBitsMax: parts.config.maxRsaKeySize },
    })
  } catch (cause) {
    throw denied(`certificate verification failed: ${toSignetError(cause).message}`, cause)
  }
}

function checkClientIp(leaf: Certificate, remoteIp: string): void {
  if (remoteIp === '') {
    throw new SignetError(
      'internal',
      'client_ip_unknown',
      'client IP not available for verification',
    )
  }
  const address = remoteIp.startsWith('::ffff:') ? remoteIp.slice('::ffff:'.length) : remoteIp
  const shown = isIPv4(address) ? address : remoteIp
  if (!hasAddress(leaf.ipAddresses, shown)) {
    throw denied(`client IP ${shown} does not match any certificate IP SAN`)
  }
}

async function challengeHolder(
  { random }: X509popServerParts,
  context: NodeAttestationContext,
  leaf: Certificate,
): Promise<void> {
  const { key, kind } = challengeable(leaf)
  // Fresh per attestation and never stored, so a response fits this stream alone (I7).
  const challenge = { kind, nonce: random.bytes(NONCE_BYTES) }
  const answer = await context.challenge(encodeChallenge(challenge))
  const response = within('unable to unmarshal challenge response', () => decodeResponse(answer))
  try {
    checkPossession(key, challenge, response)
  } catch (cause) {
    throw denied(`challenge response verification failed: ${toSignetError(cause).message}`, cause)
  }
}

function challengeable(leaf: Certificate): { key: KeyObject; kind: 'rsa' | 'ecdsa' } {
  const unable = (why: string) =>
    new SignetError('internal', 'no_challenge', `unable to generate challenge: ${why}`)
  if (!leaf.keyUsage?.has('digitalSignature')) {
    throw unable('certificate not intended for digital signature use')
  }
  const key = within('unable to parse leaf certificate', () => importPublicKey(leaf.publicKey))
  const kind = proofKind(key)
  if (kind === undefined) throw unable('unsupported public key type')
  return { key, kind }
}

function agentId(
  { config, trustDomain }: X509popServerParts,
  template: AgentPathTemplate,
  leaf: Certificate,
  sanSelectors: ReadonlyMap<string, string>,
): SpiffeId {
  const path = template.render({
    values: new Map([
      ['PluginName', X509POP],
      ['Fingerprint', fingerprint(leaf)],
      ['TrustDomain', trustDomain.name],
      ['SerialNumber', toDecimal(leaf.serialNumber)],
      ['SerialNumberHex', toHex(leaf.serialNumber)],
      ['SVIDPathTrimmed', config.mode === 'spiffe' ? svidPath(config, trustDomain, leaf) : ''],
      ['Subject.CommonName', commonName(leaf.subject)],
      ['Issuer.CommonName', commonName(leaf.issuer)],
    ]),
    maps: new Map([['URISanSelectors', sanSelectors]]),
  })
  try {
    if (!path.startsWith('/')) {
      throw new SignetError('internal', 'bad_spiffe_id', 'path must have a leading slash')
    }
    return SpiffeId.of(trustDomain, `/spire/agent${path}`)
  } catch (cause) {
    const text = `failed to make spiffe id: ${toSignetError(cause).message}`
    throw new SignetError('internal', 'agent_path_failed', text, { cause })
  }
}

/** The path of the SVID that an agent exchanges, without the prefix that allows the exchange. */
function svidPath(config: X509popServerConfig, own: TrustDomain, leaf: Certificate): string {
  const uri = leaf.uriNames.find((name) => /^spiffe:/i.test(name))
  if (uri === undefined) throw denied('valid SVID x509 cert not found')
  const id = parseSvidId(uri)
  // SPIRE leaves this to the bundle, which holds our own roots alone.
  if (!id?.trustDomain.equals(own) || !id.path.startsWith(config.spiffePrefix)) {
    throw denied('x509 cert doesnt match SVID prefix')
  }
  return id.path.slice(config.spiffePrefix.length)
}

function parseSvidId(uri: string): SpiffeId | undefined {
  try {
    return SpiffeId.parse(uri)
  } catch {
    // Not canonical: it names nobody.
    return undefined
  }
}

/** `x509pop://<trust domain>/<key>/<value>` in the leaf's URI names. */
function uriSanSelectors(
  { log, trustDomain }: X509popServerParts,
  leaf: Certificate,
): Map<string, string> {
  const prefix = `x509pop://${trustDomain.name}/`
  const selectors = new Map<string, string>()
  for (const uri of leaf.uriNames) {
    if (!uri.startsWith(prefix)) continue
    const path = decodePath(uri.slice(prefix.length).replace(/[?#].*$/s, ''))
    const trimmed = path?.replace(/^\/+|\/+$/g, '') ?? ''
    const slash = trimmed.indexOf('/')
    if (slash === -1) {
      log.warn('Cannot extract x509pop san selectors', { uri })
      continue
    }
    selectors.set(trimmed.slice(0, slash), trimmed.slice(slash + 1))
  }
  return selectors
}

function decodePath(path: string): string | undefined {
  try {
    return decodeURIComponent(path)
  } catch {
    return undefined
  }
}

function selectorsOf(
  leaf: Certificate,
  chains: readonly (readonly Certificate[])[],
  sanSelectors: ReadonlyMap<string, string>,
): Selector[] {
  const values: string[] = []
  const name = commonName(leaf.subject)
  if (name !== '') values.push(`subject:cn:${name}`)
  const issuers = new Set(chains.flatMap((chain) => chain.slice(1).map(fingerprint)))
  for (const issuer of issuers) values.push(`ca:fingerprint:${issuer}`)
  values.push(`serialnumber:${toHex(leaf.serialNumber)}`)
  for (const [key, value] of sanSelectors) values.push(`san:${key}:${value}`)
  return values.map((value) => ({ type: X509POP, value }))
}

/** SHA-1 is what the protocol names certificates by; no signature rests on it. */
function fingerprint(certificate: Certificate): string {
  return createHash('sha1').update(certificate.der).digest('hex')
}

/** The inner text behind SPIRE's prefix; what has its own text passes as it is. */
function within<T>(prefix: string, read: () => T): T {
  try {
    return read()
  } catch (cause) {
    const error = toSignetError(cause)
    if (error.kind !== 'invalid_argument' || error.code === 'key_too_large') throw error
    throw new SignetError('invalid_argument', error.code, `${prefix}: ${error.message}`, { cause })
  }
}

function invalid(text: string): SignetError {
  return new SignetError('invalid_argument', 'bad_attestation', text)
}

function denied(text: string, cause?: unknown): SignetError {
  return new SignetError('permission_denied', 'attestation_denied', text, { cause })
}
