/**
 * The agent's own identity: its SVID with key, kept across restarts, got by attestation and renewed
 * in time (api.md §11.2, §11.4). One operation runs at a time; until a new SVID is stored the old
 * one stays in use.
 */
import type { NodeAttestorAgent } from '../../attestors/contract.ts'
import { SignetError } from '../../base/error.ts'
import { logTime } from '../../base/log-text.ts'
import type { Clock, EpochSeconds, Log, Metrics, Random } from '../../base/ports.ts'
import type { Bundle } from '../../spiffe/bundle.ts'
import type { TrustDomain } from '../../spiffe/trust-domain.ts'
import { type Certificate, parseCertificate } from '../../x509/certificate.ts'
import { countCall } from '../call-counter.ts'
import { encodeRequest } from '../key-pair.ts'
import { type RotationPolicy, renewalTime } from '../svid-cache/rotation-policy.ts'
import { attestAgent } from '../sync/attest-call.ts'
import type { AgentKey, KeyStore } from './key-store.ts'
import type { AgentStorage } from './storage.ts'

export interface AgentSvid {
  readonly spiffeId: string
  /** DER, leaf first. */
  readonly chain: readonly Uint8Array[]
  readonly key: AgentKey
  readonly reattestable: boolean
  readonly notBefore: EpochSeconds
  readonly notAfter: EpochSeconds
  readonly renewAt: number
}

export interface IdentityOptions {
  readonly host: string
  readonly port: number
  readonly trustDomain: TrustDomain
  readonly storage: AgentStorage
  readonly keyStore: KeyStore
  readonly attestor: NodeAttestorAgent
  readonly policy: RotationPolicy
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
  readonly metrics: Metrics
}

/** As SPIRE: an SVID in its last second is no use to start with. */
const CLOCK_SKEW_SECONDS = 1

export class AgentIdentity {
  readonly #options: IdentityOptions
  #current: AgentSvid | undefined
  #tainted = false

  constructor(options: IdentityOptions) {
    this.#options = options
  }

  /** The SVID in use. Throws before the first attestation. */
  get svid(): AgentSvid {
    if (this.#current === undefined) {
      throw new SignetError('failed_precondition', 'agent_not_attested', 'agent is not attested')
    }
    return this.#current
  }

  get isAttested(): boolean {
    return this.#current !== undefined
  }

  isExpired(): boolean {
    return this.#options.clock.nowSeconds() + CLOCK_SKEW_SECONDS >= this.svid.notAfter
  }

  isRenewalDue(): boolean {
    return this.#tainted || this.#options.clock.nowSeconds() >= this.svid.renewAt
  }

  /** Asks for renewal at the next check. */
  markTainted(): void {
    this.#tainted = true
  }

  /** Takes up the kept SVID if its key is there and it has not expired. */
  load(): AgentSvid | undefined {
    const { storage, keyStore, log } = this.#options
    const { svid: chain, reattestable } = storage.data
    if (chain.length === 0) {
      log.debug('No pre-existing agent SVID found. Will perform node attestation')
      if (keyStore.keys.length > 0) {
        log.warn('Keys recovered, but no SVID found. Generating new keypair')
      }
      return undefined
    }
    const leaf = parseCertificate(chain[0]!)
    const key = keyStore.find(leaf.publicKey)
    if (key === undefined) {
      const what = keyStore.keys.length === 0 ? 'no keys found' : 'no SVID key found'
      log.warn(`SVID recovered, but ${what}. Generating new keypair`)
      return undefined
    }
    const svid = this.#describe(chain, leaf, key, reattestable)
    this.#current = svid
    if (!this.isExpired()) return svid
    this.#current = undefined
    log.warn('SVID key recovered, but SVID is expired. Generating new keypair', {
      expiry: logTime(svid.notAfter),
    })
    return undefined
  }

  /**
   * Attests to the server; `roots` undefined trusts whichever server answers (insecure bootstrap).
   * Rejects with the server's error: `permission_denied` is final.
   */
  async attest(roots: readonly Uint8Array[] | undefined): Promise<Bundle> {
    const labels = { attestor: this.#options.attestor.type }
    const call = () => this.#attest(roots)
    return countCall(this.#options, 'node.attestor.new_svid', call, labels)
  }

  /** Attests anew while running; rejects as `attest` does. */
  async reattest(roots: readonly Uint8Array[]): Promise<void> {
    const log = this.#rotationLog()
    log.debug('Reattesting node')
    await countCall(this.#options, 'node.attest', () => this.#attest(roots))
    log.info('Successfully reattested node', { spiffe_id: this.svid.spiffeId })
  }

  /** RenewAgent through `renew`, or attestation where the attestor can do it again. */
  async renew(
    renew: (csr: Uint8Array) => Promise<readonly Uint8Array[]>,
    roots: readonly Uint8Array[],
  ): Promise<void> {
    if (this.svid.reattestable) return this.reattest(roots)
    const log = this.#rotationLog()
    await countCall(this.#options, 'agent_svid.rotate', async () => {
      log.debug('Rotating agent SVID')
      const key = await this.#generateKey()
      await this.#adopt(await renew(encodeRequest(key)), key, false)
      log.info('Successfully rotated agent SVID', { spiffe_id: this.svid.spiffeId })
    })
  }

  /** After a ban: the next start must attest anew. */
  async forget(): Promise<void> {
    const { storage, log } = this.#options
    try {
      await storage.update({ svid: [], reattestable: false })
    } catch (error) {
      log.error('Failed to remove SVID', { error: String(error) })
    }
  }

  async #attest(roots: readonly Uint8Array[] | undefined): Promise<Bundle> {
    const { attestor, storage } = this.#options
    const key = await this.#generateKey()
    const session = await attestor.attest()
    const { chain, reattestable, bundle } = await attestAgent({
      ...this.#options,
      roots,
      attestorType: attestor.type,
      session,
      csr: encodeRequest(key),
    })
    await this.#adopt(chain, key, reattestable)
    await storage.update({ bundle: bundle.x509Authorities.map((a) => a.certificate) })
    return bundle
  }

  /** In SPIRE another part rotates what the attestor has got. */
  #rotationLog(): Log {
    return this.#options.log.with({ subsystem_name: 'manager' })
  }

  #generateKey(): Promise<AgentKey> {
    const { keyStore } = this.#options
    const generate = () => keyStore.generate(this.#current?.key)
    return countCall(this.#options, 'agent_key_manager.generate_key', generate)
  }

  async #adopt(chain: readonly Uint8Array[], key: AgentKey, reattestable: boolean): Promise<void> {
    const leaf = parseCertificate(chain[0]!)
    const svid = this.#describe(chain, leaf, key, reattestable)
    try {
      await this.#options.storage.update({ svid: chain, reattestable })
    } catch (error) {
      // The SVID is good for this run; only a restart would have to attest again.
      this.#options.log.warn('Could not store SVID', { error: String(error) })
    }
    this.#current = svid
    this.#tainted = false
  }

  #describe(
    chain: readonly Uint8Array[],
    leaf: Certificate,
    key: AgentKey,
    reattestable: boolean,
  ): AgentSvid {
    const { policy, random } = this.#options
    const { notBefore, notAfter } = leaf
    const renewAt = renewalTime({ notBefore, notAfter }, policy, random)
    const spiffeId = leaf.uriNames[0] ?? ''
    return { spiffeId, chain, key, reattestable, notBefore, notAfter, renewAt }
  }
}
