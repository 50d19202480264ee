/** `bundle show|list|set|delete|count` (features.md §3.2). */
import { goQuote } from '../../base/log-text.ts'
import { formatBundleDocument, parseBundleDocument } from '../../spiffe/bundle-document.ts'
import { TrustDomain } from '../../spiffe/trust-domain.ts'
import { bundleFromTrustedProto, bundleToProto } from '../../wire/convert/bundle.ts'
import {
  BatchDeleteFederatedBundleRequest_Mode,
  BundleService,
} from '../../wire/gen/spire/api/server/bundle/v1/bundle.ts'
import type { Bundle } from '../../wire/gen/spire/api/types/bundle.ts'
import { parseCertificate, splitCertificates } from '../../x509/certificate.ts'
import { formatPem, parsePem } from '../../x509/pem.ts'
import type { CliEnv } from '../env.ts'
import { CliError, explain, messageOf } from '../error.ts'
import { output, text } from '../flags.ts'
import { plural } from '../output/go-text.ts'
import { answer } from '../output/proto-json.ts'
import type { Runnable } from '../program.ts'
import { print } from '../session.ts'
import { serverCommand } from './command.ts'

const RULE = '*'.repeat(40)

function formatFlag(verb: string) {
  return text(`Form in which to ${verb} bundles in pretty output: pem or spiffe`, 'pem')
}

export const bundleShow: Runnable = serverCommand({
  name: 'bundle show',
  flags: { format: formatFlag('show'), output: output() },
  run: async ({ env, call }, flags) => {
    const method = BundleService.getBundle
    const response = await call(method, { outputMask: undefined })
    print(env, flags.output, [answer(method, response)], () => {
      env.out(bundleText(response, flags.format))
    })
  },
})

export const bundleList: Runnable = serverCommand({
  name: 'bundle list',
  flags: {
    id: text('Only the bundle of this trust domain'),
    format: formatFlag('list'),
    output: output(),
  },
  run: async ({ env, call }, flags) => {
    if (flags.id !== '') {
      const method = BundleService.getFederatedBundle
      const response = await call(method, { trustDomain: flags.id, outputMask: undefined })
      print(env, flags.output, [answer(method, response)], () => {
        env.out(bundleText(response, flags.format))
      })
      return
    }
    const method = BundleService.listFederatedBundles
    const response = await call(method, { outputMask: undefined, pageSize: 0, pageToken: '' })
    print(env, flags.output, [answer(method, response)], () => {
      for (const [index, bundle] of response.bundles.entries()) {
        if (index > 0) env.out('\n')
        const body = bundleText(bundle, flags.format)
        env.out(`${RULE}\n* ${bundle.trustDomain}\n${RULE}\n${body}`)
      }
    })
  },
})

export const bundleSet: Runnable = serverCommand({
  name: 'bundle set',
  flags: {
    id: text('Trust domain of the bundle'),
    path: text('File with the bundle; without it, standard input'),
    format: text('Form of the bundle: pem or spiffe', 'pem'),
    output: output(),
  },
  run: async ({ env, call }, flags) => {
    if (flags.id === '') throw new CliError('id flag is required')
    const format = checkedFormat(flags.format)
    const body = await explain('unable to load bundle data', readBundle(env, flags.path))
    const bundle = parseBundle(body, format, flags.id)
    const method = BundleService.batchSetFederatedBundle
    const response = await explain(
      'failed to set federated bundle',
      call(method, { bundle: [bundle], outputMask: undefined }),
    )
    print(env, flags.output, [answer(method, response)], () => {
      const status = response.results[0]?.status
      if (status !== undefined && status.code !== 0) {
        throw new CliError(`failed to set federated bundle: ${status.message}`)
      }
      env.out('bundle set.\n')
    })
  },
})

async function readBundle(env: CliEnv, path: string): Promise<string> {
  return path === '' ? env.readStdin() : env.files.readText(path)
}

function parseBundle(body: string, format: 'pem' | 'spiffe', trustDomain: string): Bundle {
  if (format === 'spiffe') return bundleFromDocument(body, TrustDomain.parse(trustDomain))
  try {
    const x509Authorities = certificatesOf(body).map((asn1) => ({ asn1, tainted: false }))
    return {
      trustDomain,
      x509Authorities,
      jwtAuthorities: [],
      refreshHint: 0n,
      sequenceNumber: 0n,
      witAuthorities: [],
    }
  } catch (thrown) {
    throw new CliError(`unable to parse bundle data: ${messageOf(thrown)}`)
  }
}

function bundleFromDocument(body: string, trustDomain: TrustDomain): Bundle {
  try {
    return bundleToProto(parseBundleDocument(trustDomain, body))
  } catch (thrown) {
    throw new CliError(`unable to parse to spiffe bundle: spiffebundle: ${messageOf(thrown)}`)
  }
}

function certificatesOf(body: string): Uint8Array[] {
  const blocks = parsePem(body)
  if (blocks.length === 0) throw new CliError('no PEM blocks')
  return blocks.map(({ label, der }) => {
    if (label !== 'CERTIFICATE') {
      throw new CliError(`expected block type "CERTIFICATE"; got ${goQuote(label)}`)
    }
    parseCertificate(der)
    return der
  })
}

const MODES: Readonly<Record<string, BatchDeleteFederatedBundleRequest_Mode>> = {
  '': BatchDeleteFederatedBundleRequest_Mode.RESTRICT,
  restrict: BatchDeleteFederatedBundleRequest_Mode.RESTRICT,
  dissociate: BatchDeleteFederatedBundleRequest_Mode.DISSOCIATE,
  delete: BatchDeleteFederatedBundleRequest_Mode.DELETE,
}

export const bundleDelete: Runnable = serverCommand({
  name: 'bundle delete',
  flags: {
    id: text('Trust domain of the bundle'),
    mode: text('What becomes of entries that federate: restrict, delete or dissociate', 'restrict'),
    output: output(),
  },
  run: async ({ env, call }, flags) => {
    if (flags.id === '') throw new CliError('id is required')
    const mode = Object.hasOwn(MODES, flags.mode) ? MODES[flags.mode] : undefined
    if (mode === undefined) throw new CliError(`unsupported mode ${goQuote(flags.mode)}`)
    const method = BundleService.batchDeleteFederatedBundle
    const response = await explain(
      'failed to delete federated bundle',
      call(method, { trustDomains: [flags.id], mode }),
    )
    print(env, flags.output, [answer(method, response)], () => {
      const result = response.results[0]
      if (result?.status !== undefined && result.status.code !== 0) {
        const name = goQuote(result.trustDomain)
        throw new CliError(`failed to delete federated bundle ${name}: ${result.status.message}`)
      }
      env.out('bundle deleted.\n')
    })
  },
})

export const bundleCount: Runnable = serverCommand({
  name: 'bundle count',
  flags: { output: output() },
  run: async ({ env, call }, flags) => {
    const method = BundleService.countBundles
    const response = await call(method, {})
    print(env, flags.output, [answer(method, response)], () => {
      env.out(`${response.count} ${plural(response.count, 'bundle', 'bundles')}\n`)
    })
  },
})

function checkedFormat(format: string): 'pem' | 'spiffe' {
  const name = format.toLowerCase() || 'pem'
  if (name === 'pem' || name === 'spiffe') return name
  throw new CliError(`invalid format: ${goQuote(name)}`)
}

function bundleText(bundle: Bundle, format: string): string {
  if (checkedFormat(format) === 'spiffe') {
    return `${formatBundleDocument(bundleFromTrustedProto(bundle))}\n`
  }
  return bundle.x509Authorities.map(({ asn1 }) => pemOf(asn1)).join('')
}

/** One authority may hold several certificates, one after the other. */
function pemOf(asn1: Uint8Array): string {
  try {
    return splitCertificates(asn1)
      .map((der) => formatPem('CERTIFICATE', der))
      .join('')
  } catch (thrown) {
    throw new CliError(`unable to parse certificates ASN.1 DER data: ${messageOf(thrown)}`)
  }
}
