/** The keys of a server file as they are written (features.md §1.2), SPIRE's and ours. */
import type { z } from 'zod'
import {
  anything,
  flag,
  lenientSection,
  section,
  text,
  texts,
  whole,
} from '../../base/config/fields.ts'
import { HEALTH_CHECKS, LOG_KEYS, PROFILING_KEYS, TELEMETRY } from '../../base/config/shared.ts'

/** Unknown keys in here are tolerated as SPIRE tolerates them; a notice names them. */
const EXPERIMENTAL = lenientSection({
  agent_spiffe_id_as_selector: flag,
  auth_opa_policy_engine: anything,
  cache_reload_interval: text,
  full_cache_reload_interval: text,
  events_based_cache: flag,
  prune_events_older_than: text,
  event_timeout: text,
  sql_transaction_timeout: text,
  require_pq_kem: flag,
  wit_key_type: text,
  wit_issuer: text,
  feature_flags: texts,
  named_pipe_name: text,
})

const SERVER = section({
  trust_domain: text,
  data_dir: text,
  bind_address: text,
  bind_port: whole,
  socket_path: text,
  admin_ids: texts,
  agent_ttl: text,
  default_x509_svid_ttl: text,
  default_jwt_svid_ttl: text,
  ca_ttl: text,
  /** Ours. */
  root_ttl: text,
  ca_key_type: text,
  jwt_key_type: text,
  ca_subject: section({ country: texts, organization: texts, common_name: text }),
  jwt_issuer: text,
  disable_jwt_svids: flag,
  audit_log_enabled: flag,
  prune_attested_nodes_expired_for: text,
  prune_attested_nodes_batch_size: whole,
  prune_tofu_nodes: flag,
  max_attested_node_info_staleness: text,
  proxy_protocol_trusted_cidrs: texts,
  /** `attestation_per_second` is ours. */
  ratelimit: section({ attestation: flag, signing: flag, attestation_per_second: whole }),
  federation: anything,
  experimental: EXPERIMENTAL,
  ...LOG_KEYS,
  ...PROFILING_KEYS,
})

export const SERVER_DOCUMENT = section({
  server: SERVER,
  plugins: anything,
  telemetry: TELEMETRY,
  health_checks: HEALTH_CHECKS,
}).unwrap()

export type RawServer = NonNullable<z.output<typeof SERVER>>
export type RawExperimental = RawServer['experimental']
