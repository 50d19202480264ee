/**
 * Makes sure that what a command needs is there, on a machine with nothing but Node >= 20 and npm.
 * Runs on the machine's own Node, so it is plain JavaScript without dependencies.
 *
 *   node scripts/ensure.mjs [peers] [python] [apt:PACKAGE=BINARY ...]
 *
 * npm packages always; `peers`: SPIRE's binaries and our Go test programs, built from
 * test/interop/peers; `python`: the virtual environment of test/interop/requirements.txt;
 * `apt:`: a Debian package, when BINARY is missing.
 * Caches live in $SIGNET_CACHE (default ~/.cache/signet) and survive the checkout.
 */
import { execFileSync, spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = dirname(dirname(fileURLToPath(import.meta.url)))
export const cacheDir = process.env.SIGNET_CACHE ?? join(homedir(), '.cache', 'signet')

const sha256 = (...files) => {
  const hash = createHash('sha256')
  for (const file of files) hash.update(readFileSync(join(root, file)))
  return hash.digest('hex')
}

function say(text) {
  process.stderr.write(`signet: ${text}\n`)
}

function fail(text) {
  say(text)
  process.exit(1)
}

function run(command, args, options = {}) {
  const result = spawnSync(command, args, { stdio: ['ignore', 2, 2], cwd: root, ...options })
  if (result.error || result.status !== 0) {
    fail(`${command} ${args.join(' ')} failed${result.error ? `: ${result.error.message}` : ''}`)
  }
}

/** True when the stamp file holds this value; false means there is work to do. */
const stamped = (file, value) => existsSync(file) && readFileSync(file, 'utf8') === value

function ensureNodePackages() {
  if (Number(process.versions.node.split('.')[0]) < 20) fail('needs Node 20 or newer')
  const stamp = join(root, 'node_modules', '.signet-lock')
  const want = sha256('package-lock.json')
  if (stamped(stamp, want)) return
  say('installing npm packages')
  run('npm', ['ci', '--no-audit', '--no-fund', '--loglevel=error'])
  writeFileSync(stamp, want)
}

function has(binary) {
  return (process.env.PATH ?? '').split(':').some((dir) => existsSync(join(dir, binary)))
}

function ensureDebianPackage(spec) {
  const [name, binary] = spec.split('=')
  if (has(binary ?? name)) return
  if (process.getuid?.() !== 0 || !has('apt-get'))
    fail(`needs ${binary}: install the package ${name}`)
  say(`installing ${name}`)
  run('apt-get', ['update', '-qq'])
  run('apt-get', ['install', '-y', '-qq', '--no-install-recommends', name], {
    env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' },
  })
}

/** Builds into a directory named after what it is built from, so an old cache is never mistaken. */
function ensurePeers() {
  if (!has('go')) fail('needs Go 1.26 or newer (https://go.dev) to build the peers')
  const dir = 'test/interop/peers'
  const out = join(cacheDir, 'peers')
  const tools = [
    'github.com/spiffe/spire/cmd/spire-server',
    'github.com/spiffe/spire/cmd/spire-agent',
  ]
  buildGo(dir, out, tools, sha256(`${dir}/go.mod`, `${dir}/go.sum`))
  const programs = ['./gopeer', './svidload'].filter((p) => existsSync(join(root, dir, p)))
  const sources = programs.flatMap((p) =>
    execFileSync('find', [join(dir, p), '-name', '*.go'], { cwd: root, encoding: 'utf8' })
      .trim()
      .split('\n'),
  )
  if (programs.length > 0) {
    buildGo(dir, out, programs, sha256(`${dir}/go.mod`, ...sources.sort()), 'programs')
  }
}

function buildGo(dir, out, packages, want, name = 'tools') {
  const stamp = join(out, `.${name}`)
  if (stamped(stamp, want)) return
  say(`building ${packages.map((p) => p.split('/').at(-1)).join(', ')} (minutes the first time)`)
  mkdirSync(out, { recursive: true })
  run('go', ['build', '-o', `${out}/`, ...packages], { cwd: join(root, dir) })
  writeFileSync(stamp, want)
}

function ensurePython() {
  if (!has('python3')) fail('needs python3')
  const want = sha256('test/interop/requirements.txt')
  const out = join(cacheDir, 'python')
  if (stamped(join(out, '.stamp'), want)) return
  say('installing Python packages')
  const fresh = `${out}.new`
  rmSync(fresh, { recursive: true, force: true })
  run('python3', ['-m', 'venv', fresh])
  run(join(fresh, 'bin', 'python'), [
    '-m',
    'pip',
    'install',
    '--quiet',
    '--disable-pip-version-check',
    '-r',
    'test/interop/requirements.txt',
  ])
  writeFileSync(join(fresh, '.stamp'), want)
  rmSync(out, { recursive: true, force: true })
  renameSync(fresh, out)
}

ensureNodePackages()
for (const need of process.argv.slice(2)) {
  if (need === 'peers') ensurePeers()
  else if (need === 'python') ensurePython()
  else if (need.startsWith('apt:')) ensureDebianPackage(need.slice(4))
  else fail(`unknown need ${need}`)
}
