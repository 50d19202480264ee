/** A small foreign PKI made by openssl, for x509pop. */
import { join } from 'node:path'
import { run } from '../rigs/process.ts'

export interface NodeCertificate {
  readonly caPath: string
  readonly keyPath: string
  readonly certificatePath: string
}

async function openssl(args: readonly string[]): Promise<string> {
  const result = await run('openssl', args)
  if (result.code !== 0) throw new Error(`openssl ${args.join(' ')}: ${result.stderr}`)
  return result.stdout
}

/** One CA and one node certificate under it, as files in `dir`. */
export async function makeNodeCertificate(dir: string, name: string): Promise<NodeCertificate> {
  const at = (file: string) => join(dir, `${name}-${file}`)
  await openssl([
    'req',
    '-x509',
    '-newkey',
    'ec',
    '-pkeyopt',
    'ec_paramgen_curve:P-256',
    '-nodes',
    '-days',
    '2',
    '-subj',
    '/O=Test PKI',
    '-keyout',
    at('ca.key'),
    '-out',
    at('ca.pem'),
    '-addext',
    'keyUsage=critical,keyCertSign,cRLSign',
  ])
  await openssl([
    'req',
    '-newkey',
    'ec',
    '-pkeyopt',
    'ec_paramgen_curve:P-256',
    '-nodes',
    '-subj',
    `/CN=${name}.nodes`,
    '-keyout',
    at('node.key'),
    '-out',
    at('node.csr'),
    '-addext',
    'keyUsage=critical,digitalSignature',
  ])
  await openssl([
    'x509',
    '-req',
    '-in',
    at('node.csr'),
    '-CA',
    at('ca.pem'),
    '-CAkey',
    at('ca.key'),
    '-CAcreateserial',
    '-days',
    '1',
    '-copy_extensions',
    'copy',
    '-out',
    at('node.pem'),
  ])
  return { caPath: at('ca.pem'), keyPath: at('node.key'), certificatePath: at('node.pem') }
}
