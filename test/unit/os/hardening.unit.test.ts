import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { expect, test } from 'vitest'

const os = join(import.meta.dirname, '../../../src/base/os')

/** In a process of its own: there is no way back from these. As nobody when we are root. */
function inChild(body: string): unknown {
  const program = `
    import { readFileSync, statSync } from 'node:fs'
    import { disableCoreDumps, setNonDumpable } from '${os}/hardening.ts'
    import { openProcess, processFingerprint } from '${os}/process-handle.ts'
    const coreLimit = () => /Max core file size +(\\d+) +(\\d+)/
      .exec(readFileSync('/proc/self/limits', 'utf8')).slice(1).map(Number)
    if (process.getuid() === 0) { process.setgid(65534); process.setuid(65534) }
    ${body}`
  const child = spawnSync(process.execPath, ['--input-type=module', '-e', program], {
    encoding: 'utf8',
  })
  expect(child.stderr).toBe('')
  return JSON.parse(child.stdout)
}

test('core dumps are off for good', () => {
  expect(inChild('disableCoreDumps(); console.log(JSON.stringify(coreLimit()))')).toEqual([0, 0])
})

test('after hardening /proc shows the process to root only, and it still sees others', () => {
  const seen = inChild(`
    setNonDumpable()
    const owner = statSync('/proc/' + process.pid + '/environ').uid
    using parent = openProcess(process.ppid)
    console.log(JSON.stringify({ owner, alive: parent.alive(), cgroup: parent.fingerprint().cgroup,
      own: processFingerprint(process.pid).exe !== '' }))`)
  expect(seen).toMatchObject({
    owner: 0,
    alive: true,
    own: true,
    cgroup: expect.stringMatching(/^.{64}$/),
  })
})
