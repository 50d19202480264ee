/** The keys of an agent file as they are written (features.md §1.3). */
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
  sync_interval: text,
  jwt_svid_cache_hit_timeout: text,
  named_pipe_name: text,
  admin_named_pipe_name: text,
  use_sync_authorized_entries: flag,
  require_pq_kem: flag,
  ratelimit: section({
    fetch_x509_svid: whole,
    fetch_jwt_svid: whole,
    fetch_x509_bundles: whole,
    fetch_jwt_bundles: whole,
    stream_secrets: whole,
    fetch_secrets: whole,
  }),
  broker: anything,
  feature_flags: texts,
})

const AGENT = section({
  data_dir: text,
  admin_socket_path: text,
  insecure_bootstrap: flag,
  rebootstrap_mode: text,
  rebootstrap_delay: text,
  join_token: text,
  join_token_file: text,
  log_selectors: texts,
  sds: lenientSection({
    default_svid_name: text,
    default_bundle_name: text,
    default_all_bundles_name: text,
    disable_spiffe_cert_validation: flag,
  }),
  server_address: text,
  server_port: whole,
  socket_path: text,
  disable_workload_api: flag,
  disable_sds_api: flag,
  workload_x509_svid_key_type: text,
  trust_bundle_format: text,
  trust_bundle_path: text,
  trust_bundle_spiffe_workload_api: text,
  trust_bundle_unix_socket: text,
  trust_bundle_url: text,
  trust_domain: text,
  allow_unauthenticated_verifiers: flag,
  allowed_foreign_jwt_claims: texts,
  availability_target: text,
  x509_svid_cache_max_size: whole,
  jwt_svid_cache_max_size: whole,
  authorized_delegates: texts,
  experimental: EXPERIMENTAL,
  ...LOG_KEYS,
  ...PROFILING_KEYS,
})

export const AGENT_DOCUMENT = section({
  agent: AGENT,
  plugins: anything,
  telemetry: TELEMETRY,
  health_checks: HEALTH_CHECKS,
}).unwrap()

export type RawAgent = NonNullable<z.output<typeof AGENT>>
export type RawExperimental = RawAgent['experimental']
