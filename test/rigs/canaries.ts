/** Finds secrets in places where none may be, in whatever form they were written down. */
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'

/** Bytes of a secret that are looked for: enough to be no accident, few enough for one PEM line. */
const PROBE_BYTES = 12

export interface Secret {
  readonly name: string
  readonly needles: readonly Buffer[]
}

/** Raw, hex and base64 at any alignment: also inside a PEM block or a JSON string. */
export function secretBytes(name: string, bytes: Uint8Array): Secret {
  const probe = Buffer.from(bytes.subarray(0, PROBE_BYTES))
  const hex = probe.toString('hex')
  return {
    name,
    needles: [
      probe,
      Buffer.from(hex),
      Buffer.from(hex.toUpperCase()),
      ...[0, 1, 2].flatMap((shift) => base64At(probe, shift)),
    ],
  }
}

/** As it is, and what its parts would be in base64. */
export function secretText(name: string, text: string): Secret {
  const bytes = Buffer.from(text)
  return { name, needles: [bytes, ...[0, 1, 2].flatMap((shift) => base64At(bytes, shift))] }
}

/** The starts of unencrypted private keys: PKCS#8 and SEC1 of P-256, PKCS#8 of P-384, PEM. */
export const PRIVATE_KEY_SHAPES: readonly Secret[] = [
  secretShape('PKCS#8 P-256', '308187020100301306072a8648ce3d020106082a8648ce3d030107046d306b02'),
  secretShape('PKCS#8 P-384', '3081b6020100301006072a8648ce3d020106052b8104002204819e30819b0201'),
  secretShape('SEC1 P-256', '30770201010420'),
  { name: 'PEM', needles: [Buffer.from('PRIVATE KEY-----')] },
]

function secretShape(name: string, hex: string): Secret {
  const bytes = Buffer.from(hex, 'hex')
  return { name, needles: [bytes, Buffer.from(hex), ...base64At(bytes, 0)] }
}

/** The characters of a longer base64 text that these bytes alone decide, `shift` bytes into a group. */
function base64At(bytes: Buffer, shift: number): Buffer[] {
  const text = Buffer.concat([Buffer.alloc(shift), bytes]).toString('base64')
  const from = Math.ceil((shift * 8) / 6)
  const to = Math.floor(((shift + bytes.length) * 8) / 6)
  const standard = text.slice(from, to)
  const url = standard.replaceAll('+', '-').replaceAll('/', '_')
  return [...new Set([standard, url])].map((form) => Buffer.from(form))
}

/** Names of the secrets found. */
export function findSecrets(hay: Buffer | string, secrets: readonly Secret[]): string[] {
  const bytes = Buffer.from(hay)
  return secrets
    .filter(({ needles }) => needles.some((needle) => bytes.includes(needle)))
    .map(({ name }) => name)
}

/** `path: secret` of each find in the files below `dir`; files that vanish meanwhile are passed over. */
export function findInFiles(dir: string, secrets: readonly Secret[]): string[] {
  return readdirSync(dir, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .flatMap((entry) => {
      const path = join(entry.parentPath, entry.name)
      try {
        return findSecrets(readFileSync(path), secrets).map((name) => `${path}: ${name}`)
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code === 'ENOENT') return []
        throw error
      }
    })
}
