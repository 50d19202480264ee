import { generateKeyPairSync } from 'node:crypto'
import { NOW } from '../../rigs/datastore.ts'
import { useEmptiedDatastore } from '../../rigs/emptied.ts'
import { selfSignedCertificate } from '../../rigs/test-certificates.ts'
import { bundleStoreContract } from './bundle-store.contract.ts'

const { empty } = useEmptiedDatastore()
const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
const certificate = (commonName: string, notAfter: number) =>
  selfSignedCertificate(privateKey, { commonName, notAfter })

bundleStoreContract(
  {
    alive: [certificate('one', NOW + 60), certificate('two', NOW + 60)],
    expired: certificate('expired', NOW - 1),
  },
  async () => ({ ...(await empty()), [Symbol.asyncDispose]: async () => {} }),
)
