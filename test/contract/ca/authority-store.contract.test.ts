import { createMemoryAuthorityStore } from '../../fakes/memory-authority-store.ts'
import { authorityStoreContract } from './authority-store.contract.ts'

authorityStoreContract(async () => {
  const store = createMemoryAuthorityStore()
  const elements = (prefix: string) =>
    [...store.bundle]
      .filter((element) => element.startsWith(prefix))
      .map((element) => element.slice(prefix.length))
  return {
    store,
    bundleRoots: async () => elements('x509:'),
    bundleKeyIds: async () => elements('jwt:'),
  }
})
