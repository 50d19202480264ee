/**
 * `-expandEnv`: `$NAME` and `${NAME}` in the whole text, before it is parsed (features.md §1.1).
 * Unset names become empty, `$$` is a dollar sign, there are no default values. The corners are
 * those of Go's `os.Expand`, because files in use depend on them.
 */

type Lookup = (name: string) => string | undefined

/** One-character names of shells; all but `$` and digits can't be set, so they vanish. */
const SPECIAL = '*#$@!?-0123456789'

export function expandEnv(text: string, lookup: Lookup): string {
  const resolve = (name: string) => (name === '$' ? '$' : (lookup(name) ?? ''))
  let out = ''
  let at = 0
  for (;;) {
    const dollar = text.indexOf('$', at)
    if (dollar === -1 || dollar === text.length - 1) return out + text.slice(at)
    out += text.slice(at, dollar)
    const { name, width } = nameAt(text, dollar + 1)
    if (name !== '') out += resolve(name)
    else if (width === 0) out += '$'
    at = dollar + 1 + width
  }
}

/** An empty name of some width is bad syntax (`${}`, an open `${`), which is dropped. */
function nameAt(text: string, at: number): { readonly name: string; readonly width: number } {
  if (text[at] === '{') {
    if (SPECIAL.includes(text[at + 1] ?? ' ') && text[at + 2] === '}') {
      return { name: text[at + 1]!, width: 3 }
    }
    const end = text.indexOf('}', at + 1)
    if (end === -1) return { name: '', width: 1 }
    return { name: text.slice(at + 1, end), width: end - at + 1 }
  }
  if (SPECIAL.includes(text[at]!)) return { name: text[at]!, width: 1 }
  const word = /[A-Za-z0-9_]*/y
  word.lastIndex = at
  const name = word.exec(text)![0]
  return { name, width: name.length }
}
