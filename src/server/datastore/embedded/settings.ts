/**
 * Settings of the embedded PostgreSQL: sized for one server beside it, quiet when idle, and mute
 * about what statements carry (I9).
 */

export interface PostgresTuning {
  /** Off in tests only: a crash of the machine would lose commits. */
  readonly fsync: boolean
  readonly connectionsMax: number
}

export const DEFAULT_TUNING: PostgresTuning = { fsync: true, connectionsMax: 50 }

export function postgresSettings(tuning: PostgresTuning): readonly string[] {
  const settings: Record<string, string> = {
    // Never TCP: its OpenSSL is an old 1.1, and a local socket needs none.
    listen_addresses: '',
    unix_socket_permissions: '0700',
    password_encryption: 'scram-sha-256',
    max_connections: String(tuning.connectionsMax),
    shared_buffers: '64MB',
    work_mem: '8MB',
    maintenance_work_mem: '64MB',
    jit: 'off',
    // One process each for what a small database needs; no workers for parallel queries or I/O.
    max_parallel_workers: '0',
    max_parallel_workers_per_gather: '0',
    max_worker_processes: '2',
    io_method: 'sync',
    autovacuum_max_workers: '2',
    // Each look reads the catalogue: a minute apart it is most of what an idle database does.
    autovacuum_naptime: '5min',
    max_logical_replication_workers: '0',
    wal_level: 'minimal',
    max_wal_senders: '0',
    max_wal_size: '512MB',
    checkpoint_timeout: '15min',
    fsync: tuning.fsync ? 'on' : 'off',
    full_page_writes: tuning.fsync ? 'on' : 'off',
    synchronous_commit: 'on',
    timezone: 'UTC',
    // Errors of statements reach the caller; in this file they would only show parameters.
    log_min_messages: 'log',
    log_min_error_statement: 'panic',
    log_statement: 'none',
    log_error_verbosity: 'terse',
    log_checkpoints: 'off',
    log_parameter_max_length: '0',
    log_parameter_max_length_on_error: '0',
  }
  return Object.entries(settings).flatMap(([key, value]) => ['-c', `${key}=${value}`])
}
