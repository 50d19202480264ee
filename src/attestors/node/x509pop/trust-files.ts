/** Certificates from PEM files that the configuration of x509pop names. */
import { readFileSync } from 'node:fs'
import { SignetError } from '../../../base/error.ts'
import { parseCertificate } from '../../../x509/certificate.ts'
import { parsePemOf } from '../../../x509/pem.ts'

/**
 * DER, each one parsed once so that a bad file is known at start. Throws invalid_argument
 * `bad_plugin_data`.
 */
export function loadTrustFiles(paths: readonly string[]): Uint8Array[] {
  return paths.flatMap((path) => {
    try {
      return loadCertificates(path)
    } catch (cause) {
      const why = cause instanceof Error ? cause.message : String(cause)
      throw new SignetError(
        'invalid_argument',
        'bad_plugin_data',
        `unable to load trust bundle ${JSON.stringify(path)}: ${why}`,
        { cause },
      )
    }
  })
}

/** Throws when there is no certificate in the file or one does not parse. */
export function loadCertificates(path: string): Uint8Array[] {
  const ders = parsePemOf(readFileSync(path, 'utf8'), 'CERTIFICATE')
  if (ders.length === 0) {
    throw new SignetError('invalid_argument', 'no_certificates', 'no certificates found in file')
  }
  for (const der of ders) parseCertificate(der)
  return ders
}
