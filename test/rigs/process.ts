/** Child processes of tests: started, watched, and always ended. */
import { type ChildProcess, spawn } from 'node:child_process'
import { until } from './until.ts'

export interface RunResult {
  readonly code: number
  readonly stdout: string
  readonly stderr: string
}

export interface RunOptions {
  readonly env?: Readonly<Record<string, string>>
  readonly cwd?: string
  readonly input?: string
  readonly uid?: number
  readonly gid?: number
  readonly timeoutMs?: number
}

/** Runs to the end; a timeout kills it and rejects. */
export function run(
  command: string,
  args: readonly string[],
  options: RunOptions = {},
): Promise<RunResult> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, spawnOptions(options))
    let stdout = ''
    let stderr = ''
    const timer = setTimeout(() => {
      child.kill('SIGKILL')
      reject(new Error(`${command} ${args.join(' ')} took too long\n${stdout}${stderr}`))
    }, options.timeoutMs ?? 60_000)
    child.stdout?.on('data', (chunk) => {
      stdout += chunk
    })
    child.stderr?.on('data', (chunk) => {
      stderr += chunk
    })
    child.once('error', reject)
    child.once('close', (code, signal) => {
      clearTimeout(timer)
      resolve({ code: code ?? (signal ? 128 : 1), stdout, stderr })
    })
    // A program that ends without reading its input is no failure of the test's.
    child.stdin?.on('error', () => {})
    child.stdin?.end(options.input ?? '')
  })
}

function spawnOptions(options: RunOptions) {
  return {
    env: { ...process.env, ...options.env },
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    ...(options.uid === undefined ? {} : { uid: options.uid }),
    ...(options.gid === undefined ? {} : { gid: options.gid }),
  }
}

/** A long-running process with everything it printed. */
export class Daemon implements AsyncDisposable {
  readonly #child: ChildProcess
  #output = ''
  #exit: number | undefined

  private constructor(child: ChildProcess) {
    this.#child = child
    const keep = (chunk: Buffer) => {
      this.#output += chunk.toString()
    }
    child.stdout?.on('data', keep)
    child.stderr?.on('data', keep)
    child.once('exit', (code, signal) => {
      this.#exit = code ?? (signal ? 128 : 1)
    })
    child.once('error', (error) => {
      this.#output += `\n${error}`
      this.#exit = 127
    })
  }

  static start(command: string, args: readonly string[], options: RunOptions = {}): Daemon {
    return new Daemon(spawn(command, args, spawnOptions(options)))
  }

  get pid(): number {
    return this.#child.pid ?? -1
  }

  get output(): string {
    return this.#output
  }

  /** Undefined while it runs. */
  get exitCode(): number | undefined {
    return this.#exit
  }

  /** To its standard input. */
  write(text: string): void {
    this.#child.stdin?.write(text)
  }

  /** Waits for a text in the output; fails at once when the process ends before it came. */
  async untilPrinted(text: string | RegExp, timeoutMs = 60_000): Promise<void> {
    const found = () =>
      typeof text === 'string' ? this.#output.includes(text) : text.test(this.#output)
    await until(
      `output with ${text}`,
      () => {
        if (found()) return true
        if (this.#exit !== undefined) return 'ended'
        return false
      },
      timeoutMs,
    ).catch((error) => {
      throw new Error(`${error.message}\n${this.#output.slice(-8000)}`, { cause: error })
    })
    if (!found())
      throw new Error(`ended (${this.#exit}) before ${text}\n${this.#output.slice(-8000)}`)
  }

  async untilExit(timeoutMs = 30_000): Promise<number> {
    await until('process to end', () => this.#exit !== undefined, timeoutMs)
    return this.#exit as number
  }

  async stop(signal: NodeJS.Signals = 'SIGTERM', timeoutMs = 20_000): Promise<number> {
    if (this.#exit === undefined) {
      this.#child.kill(signal)
      await until('process to end', () => this.#exit !== undefined, timeoutMs).catch(() => {
        this.#child.kill('SIGKILL')
      })
      await until('process to end', () => this.#exit !== undefined, 5_000)
    }
    return this.#exit as number
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop()
  }
}
