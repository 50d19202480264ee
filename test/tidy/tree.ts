/** The source tree as the tidy tests see it. */
import { execFileSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { dirname, join, normalize } from 'node:path'
import { fileURLToPath } from 'node:url'

export const ROOT = dirname(dirname(dirname(fileURLToPath(import.meta.url))))

export interface SourceFile {
  /** Relative to the project, with forward slashes. */
  readonly path: string
  readonly text: string
}

/** Tracked and new files; what .gitignore names is not part of the tree. */
export function listFiles(): string[] {
  const out = execFileSync('git', ['ls-files', '-co', '--exclude-standard'], {
    cwd: ROOT,
    encoding: 'utf8',
    maxBuffer: 64 << 20,
  })
  return out
    .split('\n')
    .filter((path) => path !== '' && existsSync(join(ROOT, path)))
    .sort()
}

export function isGenerated(path: string): boolean {
  return /(^|\/)gen\//.test(path)
}

export function readSources(): SourceFile[] {
  return listFiles()
    .filter((path) => /^(src|test|bench|demo|scripts)\/.*\.(ts|mjs)$/.test(path))
    .map((path) => ({ path, text: readFileSync(join(ROOT, path), 'utf8') }))
}

/** What a module imports: `node:…` and packages by name, own files by project path. */
export function importsOf(file: SourceFile): string[] {
  const found = new Set<string>()
  const pattern =
    /(?:^|\n)\s*(?:import|export)\b[^'"]*?from\s+'([^']+)'|\bimport\(\s*'([^']+)'\s*\)|(?:^|\n)import\s+'([^']+)'/g
  for (const match of file.text.matchAll(pattern)) {
    const target = match[1] ?? match[2] ?? match[3]
    if (target === undefined) continue
    if (target.startsWith('.')) found.add(normalize(join(dirname(file.path), target)))
    else found.add(packageName(target))
  }
  return [...found]
}

function packageName(target: string): string {
  if (target.startsWith('node:')) return target
  const parts = target.split('/')
  return target.startsWith('@') ? parts.slice(0, 2).join('/') : parts[0]!
}
