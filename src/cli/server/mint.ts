/** `x509 mint` and `jwt mint` (features.md §3.2). The X.509 key is made here and never sent. */
import { generateKeyPairSync } from 'node:crypto'
import { join } from 'node:path'
import { goQuote } from '../../base/log-text.ts'
import { SpiffeId } from '../../spiffe/spiffe-id.ts'
import { BundleService } from '../../wire/gen/spire/api/server/bundle/v1/bundle.ts'
import { SVIDService } from '../../wire/gen/spire/api/server/svid/v1/svid.ts'
import { createCertificateRequest } from '../../x509/csr.ts'
import { formatPem } from '../../x509/pem.ts'
import { type CliEnv, PRIVATE_MODE, PUBLIC_MODE } from '../env.ts'
import { CliError, explain, messageOf } from '../error.ts'
import { duration, list, output, text } from '../flags.ts'
import { formatGoDuration, rfc3339 } from '../output/go-text.ts'
import { answer, goJsonLine } from '../output/proto-json.ts'
import type { Runnable } from '../program.ts'
import { print } from '../session.ts'
import { serverCommand } from './command.ts'
import { int32Of } from './entry-write.ts'
import { idFromText } from './spiffe-id.ts'

export const x509Mint: Runnable = serverCommand({
  name: 'x509 mint',
  flags: {
    spiffeID: text('SPIFFE ID of the X509-SVID'),
    ttl: duration('Lifetime of the X509-SVID'),
    dns: list('DNS name in the SVID; may be repeated'),
    write: text('Directory to write to instead of standard output'),
    output: output(),
  },
  run: async ({ env, call }, flags) => {
    if (flags.spiffeID === '') throw new CliError('spiffeID must be specified')
    const id = SpiffeId.parse(flags.spiffeID)
    const ttl = secondsOf(flags.ttl)
    const key = makeRequest(id.toString(), flags.dns)
    const minted = await explain(
      'unable to mint SVID',
      call(SVIDService.mintX509Svid, { csr: key.csr, ttl }),
    )
    const svid = minted.svid
    if (svid === undefined || svid.certChain.length === 0) {
      throw new CliError('server response missing SVID chain')
    }
    const bundle = await explain(
      'unable to get bundle',
      call(BundleService.getBundle, { outputMask: undefined }),
    )
    if (bundle.x509Authorities.length === 0) {
      throw new CliError('server response missing X509 Authorities')
    }
    sayIfCapped(env, 'X509-SVID', Number(svid.expiresAt), flags.ttl)
    const roots = bundle.x509Authorities.map(({ asn1 }) => asn1)
    const result = { chain: svid.certChain, privateKey: key.pkcs8, roots }
    if (flags.write !== '') writeX509(env, flags.write, result)
    else if (flags.output === 'json') env.out(x509Json(result))
    else {
      const { chain, privateKey, roots: rootText } = pemOf(result)
      env.out(`X509-SVID:\n${chain}\nPrivate key:\n${privateKey}\nRoot CAs:\n${rootText}\n`)
    }
  },
})

interface Minted {
  readonly chain: readonly Uint8Array[]
  readonly privateKey: Uint8Array
  readonly roots: readonly Uint8Array[]
}

function makeRequest(
  uri: string,
  dnsNames: readonly string[],
): { readonly csr: Uint8Array; readonly pkcs8: Uint8Array } {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const spki = new Uint8Array(publicKey.export({ format: 'der', type: 'spki' }))
  return {
    csr: createCertificateRequest({ privateKey, publicKey: spki, uriNames: [uri], dnsNames }),
    pkcs8: new Uint8Array(privateKey.export({ format: 'der', type: 'pkcs8' })),
  }
}

function pemOf(minted: Minted) {
  const certificates = (ders: readonly Uint8Array[]) =>
    ders.map((der) => formatPem('CERTIFICATE', der)).join('')
  return {
    chain: certificates(minted.chain),
    privateKey: formatPem('PRIVATE KEY', minted.privateKey),
    roots: certificates(minted.roots),
  }
}

function x509Json(minted: Minted): string {
  const base64 = (bytes: Uint8Array) => Buffer.from(bytes).toString('base64')
  return goJsonLine({
    x509_svid: minted.chain.map(base64),
    private_key: base64(minted.privateKey),
    root_cas: minted.roots.map(base64),
  })
}

function writeX509(env: CliEnv, directory: string, minted: Minted): void {
  const { chain, privateKey, roots } = pemOf(minted)
  const files = [
    ['SVID', 'X509-SVID', 'svid.pem', chain, PUBLIC_MODE],
    ['key', 'Private key', 'key.pem', privateKey, PRIVATE_MODE],
    ['bundle', 'Root CAs', 'bundle.pem', roots, PUBLIC_MODE],
  ] as const
  for (const [what, shown, name, content, mode] of files) {
    const path = join(directory, name)
    writeFile(env, what, path, content, mode)
    env.out(`${shown} written to ${path}\n`)
  }
}

function writeFile(env: CliEnv, what: string, path: string, content: string, mode: number): void {
  try {
    env.files.write(path, content, mode)
  } catch (thrown) {
    throw new CliError(`unable to write ${what}: ${messageOf(thrown)}`)
  }
}

/** Rounded up to whole seconds. */
function secondsOf(ms: number): number {
  const seconds = Math.ceil(ms / 1000)
  // SPIRE shows the count of seconds as if it were one of nanoseconds.
  const shown = `time.Duration(${formatGoDuration(seconds / 1e6)})`
  return int32Of('TTL', BigInt(seconds), shown)
}

function sayIfCapped(env: CliEnv, what: string, expiresAt: number, ttlMs: number): void {
  if (expiresAt * 1000 - env.clock.nowMs() >= ttlMs) return
  const at = goQuote(rfc3339(expiresAt))
  env.err(`${what} lifetime was capped shorter than specified ttl; expires ${at}\n`)
}

export const jwtMint: Runnable = serverCommand({
  name: 'jwt mint',
  flags: {
    spiffeID: text('SPIFFE ID of the JWT-SVID'),
    ttl: duration('Lifetime of the JWT-SVID'),
    audience: list('Audience of the JWT-SVID; may be repeated'),
    write: text('File to write the token to instead of standard output'),
    output: output(),
  },
  run: async ({ env, call }, flags) => {
    if (flags.spiffeID === '') throw new CliError('spiffeID must be specified')
    if (flags.audience.length === 0) throw new CliError('at least one audience must be specified')
    const id = idFromText(flags.spiffeID)
    const method = SVIDService.mintJwtsvid
    const request = { id, audience: [...flags.audience], ttl: secondsOf(flags.ttl) }
    const response = await explain('unable to mint SVID', call(method, request))
    const token = response.svid?.token ?? ''
    if (token === '') throw new CliError('server response missing token')
    checkLifetime(env, token, flags.ttl)
    if (flags.write === '') {
      print(env, flags.output, [answer(method, response)], () => env.out(`${token}\n`))
      return
    }
    const path = join(flags.write)
    writeFile(env, 'token', path, token, PRIVATE_MODE)
    env.out(`JWT-SVID written to ${path}\n`)
  },
})

/** Read without verification: the token came from our own server over its private socket. */
function checkLifetime(env: CliEnv, token: string, ttlMs: number): void {
  let expiresAt: unknown
  try {
    const payload = Buffer.from(token.split('.')[1] ?? '', 'base64url').toString()
    expiresAt = JSON.parse(payload).exp
  } catch {
    env.err('Unable to determine JWT-SVID lifetime: malformed token\n')
    return
  }
  if (typeof expiresAt !== 'number') {
    env.err('Unable to determine JWT-SVID lifetime: no expiry claim\n')
    return
  }
  sayIfCapped(env, 'JWT-SVID', expiresAt, ttlMs)
}
