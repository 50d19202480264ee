/**
 * Proof 4: `openssl verify -x509_strict` accepts every kind of certificate we issue, and Go's
 * crypto/x509 reads the same fields from each as our own parser.
 */
import { X509Certificate } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { toDecimal, toHex } from '../../src/base/bytes.ts'
import { parseCertificate } from '../../src/x509/certificate.ts'
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
      const ours = certificatesIn(all).map((pem) => {
        const c = parseCertificate(new X509Certificate(pem).raw)
        return {
          serial_number: toDecimal(c.serialNumber),
          not_before: c.notBefore,
          not_after: c.notAfter,
          uris: c.uriNames,
          is_ca: c.isCa,
          subject_key_id: c.subjectKeyId === undefined ? '' : toHex(c.subjectKeyId),
          authority_key_id: c.authorityKeyId === undefined ? '' : toHex(c.authorityKeyId),
        }
      })
      expect(theirs).toHaveLength(ours.length)
      for (const [i, expected] of ours.entries()) {
        expect(theirs[i]).toMatchObject(expected)
        expect(theirs[i].unhandled_critical).toBeNull()
      }
      // The control and default intermediates may sign leaves only; the root may sign them.
      for (const c of theirs.filter((t: { is_ca: boolean; authority_key_id: string }) => t.is_ca)) {
        expect(c.max_path_len).toBe(c.subject === c.issuer ? -1 : 0)
      }
    })
  },
)

function certificatesIn(text: string): string[] {
  return text.match(/-----BEGIN CERTIFICATE-----[\s\S]*?-----END CERTIFICATE-----\n?/g) ?? []
}

/** SPIRE's agent keeps its chain as a list of base64 DER. */
function pemOf(chain: readonly string[] | string): string {
  const list = typeof chain === 'string' ? [chain] : chain
  return list.map((der) => new X509Certificate(Buffer.from(der, 'base64')).toString()).join('')
}
