/**
 * Who may import whom (docs/ARCHITECTURE.md, "Rooms"). A room is the longest prefix in `ROOMS` that
 * matches a path; it may import itself, the rooms named, Node's own modules and the packages named.
 */
import type { SourceFile } from './tree.ts'
import { importsOf } from './tree.ts'

interface Room {
  readonly prefix: string
  readonly rooms: readonly string[]
  readonly packages: readonly string[]
}

const GRPC = '@grpc/grpc-js'

const ROOMS: readonly Room[] = [
  { prefix: 'src/base/os/', rooms: ['src/base/'], packages: ['koffi'] },
  { prefix: 'src/base/', rooms: ['src/base/os/'], packages: ['pino', 'prom-client', 'zod'] },
  { prefix: 'src/spiffe/', rooms: ['src/base/'], packages: ['zod'] },
  { prefix: 'src/x509/', rooms: ['src/base/', 'src/spiffe/'], packages: [] },
  { prefix: 'src/ca/', rooms: ['src/base/', 'src/spiffe/', 'src/x509/'], packages: [] },
  {
    prefix: 'src/attestors/',
    rooms: ['src/base/', 'src/base/os/', 'src/spiffe/', 'src/x509/'],
    packages: ['zod'],
  },
  { prefix: 'src/wire/gen/', rooms: [], packages: [GRPC, '@bufbuild/protobuf'] },
  {
    prefix: 'src/wire/',
    rooms: ['src/base/', 'src/spiffe/', 'src/x509/', 'src/wire/gen/'],
    packages: [GRPC, '@bufbuild/protobuf'],
  },
  {
    prefix: 'src/server/datastore/',
    rooms: ['src/base/', 'src/base/os/', 'src/spiffe/', 'src/x509/', 'src/ca/', 'src/server/'],
    packages: ['pg'],
  },
  {
    prefix: 'src/server/jobs/',
    rooms: ['src/base/', 'src/spiffe/', 'src/ca/', 'src/server/', 'src/server/datastore/'],
    packages: ['graphile-worker'],
  },
  {
    prefix: 'src/server/',
    rooms: [
      'src/base/',
      'src/base/os/',
      'src/spiffe/',
      'src/x509/',
      'src/ca/',
      'src/attestors/',
      'src/wire/',
      'src/wire/gen/',
      'src/server/datastore/',
      'src/server/jobs/',
    ],
    packages: [GRPC, 'zod'],
  },
  {
    prefix: 'src/agent/',
    rooms: [
      'src/base/',
      'src/base/os/',
      'src/spiffe/',
      'src/x509/',
      'src/attestors/',
      'src/wire/',
      'src/wire/gen/',
    ],
    packages: [GRPC, 'zod', '@bufbuild/protobuf'],
  },
  {
    prefix: 'src/cli/',
    rooms: ['src/base/', 'src/base/os/', 'src/spiffe/', 'src/x509/', 'src/wire/', 'src/wire/gen/'],
    packages: [GRPC, '@bufbuild/protobuf'],
  },
]

/** Edges that the rooms alone would forbid, each with its reason. */
const ALLOWED: readonly (readonly [from: RegExp, to: RegExp, why: string])[] = [
  [
    /^src\/cli\//,
    /^src\/(server|agent)\/config\.ts$/,
    '`validate` checks a file without running it',
  ],
  [/^src\/cli\/run\.ts$/, /^src\/(server|agent)\/main\.ts$/, '`run` starts the program'],
]

/** Only these may touch a package or folder, whatever their room may. */
const HOMES: readonly (readonly [what: string, where: RegExp])[] = [
  ['koffi', /^src\/base\/os\//],
  ['pino', /^src\/base\/log(-text)?\.ts$/],
  ['prom-client', /^src\/base\/metrics(-names)?\.ts$/],
  [GRPC, /^src\/(wire|server\/(rpc|listener)|agent\/(workload-api|sync)|cli)\//],
  ['src/wire/gen/', /^src\/(wire|server\/(rpc|sync)|agent\/(workload-api|sync|health\.ts$)|cli)/],
  ['pg', /^src\/server\/datastore\//],
  ['graphile-worker', /^src\/server\/jobs\//],
  ['zod', /(^|\/)config(\/[^/]+)?\.ts$|^src\/(attestors|spiffe|agent)\//],
]

function roomOf(path: string): Room | undefined {
  return ROOMS.filter((room) => path.startsWith(room.prefix)).sort(
    (a, b) => b.prefix.length - a.prefix.length,
  )[0]
}

/** What is wrong with the imports of this file, one sentence each. */
export function importFaults(file: SourceFile): string[] {
  const room = roomOf(file.path)
  if (room === undefined) return file.path.startsWith('src/') ? [`${file.path} is in no room`] : []
  const faults: string[] = []
  for (const target of importsOf(file)) {
    if (target.startsWith('node:')) continue
    const says = (why: string) => faults.push(`${file.path} imports ${target}: ${why}`)
    const home = HOMES.find(([what]) => target === what || target.startsWith(what))
    if (home !== undefined && !home[1].test(file.path)) says('it has its homes')
    if (target.startsWith('src/')) {
      if (target === file.path) continue
      const other = roomOf(target)
      const fine =
        other !== undefined &&
        (other.prefix === room.prefix ||
          room.rooms.includes(other.prefix) ||
          ALLOWED.some(([from, to]) => from.test(file.path) && to.test(target)))
      if (!fine) says(`${room.prefix} may not import ${other?.prefix ?? 'it'}`)
    } else if (/^(test|bench|demo|scripts)\//.test(target)) {
      says('sources never import tests or tools')
    } else if (!room.packages.includes(target)) says(`${room.prefix} may not use this package`)
  }
  faults.push(...halfFaults(file))
  return faults
}

/** Server and agent halves of a node attestor never import each other. */
function halfFaults(file: SourceFile): string[] {
  const half = /^src\/attestors\/node\/[^/]+\/(server|agent)\.ts$/.exec(file.path)?.[1]
  if (half === undefined) return []
  const other = half === 'server' ? 'agent' : 'server'
  return importsOf(file)
    .filter((target) => new RegExp(`^src/attestors/node/[^/]+/${other}\\.ts$`).test(target))
    .map((target) => `${file.path} imports ${target}: the halves share payload.ts only`)
}

/** Import cycles among the files given, each as `a -> b -> a`. Type-only imports count too. */
export function importCycles(files: readonly SourceFile[]): string[] {
  const edges = new Map(
    files.map((f) => [f.path, importsOf(f).filter((t) => t.startsWith('src/'))] as const),
  )
  const state = new Map<string, 'open' | 'done'>()
  const cycles: string[] = []
  const walk = (path: string, trail: readonly string[]) => {
    if (state.get(path) === 'done') return
    if (state.get(path) === 'open') {
      cycles.push([...trail.slice(trail.indexOf(path)), path].join(' -> '))
      return
    }
    state.set(path, 'open')
    for (const target of edges.get(path) ?? []) walk(target, [...trail, path])
    state.set(path, 'done')
  }
  for (const path of edges.keys()) walk(path, [])
  return cycles
}
