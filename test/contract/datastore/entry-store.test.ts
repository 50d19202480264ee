import { useEmptiedDatastore } from '../../rigs/emptied.ts'
import { entryStoreContract } from './entry-store.contract.ts'

const { empty } = useEmptiedDatastore()

entryStoreContract(async () => ({ ...(await empty()), [Symbol.asyncDispose]: async () => {} }))
