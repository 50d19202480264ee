/**
 * Metric keys to Prometheus names and label rules, as SPIRE's telemetry has them (features.md
 * §4.1): `<prefix>_<key parts joined by _>`, names of services and methods in snake case, label
 * names and values reduced to `[A-Za-z0-9_]`. Dashboards depend on the names. Pure.
 */

/** PascalCase to snake_case by SPIRE's rule: `BatchNewX509SVID` → `batch_new_x509svid`. */
export function snakeCase(text: string): string {
  if (/^[a-z0-9_]*$/.test(text)) return text
  // SPIRE keeps this one exception to its own rule.
  if (text === 'SubscribeToX509SVIDs') return 'subscribe_to_x509_svids'
  let out = ''
  for (let i = 0; i < text.length; i++) {
    const char = text[i]!
    if (!/[A-Za-z0-9]/.test(char)) {
      out += '_'
      continue
    }
    const next = text[i + 1]
    const starts =
      /[A-Z]/.test(char) &&
      i > 0 &&
      next !== undefined &&
      (/[a-z]/.test(next) || /[a-z]/.test(text[i - 1]!)) &&
      !out.endsWith('_')
    out += (starts ? '_' : '') + char.toLowerCase()
  }
  return out
}

export function metricName(prefix: string, key: string): string {
  return `${prefix}.${key}`.replace(/\W/g, '_')
}

/** Runs of other characters, with one underscore that follows, become one underscore. */
export function sanitizeLabel(text: string): string {
  return text.replace(/\W+_?/g, '_')
}

export interface MetricFilter {
  readonly allowedPrefixes: readonly string[]
  readonly blockedPrefixes: readonly string[]
  readonly allowedLabels: readonly string[]
  readonly blockedLabels: readonly string[]
}

/** The longest prefix that matches decides; without one the metric is allowed. */
export function allowsKey(filter: MetricFilter, prefixedKey: string): boolean {
  const longest = (prefixes: readonly string[]) =>
    Math.max(-1, ...prefixes.filter((p) => prefixedKey.startsWith(p)).map((p) => p.length))
  return longest(filter.blockedPrefixes) <= longest(filter.allowedPrefixes)
}

export function allowsLabel(filter: MetricFilter, name: string): boolean {
  if (filter.allowedLabels.length > 0 && !filter.allowedLabels.includes(name)) return false
  return !filter.blockedLabels.includes(name)
}
