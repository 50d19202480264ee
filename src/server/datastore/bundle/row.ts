/** Bundles as rows: one of `signet.bundle` and one per authority. */
import { SignetError } from '../../../base/error.ts'
import { KEY_ID_BYTES_MAX } from '../../../base/limits.ts'
import type { Bundle, JwtBundleAuthority, X509BundleAuthority } from '../../../spiffe/bundle.ts'
import { parseCertificate } from '../../../x509/certificate.ts'
import type { Queryable } from '../database.ts'

interface BundleRow {
  readonly row_id: number
  readonly trust_domain: string
  readonly refresh_hint_seconds: number
  /** numeric(20): a uint64 in decimal. */
  readonly sequence_number: string
}

interface X509Row {
  readonly bundle_row_id: number
  readonly certificate: Buffer
  readonly tainted: boolean
}

interface JwtRow {
  readonly bundle_row_id: number
  readonly key_id: string
  readonly public_key: Buffer
  readonly expires_at: number
  readonly tainted: boolean
}

export interface StoredBundle extends Bundle {
  readonly rowId: number
}

/** `where` is one of our texts, `values` its parameters. One statement, so one snapshot. */
export async function selectBundles(
  db: Queryable,
  where: string,
  values: readonly unknown[],
): Promise<readonly StoredBundle[]> {
  const { rows } = await db.query<BundleRow & { x509: X509Json[]; jwt: JwtJson[] }>(
    `select b.row_id, b.trust_domain, b.refresh_hint_seconds, b.sequence_number,
       coalesce((select json_agg(json_build_object(
           'certificate', encode(x.certificate, 'base64'), 'tainted', x.tainted) order by x.row_id)
         from signet.bundle_x509_authority as x where x.bundle_row_id = b.row_id), '[]') as x509,
       coalesce((select json_agg(json_build_object('key_id', j.key_id,
           'public_key', encode(j.public_key, 'base64'), 'expires_at', j.expires_at,
           'tainted', j.tainted) order by j.row_id)
         from signet.bundle_jwt_authority as j where j.bundle_row_id = b.row_id), '[]') as jwt
     from signet.bundle as b ${where}`,
    values,
  )
  return rows.map((row) => ({
    rowId: row.row_id,
    trustDomain: row.trust_domain,
    x509Authorities: row.x509.map((x) => ({
      certificate: fromBase64(x.certificate),
      tainted: x.tainted,
    })),
    jwtAuthorities: row.jwt.map((j) => ({
      keyId: j.key_id,
      publicKey: fromBase64(j.public_key),
      expiresAt: j.expires_at,
      tainted: j.tainted,
    })),
    refreshHintSeconds: row.refresh_hint_seconds,
    sequenceNumber: BigInt(row.sequence_number),
  }))
}

type X509Json = Omit<X509Row, 'certificate'> & { readonly certificate: string }
type JwtJson = Omit<JwtRow, 'public_key'> & { readonly public_key: string }

function fromBase64(text: string): Uint8Array {
  return new Uint8Array(Buffer.from(text, 'base64'))
}

/** Locks the row until commit: writers of one bundle go one after the other. */
export async function lockBundle(
  tx: Queryable,
  trustDomain: string,
): Promise<StoredBundle | undefined> {
  await tx.query('select from signet.bundle where trust_domain = $1 for update', [trustDomain])
  return (await selectBundles(tx, 'where b.trust_domain = $1', [trustDomain]))[0]
}

/** Makes the row if there is none; true when it made it. */
export async function insertBundle(tx: Queryable, bundle: Bundle): Promise<boolean> {
  const { count } = await tx.query(
    `insert into signet.bundle (trust_domain, refresh_hint_seconds, sequence_number)
     values ($1, $2, $3) on conflict do nothing`,
    [bundle.trustDomain, bundle.refreshHintSeconds, String(bundle.sequenceNumber)],
  )
  return count > 0
}

/** How many were missing. `authorityId` ties an element to an authority of ours. */
export async function addX509(
  tx: Queryable,
  bundleRowId: number,
  authorities: readonly (X509BundleAuthority & { readonly expiresAt: number })[],
  authorityId?: number,
): Promise<number> {
  let added = 0
  for (const authority of authorities) {
    const { count } = await tx.query(
      `insert into signet.bundle_x509_authority
         (bundle_row_id, certificate, tainted, expires_at, authority_id)
       values ($1, $2, $3, $4, $5) on conflict do nothing`,
      [
        bundleRowId,
        Buffer.from(authority.certificate),
        authority.tainted,
        authority.expiresAt,
        authorityId ?? null,
      ],
    )
    added += count
  }
  return added
}

/**
 * How many were missing.
 * Differs from SPIRE: it keeps several keys under one ID, of which verifiers take any one. A second
 * is refused here, for an answer of OK would say that it is trusted.
 */
export async function addJwt(
  tx: Queryable,
  bundleRowId: number,
  authorities: readonly JwtBundleAuthority[],
  authorityId?: number,
): Promise<number> {
  let added = 0
  for (const authority of authorities) {
    if (authority.keyId === '' || Buffer.byteLength(authority.keyId) > KEY_ID_BYTES_MAX) {
      throw new SignetError('invalid_argument', 'bad_key_id', 'missing or too long key ID')
    }
    const { count } = await tx.query(
      `insert into signet.bundle_jwt_authority
         (bundle_row_id, key_id, public_key, expires_at, tainted, authority_id)
       values ($1, $2, $3, $4, $5, $6) on conflict do nothing`,
      [
        bundleRowId,
        authority.keyId,
        Buffer.from(authority.publicKey),
        authority.expiresAt,
        authority.tainted,
        authorityId ?? null,
      ],
    )
    if (count === 0) await refuseOtherKey(tx, bundleRowId, authority)
    added += count
  }
  return added
}

async function refuseOtherKey(
  tx: Queryable,
  bundleRowId: number,
  { keyId, publicKey }: JwtBundleAuthority,
): Promise<void> {
  const { rows } = await tx.query(
    `select from signet.bundle_jwt_authority
     where bundle_row_id = $1 and key_id = $2 and public_key <> $3`,
    [bundleRowId, keyId, Buffer.from(publicKey)],
  )
  if (rows.length === 0) return
  const text = `another JWT authority has the key ID ${JSON.stringify(keyId)}`
  throw new SignetError('invalid_argument', 'key_id_taken', text)
}

/** With the time that pruning goes by. Throws invalid_argument for bad DER. */
export function withExpiry(authority: X509BundleAuthority) {
  return { ...authority, expiresAt: parseCertificate(authority.certificate).notAfter }
}

/** For the audit: what a bundle holds, without megabytes of keys. */
export function summarise(bundle: Bundle) {
  return {
    x509_authorities: bundle.x509Authorities.length,
    jwt_authorities: bundle.jwtAuthorities.map((authority) => authority.keyId),
    refresh_hint_seconds: bundle.refreshHintSeconds,
    sequence_number: String(bundle.sequenceNumber),
  }
}
