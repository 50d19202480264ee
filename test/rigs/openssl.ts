/** The openssl program as a second opinion. It is part of every machine that the README names. */
import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { formatPem } from '../../src/x509/pem.ts'

/** Runs it in a directory that holds `files`; what it printed, or throws with its stderr. */
export function openssl(args: readonly string[], files: Readonly<Record<string, string>>): string {
  const directory = mkdtempSync(join(tmpdir(), 'signet-openssl-'))
  try {
    for (const [name, text] of Object.entries(files)) writeFileSync(join(directory, name), text)
    return execFileSync('openssl', args, { cwd: directory, encoding: 'utf8', stdio: 'pipe' })
  } finally {
    rmSync(directory, { recursive: true, force: true })
  }
}

export function certificatePem(...ders: readonly Uint8Array[]): string {
  return ders.map((der) => formatPem('CERTIFICATE', der)).join('')
}

/** `openssl verify -x509_strict` at a point in time; throws unless it says OK. */
export function verifyStrictly(
  chain: { leaf: Uint8Array; intermediates: readonly Uint8Array[]; root: Uint8Array },
  now: number,
): void {
  const files: Record<string, string> = {
    'leaf.pem': certificatePem(chain.leaf),
    'root.pem': certificatePem(chain.root),
    'chain.pem': certificatePem(...chain.intermediates),
  }
  const untrusted = chain.intermediates.length > 0 ? ['-untrusted', 'chain.pem'] : []
  openssl(
    [
      'verify',
      '-x509_strict',
      '-attime',
      String(now),
      '-CAfile',
      'root.pem',
      ...untrusted,
      'leaf.pem',
    ],
    files,
  )
}
