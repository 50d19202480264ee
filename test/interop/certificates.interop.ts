/**
 * Proof 4: `openssl verify -x509_strict` accepts every kind of certificate we issue, and Go's
 * crypto/x509 reads the same fields from each as our own parser.
 */
import { X509Certificate } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { toDecimal, toHex } from '../../src/base/bytes.ts'
import { type Certificate, parseCertificate } from '../../src/x509/certificate.ts'
import { formatName } from '../../src/x509/name.ts'
import { KEY_USAGES, type SignatureAlgorithm } from '../../src/x509/oid.ts'
import { run } from '../rigs/process.ts'
import { until } from '../rigs/until.ts'
import { Deployment, PEERS_DIR } from './rig.ts'

describe.each(['ec-p256', 'ec-p384', 'rsa-2048', 'rsa-4096'])(
  'with CA keys of type %s',
  (keyType) => {
    let deployment: Deployment
    /** Kind of certificate → PEM chain, leaf first, root left out. */
    const chains = new Map<string, string>()

    beforeAll(async () => {
      deployment = await Deployment.create('signet')
      await deployment.startServer({ server: `ca_key_type = "${keyType}"` })
      const token = await deployment.joinToken('spiffe://example.org/node')
      await deployment.startAgent('spire', { args: ['-joinToken', token] })
      await deployment.createEntry([
        '-parentID',
        'spiffe://example.org/node',
        '-spiffeID',
        'spiffe://example.org/w',
        '-selector',
        'unix:uid:0',
        '-dns',
        'w.example.org',
        '-dns',
        '*.w.example.org',
      ])
      await until('the identity', async () => {
        const written = await deployment.agent('spire', [
          'api',
          'fetch',
          'x509',
          '-write',
          deployment.dir,
        ])
        return written.code === 0
      })
      chains.set('workload', readFileSync(join(deployment.dir, 'svid.0.pem'), 'utf8'))
      const data = JSON.parse(
        readFileSync(join(deployment.dir, 'a1', 'data', 'agent-data.json'), 'utf8'),
      )
      chains.set('agent', pemOf(data.svid))
      const served = await run('openssl', [
        's_client',
        '-connect',
        `127.0.0.1:${deployment.port}`,
        '-showcerts',
        '-alpn',
        'h2',
      ])
      chains.set('server', certificatesIn(served.stdout).join(''))
      await deployment.serverOk([
        'x509',
        'mint',
        '-spiffeID',
        'spiffe://example.org/minted',
        '-dns',
        'm.example.org',
        '-write',
        deployment.dir,
      ])
      chains.set('minted', readFileSync(join(deployment.dir, 'svid.pem'), 'utf8'))
      writeFileSync(join(deployment.dir, 'root.pem'), await deployment.serverOk(['bundle', 'show']))
    })
    afterAll(async () => {
      await deployment?.[Symbol.asyncDispose]()
    })

    test.each(['workload', 'agent', 'server', 'minted'])(
      'the %s certificate verifies strictly',
      async (kind) => {
        const certificates = certificatesIn(chains.get(kind) ?? '')
        expect(certificates).toHaveLength(2)
        const leaf = join(deployment.dir, `${kind}-leaf.pem`)
        const intermediate = join(deployment.dir, `${kind}-intermediate.pem`)
        writeFileSync(leaf, certificates[0] ?? '')
        writeFileSync(intermediate, certificates[1] ?? '')
        const verified = await run('openssl', [
          'verify',
          '-x509_strict',
          '-purpose',
          'sslserver',
          '-CAfile',
          join(deployment.dir, 'root.pem'),
          '-untrusted',
          intermediate,
          leaf,
        ])
        expect(verified.stderr).toBe('')
        expect(verified.stdout).toContain(': OK')
        const client = await run('openssl', [
          'verify',
          '-x509_strict',
          '-purpose',
          'sslclient',
          '-CAfile',
          join(deployment.dir, 'root.pem'),
          '-untrusted',
          intermediate,
          leaf,
        ])
        expect(client.stdout).toContain(': OK')
      },
    )

    test('Go reads every field as our parser does', async () => {
      const all =
        [...chains.values()].join('') + readFileSync(join(deployment.dir, 'root.pem'), 'utf8')
      const file = join(deployment.dir, 'all.pem')
      writeFileSync(file, certificatesIn(all).join(''))
      const read = await run(join(PEERS_DIR, 'gopeer'), ['cert', file])
      expect(read.stderr).toBe('')
      const theirs = JSON.parse(read.stdout)
      const ours = certificatesIn(all).map((pem) =>
        asGoReads(parseCertificate(new X509Certificate(pem).raw)),
      )
      expect(theirs).toHaveLength(ours.length)
      for (const [i, expected] of ours.entries()) {
        expect(theirs[i]).toEqual(expected)
      }
      // The control and default intermediates may sign leaves only; the root may sign them.
      const authorities = theirs.filter((one: { is_ca: boolean }) => one.is_ca)
      expect(authorities).toHaveLength(chains.size + 1)
      for (const c of authorities) {
        expect(c.max_path_len).toBe(c.subject === c.issuer ? -1 : 0)
      }
    })
  },
)

/** Go's names for the signature algorithms of our authorities. */
const GO_ALGORITHMS: Partial<Record<SignatureAlgorithm, string>> = {
  'ecdsa-sha256': 'ECDSA-SHA256',
  'ecdsa-sha384': 'ECDSA-SHA384',
  'rsa-sha256': 'SHA256-RSA',
}
/** Go's numbers of serverAuth and clientAuth. */
const GO_EXT_KEY_USAGES: Readonly<Record<string, number>> = {
  '1.3.6.1.5.5.7.3.1': 1,
  '1.3.6.1.5.5.7.3.2': 2,
}

/** Every field of a certificate, by our parser and in Go's words. */
function asGoReads(c: Certificate) {
  const listOrNull = <T>(list: readonly T[]) => (list.length === 0 ? null : list)
  return {
    subject: formatName(c.subject),
    issuer: formatName(c.issuer),
    serial_number: toDecimal(c.serialNumber),
    not_before: c.notBefore,
    not_after: c.notAfter,
    uris: c.uriNames,
    dns_names: listOrNull(c.dnsNames),
    is_ca: c.isCa,
    // Go says -1 for "no limit" and 0 for what signs nothing.
    max_path_len: c.isCa ? (c.pathLength ?? -1) : -1,
    key_usage: KEY_USAGES.reduce(
      (bits, usage, n) => bits | (c.keyUsage?.has(usage) ? 1 << n : 0),
      0,
    ),
    ext_key_usage: listOrNull((c.extKeyUsage ?? []).map((oid) => GO_EXT_KEY_USAGES[oid])),
    subject_key_id: toHex(c.subjectKeyId),
    authority_key_id: toHex(c.authorityKeyId),
    algorithm: c.signatureAlgorithm && GO_ALGORITHMS[c.signatureAlgorithm],
    unhandled_critical: listOrNull(c.unhandledCritical),
  }
}

function certificatesIn(text: string): string[] {
  return text.match(/-----BEGIN CERTIFICATE-----[\s\S]*?-----END CERTIFICATE-----\n?/g) ?? []
}

/** SPIRE's agent keeps its chain as a list of base64 DER. */
function pemOf(chain: readonly string[] | string): string {
  const list = typeof chain === 'string' ? [chain] : chain
  return list.map((der) => new X509Certificate(Buffer.from(der, 'base64')).toString()).join('')
}
