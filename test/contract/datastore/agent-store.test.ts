import { useEmptiedDatastore } from '../../rigs/emptied.ts'
import { agentStoreContract } from './agent-store.contract.ts'

const { empty } = useEmptiedDatastore()

agentStoreContract(async () => ({ ...(await empty()), [Symbol.asyncDispose]: async () => {} }))
