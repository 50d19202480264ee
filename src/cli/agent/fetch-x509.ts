/** `api fetch`, `api fetch x509` (features.md §3.3). */
import { join } from 'node:path'
import { SpiffeWorkloadAPIService } from '../../wire/gen/workload.ts'
import type { Certificate } from '../../x509/certificate.ts'
import { formatPem } from '../../x509/pem.ts'
import { type CliEnv, PRIVATE_MODE, PUBLIC_MODE } from '../env.ts'
import { bool, output, text } from '../flags.ts'
import { answer } from '../output/proto-json.ts'
import type { Runnable } from '../program.ts'
import { print } from '../session.ts'
import { workloadCommand } from './command.ts'
import { identitiesText, readIdentities, type X509Identity } from './x509-context.ts'

export const fetchX509: Runnable = workloadCommand({
  name: 'fetch x509',
  flags: {
    silent: bool('Prints nothing'),
    write: text('Directory to write the SVIDs to; only with pretty output'),
    output: output(),
  },
  run: async ({ env, first }, flags) => {
    const startMs = env.clock.monotonicMs()
    const method = SpiffeWorkloadAPIService.fetchX509Svid
    const response = await first(method, {})
    const elapsedMs = env.clock.monotonicMs() - startMs
    print(env, flags.output, [answer(method, response)], () => {
      const identities = readIdentities(response, env.clock.nowSeconds())
      if (!flags.silent) env.out(identitiesText(identities, elapsedMs))
      if (flags.write !== '') writeIdentities(env, flags.write, identities)
    })
  },
})

function writeIdentities(env: CliEnv, directory: string, identities: readonly X509Identity[]) {
  const write = (what: string, name: string, content: string, mode: number) => {
    const path = join(directory, name)
    env.out(`Writing ${what} to file ${path}.\n`)
    env.files.write(path, content, mode)
  }
  for (const [index, identity] of identities.entries()) {
    write(`SVID #${index}`, `svid.${index}.pem`, pemOf(identity.chain), PUBLIC_MODE)
    const key = formatPem('PRIVATE KEY', identity.privateKey)
    write(`key #${index}`, `svid.${index}.key`, key, PRIVATE_MODE)
    write(`bundle #${index}`, `bundle.${index}.pem`, pemOf(identity.bundle), PUBLIC_MODE)
    for (const [order, [trustDomain, bundle]] of identity.federatedBundles.entries()) {
      const what = `federated bundle #${order} for trust domain ${trustDomain}`
      write(what, `federated_bundle.${index}.${order}.pem`, pemOf(bundle), PUBLIC_MODE)
    }
  }
}

function pemOf(certificates: readonly Certificate[]): string {
  return certificates.map((certificate) => formatPem('CERTIFICATE', certificate.der)).join('')
}
