-- The first schema of Signet (design.md §4).
--
-- Rules for every later file: forward only; additions first, removals one release later, because old
-- and new servers run side by side during an upgrade; no statement that rewrites a large table.
-- Times of SVIDs, entries and authorities are whole seconds since 1970 as bigint: they are compared
-- with X.509 and JWT times, and the application's clock makes them, never the database's.

create schema signet;

-- One row: which deployment this database belongs to. `epoch` is part of every change-log position,
-- so that a position from another database is refused.
create table signet.deployment (
  id smallint primary key default 1 check (id = 1),
  trust_domain text not null,
  epoch uuid not null default gen_random_uuid(),
  -- Every change-log row visible in this snapshot may have been pruned.
  pruned_snapshot pg_snapshot,
  -- Taken at `pending_at`; becomes `pruned_snapshot` once it is old enough.
  pending_snapshot pg_snapshot,
  pending_at bigint,
  created_at timestamptz not null default now()
);

-- Fault and revocation domains. The root belongs to none; `control` signs servers and agents.
create table signet.cluster (
  id integer primary key,
  name text not null unique,
  tenant_id integer not null default 0,
  created_at timestamptz not null default now()
);
insert into signet.cluster (id, name) values (0, ''), (1, 'control'), (2, 'default');

-- ---------------------------------------------------------------------------------------------
-- Authorities

create type signet.authority_kind as enum ('x509_root', 'x509_intermediate', 'jwt');
create type signet.authority_state as enum ('prepared', 'active', 'old', 'tainted', 'revoked');

create table signet.authority (
  id bigint generated always as identity primary key,
  cluster_id integer not null references signet.cluster,
  kind signet.authority_kind not null,
  -- Empty: shared by all servers. Else the process that alone holds the key.
  holder text not null,
  state signet.authority_state not null default 'prepared',
  -- Grows with every transition: a job that read an older value is too late.
  epoch bigint not null default 0,
  authority_id text not null,
  key_type text not null,
  public_key bytea not null,
  certificate bytea,
  -- No foreign key: a root and its intermediates are pruned in one statement, in any order.
  issuer_id bigint,
  not_before bigint not null,
  not_after bigint not null,
  generation text not null unique,
  kek_id text,
  sealed_key bytea,
  created_at timestamptz not null default now(),
  check ((kek_id is null) = (sealed_key is null)),
  check ((kind = 'jwt') = (certificate is null))
);
-- I6: racing servers make one winner per slot.
create unique index authority_one_prepared on signet.authority (cluster_id, kind, holder)
  where state = 'prepared';
create unique index authority_one_active on signet.authority (cluster_id, kind, holder)
  where state = 'active';

-- ---------------------------------------------------------------------------------------------
-- Bundles

create table signet.bundle (
  row_id bigint generated always as identity primary key,
  trust_domain text not null unique,
  refresh_hint_seconds bigint not null,
  -- uint64 on the wire, which bigint can't hold.
  sequence_number numeric(20, 0) not null
);

create table signet.bundle_x509_authority (
  row_id bigint generated always as identity primary key,
  bundle_row_id bigint not null references signet.bundle on delete cascade,
  certificate bytea not null,
  tainted boolean not null,
  expires_at bigint not null,
  -- The authority of ours that it belongs to.
  authority_id bigint
);
-- A tainted twin counts as present. By hash, because a certificate may exceed an index entry.
create unique index bundle_x509_authority_once
  on signet.bundle_x509_authority (bundle_row_id, sha256(certificate));

create table signet.bundle_jwt_authority (
  row_id bigint generated always as identity primary key,
  bundle_row_id bigint not null references signet.bundle on delete cascade,
  key_id text not null,
  public_key bytea not null,
  expires_at bigint not null,
  tainted boolean not null,
  authority_id bigint
);
create unique index bundle_jwt_authority_once
  on signet.bundle_jwt_authority (bundle_row_id, key_id);

-- ---------------------------------------------------------------------------------------------
-- Registration entries

-- Equal for entries that are similar (api.md §7.3): same SPIFFE ID, parent and set of selectors. The
-- text form of an array quotes its elements, so different sets can't meet in one text.
create function signet.similar_hash(spiffe_id text, parent_id text, selectors text[])
returns bytea language sql immutable parallel safe as $$
  select sha256(convert_to(
    array[spiffe_id, parent_id]::text
      || array(select distinct s collate "C" from unnest(selectors) as s order by 1)::text,
    'UTF8'))
$$;

create table signet.entry (
  row_id bigint generated always as identity primary key,
  id text not null unique,
  spiffe_id text not null,
  parent_id text not null,
  selectors text[] not null,
  x509_svid_ttl_seconds integer not null,
  jwt_svid_ttl_seconds integer not null,
  federates_with text[] not null,
  admin boolean not null,
  downstream boolean not null,
  expires_at bigint not null,
  dns_names text[] not null,
  revision_number bigint not null default 0,
  store_svid boolean not null,
  hint text not null,
  created_at bigint not null,
  disable_x509_svid_prefetch boolean not null,
  jwt_svid_include_jti boolean not null,
  tenant_id integer not null default 0,
  similar_hash bytea not null,
  -- 0 for created entries, so that two racing creations meet in the index. SPIRE lets an *update*
  -- make similar entries; the later ones count upwards.
  twin integer not null default 0
);
-- One 32-byte hash: three columns of up to 2048 bytes each would not fit an index entry.
create unique index entry_similar on signet.entry (similar_hash, twin);
create index entry_spiffe_id on signet.entry (spiffe_id);
create index entry_parent_id on signet.entry (parent_id);
-- Serves all four match behaviours: subset is "overlaps and is contained".
create index entry_selectors on signet.entry using gin (selectors);
create index entry_federates_with on signet.entry using gin (federates_with)
  where federates_with <> '{}';
create index entry_expires_at on signet.entry (expires_at) where expires_at > 0;

-- What the audit keeps of an entry.
create function signet.entry_json(e signet.entry) returns json language sql stable as $$
  select json_build_object(
    'id', e.id, 'spiffe_id', e.spiffe_id, 'parent_id', e.parent_id, 'selectors', e.selectors,
    'x509_svid_ttl_seconds', e.x509_svid_ttl_seconds,
    'jwt_svid_ttl_seconds', e.jwt_svid_ttl_seconds, 'federates_with', e.federates_with,
    'admin', e.admin, 'downstream', e.downstream, 'expires_at', e.expires_at,
    'dns_names', e.dns_names, 'revision_number', e.revision_number, 'store_svid', e.store_svid,
    'hint', e.hint, 'disable_x509_svid_prefetch', e.disable_x509_svid_prefetch,
    'jwt_svid_include_jti', e.jwt_svid_include_jti)
$$;

-- ---------------------------------------------------------------------------------------------
-- Agents and join tokens

create table signet.agent (
  row_id bigint generated always as identity primary key,
  id text not null unique,
  attestation_type text not null,
  -- Empty when banned.
  serial_number text not null,
  expires_at bigint not null,
  new_serial_number text not null default '',
  new_expires_at bigint not null default 0,
  can_reattest boolean not null,
  agent_version text not null default '',
  selectors text[] not null,
  -- Fixed at first attestation.
  cluster_id integer not null references signet.cluster,
  tenant_id integer not null default 0,
  -- What the attestation proved (a certificate's hash, an instance): for bans that outlive the ID.
  evidence_key bytea,
  created_at timestamptz not null default now()
);
create index agent_expires_at on signet.agent (expires_at);
create index agent_selectors on signet.agent using gin (selectors);

create table signet.join_token (
  -- SHA-256: the token itself is a secret (I9).
  value_hash bytea primary key,
  expires_at bigint not null,
  cluster_id integer not null references signet.cluster,
  -- The alias entry that redemption creates. It holds the token in its parent ID, so it can't exist
  -- as a row while the token is a secret.
  alias json
);
create index join_token_expires_at on signet.join_token (expires_at);

-- ---------------------------------------------------------------------------------------------
-- Audit: who did what, before and after, in one transaction with the change. The transaction's
-- number lets a later job chain the rows in commit order.

create table signet.audit (
  id bigint generated always as identity primary key,
  xid xid8 not null default pg_current_xact_id(),
  at timestamptz not null default now(),
  actor_kind text not null,
  actor_id text not null,
  request_id text not null,
  action text not null,
  object_id text not null,
  before json,
  after json
);
create index audit_at on signet.audit using brin (at);

-- ---------------------------------------------------------------------------------------------
-- Ledger: one row per SVID that may exist. Partitioned by expiry, so that old rows go by dropping a
-- table. Few and cheap indexes: a unique one on the serial would double the cost of a row, and its
-- uniqueness comes from 126 random bits.

create type signet.ledger_kind as enum (
  'x509_workload', 'x509_agent', 'x509_server', 'x509_ca', 'jwt'
);

create table signet.ledger (
  recorded_at timestamptz not null default now(),
  kind signet.ledger_kind not null,
  cluster_id integer not null,
  tenant_id integer not null default 0,
  authority_id bigint not null,
  not_before bigint not null,
  not_after bigint not null,
  serial_number bytea not null,
  spiffe_id text not null,
  entry_id text not null,
  caller_id text not null,
  request_id text not null,
  public_key_sha256 bytea not null,
  tbs_sha256 bytea not null
) partition by range (not_after);
create index ledger_recorded_at on signet.ledger using brin (recorded_at);
create index ledger_serial_number on signet.ledger using hash (serial_number);
-- Nothing is ever refused for want of a partition.
create table signet.ledger_default partition of signet.ledger default;

create table signet.ledger_failure (
  recorded_at timestamptz not null default now(),
  kind signet.ledger_kind not null,
  cluster_id integer not null,
  authority_id bigint not null,
  serial_number bytea not null,
  request_id text not null,
  reason text not null
);
create index ledger_failure_serial_number on signet.ledger_failure using hash (serial_number);

-- Creates the weekly partitions from the one of `now_seconds` on, moving rows that the default
-- partition has caught for them. How many were made.
create function signet.create_ledger_partitions(now_seconds bigint, weeks integer)
returns integer language plpgsql as $$
declare
  week constant bigint := 7 * 86400;
  made integer := 0;
  first_second bigint;
  name text;
begin
  perform pg_advisory_xact_lock(hashtextextended('signet.ledger', 0));
  for i in 0 .. weeks - 1 loop
    first_second := (now_seconds / week + i) * week;
    name := 'ledger_' || to_char(to_timestamp(first_second) at time zone 'UTC', 'YYYYMMDD');
    continue when to_regclass(format('signet.%I', name)) is not null;
    execute format('create table signet.%I (like signet.ledger including defaults)', name);
    lock table signet.ledger_default in access exclusive mode;
    execute format(
      'with moved as (
         delete from signet.ledger_default where not_after >= $1 and not_after < $2 returning *
       ) insert into signet.%I select * from moved', name)
      using first_second, first_second + week;
    execute format(
      'alter table signet.ledger attach partition signet.%I for values from (%s) to (%s)',
      name, first_second, first_second + week);
    made := made + 1;
  end loop;
  return made;
end $$;

-- ---------------------------------------------------------------------------------------------
-- Change log. A reader asks for the rows whose transaction its last snapshot had not seen, so each
-- commit is taken once, none is skipped and none waits for somebody's long transaction.

create type signet.change_kind as enum ('entry', 'agent', 'bundle', 'authority', 'cluster');

create table signet.change_log (
  seq bigint generated always as identity primary key,
  xid xid8 not null default pg_current_xact_id(),
  kind signet.change_kind not null,
  -- One row carries all objects that a statement changed.
  ids text[] not null
);
create index change_log_xid on signet.change_log (xid);

create function signet.notify_change() returns trigger language plpgsql as $$
begin
  notify signet_change;
  return null;
end $$;
create trigger change_log_notify after insert on signet.change_log
  for each statement execute function signet.notify_change();
