// The WASM core with types. It plans and writes kernels; it has no device.
import * as wasm from '../dist/core/core.js';
import { type CallCore, openCoreThread } from './core-thread.js';
import { env } from './env.js';
import { messageOf, TilewrightError, type ErrorKind } from './error.js';
import type { NumericType } from './dtype.js';
import type { SubgroupMatrix } from './gpu.js';

/** What the core is told about device and wishes. */
export interface CoreOptions {
  readonly limits: Record<string, number>;
  readonly features: readonly string[];
  readonly cpu: boolean;
  readonly subgroup_size: readonly [number, number];
  readonly subgroup_matrices: readonly SubgroupMatrix[];
  readonly dims: Readonly<Record<string, number>>;
  readonly allow_f64_as_f32: boolean;
  readonly f16_sums: boolean;
  readonly adapter: string;
  readonly driver: string;
  /** What reads the WGSL. */
  readonly compiler: string;
}

/** An input or output as the model declares it; the shape is `null` where not even the rank is declared. */
export interface Declared {
  readonly name: string;
  readonly type: string;
  readonly shape: readonly (number | string)[] | null;
}

export interface Described {
  readonly inputs: readonly Declared[];
  readonly outputs: readonly Declared[];
}

/** What a run gives for an input. */
export interface Feed {
  readonly name: string;
  readonly type: NumericType;
  readonly shape: readonly number[];
  /** Whether kernels read it where it lies, in a buffer of the caller's. */
  readonly lent: boolean;
}

/** An output that is to be in a buffer of the caller's. */
export interface Stays {
  readonly output: number;
  /** The position of the lent feed whose buffer this is: the output is made there if it is an update of it. */
  readonly over: number | null;
}

export interface Output {
  readonly name: string;
  readonly type: NumericType;
  readonly shape: readonly number[];
  /** The type that the device holds its elements as; `null` where the core knows it and it is not read back. */
  readonly stored: NumericType | null;
  /** Whether kernels leave it in a buffer of the caller's, or `Commands.kept` says where it is. */
  readonly kept: boolean;
}

/** A run as the core prepares it, which inputs' contents it wants first, or that the run must begin again. */
export type Ready =
  | { readonly needs: readonly number[]; readonly again?: undefined }
  | { readonly needs?: undefined; readonly again: true }
  | {
      readonly needs?: undefined;
      readonly again?: undefined;
      readonly plan: number;
      readonly live: readonly number[];
      readonly order: readonly number[];
      /** By input of the model, the type that the device holds its elements as; `null` where no kernel reads it. */
      readonly inputs: readonly (NumericType | null)[];
      readonly by_contents: boolean;
      /** Another stage follows, once its one output was handed on. */
      readonly is_stage: boolean;
      readonly outputs: readonly Output[];
    };

/** A constant of a plan, in a file or, without a place, in the core. */
export interface Constant {
  readonly tensor: number;
  readonly name: string;
  readonly type: NumericType;
  /** The type that the device holds its elements as. */
  readonly stored: NumericType;
  readonly elements: number;
  readonly device_bytes: number;
  readonly place: { readonly file: string; readonly offset: number; readonly bytes: number } | null;
}

/** A kernel worth tuning. */
export interface JobText {
  readonly label: string;
  readonly output: string;
  /** The first of the plan's steps that it is. */
  readonly step: number;
  readonly uses: number;
  readonly total_ns: number;
  /** What a dispatch must do at the least: operations of floats, and bytes moved. */
  readonly flops: number;
  readonly bytes: number;
}

/** What the adapter can do at best, as measured: bytes moved and operations per nanosecond, nanoseconds per dispatch. */
export interface Peaks {
  readonly copy_bytes_per_ns: number;
  readonly f32_flops_per_ns: number;
  readonly f16_flops_per_ns: number | null;
  readonly launch_ns: number;
}

/** A kernel that measures one of them. */
export interface ProbeText {
  readonly label: string;
  readonly source: string;
  readonly bindings: readonly GPUBufferBindingType[];
  readonly buffer_bytes: readonly number[];
  readonly workgroups: number;
}

/** A candidate and what was measured of it. */
export interface TrialText {
  readonly schedule: string;
  /** `Measured`, `Dropped`, `Unmeasured`, or why it cannot win. */
  readonly status: string | Readonly<Record<string, string>>;
  readonly best_ns: number | null;
  readonly samples_ns: readonly number[];
  readonly compile_ns: number;
}

/** What to do next in a race. */
export interface RaceStep {
  readonly trial: number;
  readonly schedule: string;
  /** Take its output; else time it. */
  readonly check: boolean;
  readonly guess_ns: number | null;
}

/** The next run of the finals. */
export interface Heat {
  /** Time the run, not its dispatches. */
  readonly whole: boolean;
  /** Nothing but defaults: it cannot fail. */
  readonly is_default: boolean;
}

/** What came of the finals. */
export interface FinalsEnded {
  /** By job; times of all its dispatches in a run by default and under the winner, where both are known. */
  readonly kernels: readonly { readonly trials: readonly TrialText[]; readonly in_model_ns: readonly [number, number] | null }[];
  /** A run by default and under the winners. */
  readonly whole_ns: readonly [number, number];
  readonly records: string;
}

export interface KernelText {
  readonly label: string;
  readonly schedule: string;
  readonly source: string;
  readonly bindings: readonly GPUBufferBindingType[];
}

let loading: Promise<CallCore> | undefined;
let cores = 0;

/** Compiles the core, once a page, and says how cores are called. A failure is not remembered. */
export function loadCore(): Promise<CallCore> {
  loading ??= instantiate().catch((error: unknown) => {
    loading = undefined;
    throw error;
  });
  return loading;
}

/** The module is compiled once; the thread that asks has its own instance, for `convert`. */
async function instantiate(): Promise<CallCore> {
  const module = await compiled();
  await wasm.default({ module_or_path: module });
  return openCoreThread(module);
}

async function compiled(): Promise<WebAssembly.Module> {
  const { wasmBinary, wasmPaths } = env.wasm;
  if (wasmBinary !== undefined) return WebAssembly.compile(wasmBinary as ArrayBuffer);
  // Bundlers know this form and bring the file along.
  let url: string | URL = new URL('./core.wasm', import.meta.url);
  if (typeof wasmPaths === 'string') url = new URL('core.wasm', new URL(wasmPaths, baseUrl()));
  else if (wasmPaths?.wasm !== undefined) url = new URL(wasmPaths.wasm, baseUrl());
  try {
    if (url.protocol === 'file:') return await WebAssembly.compile(await fileBytes(url));
    const response = await fetch(url);
    if (!response.ok) throw new Error(`${response.status} ${response.statusText}`);
    // Streaming wants the right type, which not every server says.
    const type = response.headers.get('content-type') ?? '';
    const isWasm = type.startsWith('application/wasm');
    if (type.startsWith('text/html')) {
      throw new Error('the server answers with a page; Vite\'s development server wants optimizeDeps.exclude to name this package');
    }
    return await (isWasm ? WebAssembly.compileStreaming(response) : WebAssembly.compile(await response.arrayBuffer()));
  } catch (error) {
    throw new TilewrightError('io', `cannot load the core from ${url.href}: ${messageOf(error)}`, { cause: error });
  }
}

function baseUrl(): string {
  return (globalThis as { location?: Location }).location?.href ?? import.meta.url;
}

/** Node has no fetch for files. Its module is asked for in this way as bundlers for browsers would look for an import. */
function fileBytes(url: URL): Promise<Uint8Array<ArrayBuffer>> {
  const { process } = globalThis as { process?: { getBuiltinModule?(name: 'node:fs/promises'): Files } };
  const files = process?.getBuiltinModule?.('node:fs/promises');
  if (files === undefined) throw new Error('files can be read under Node 20.16 and later only');
  return files.readFile(url);
}

interface Files {
  readFile(url: URL): Promise<Uint8Array<ArrayBuffer>>;
}

/** What a call into the core threw; its own errors come as `kind`, a line break, `message`. */
function failed(error: unknown): TilewrightError {
  const line = typeof error === 'string' ? error.indexOf('\n') : -1;
  if (typeof error === 'string' && line > 0) return new TilewrightError(error.slice(0, line) as ErrorKind, error.slice(line + 1));
  if (error instanceof TilewrightError) return error;
  return new TilewrightError('internal', `the core failed: ${messageOf(error)}`, { cause: error });
}

/** A model in the core. */
export class Core {
  readonly #number = cores++;

  private constructor(private readonly callCore: CallCore) {}

  /** Parses a model; see `skeleton`. */
  static async open(model: Uint8Array, options: CoreOptions): Promise<Core> {
    const core = new Core(await loadCore());
    await core.#call('new', model, JSON.stringify(options));
    return core;
  }

  async #call<T>(method: string, ...args: readonly unknown[]): Promise<T> {
    try {
      return (await this.callCore({ core: this.#number, method, args })) as T;
    } catch (error) {
      throw failed(error);
    }
  }

  async #parsed<T>(method: string, ...args: readonly unknown[]): Promise<T> {
    return JSON.parse(await this.#call<string>(method, ...args)) as T;
  }

  describe(): Promise<Described> {
    return this.#parsed('describe');
  }

  /** Plans ahead of the first run, where that is possible without its inputs. */
  planAhead(): Promise<number | undefined> {
    return this.#call('plan_ahead');
  }

  /** The contents of an input for the next `prepare`. */
  give(input: number, contents: Uint8Array): Promise<void> {
    return this.#call('give', input, contents);
  }

  /** Begins a run anew, at its first stage. */
  begin(): Promise<void> {
    return this.#call('begin');
  }

  /** The next output of the stage prepared last; after all of them the next `prepare` is for the stage behind it. */
  handOn(output: Uint8Array): Promise<void> {
    return this.#call('hand_on', output);
  }

  prepare(feeds: readonly Feed[], stay: readonly Stays[]): Promise<Ready> {
    return this.#parsed('prepare', JSON.stringify(feeds), JSON.stringify(stay));
  }

  /** The commands of the run prepared last. */
  words(): Promise<Uint32Array> {
    return this.#call('words');
  }

  /** The elements of an output of the run prepared last that is known. */
  knownOutput(output: number): Promise<Uint8Array> {
    return this.#call('known_output', output);
  }

  /** The commands that compute what depends on a plan's constants alone. */
  once(plan: number): Promise<Uint32Array> {
    return this.#call('once', plan);
  }

  constants(plan: number): Promise<Constant[]> {
    return this.#parsed('constants', plan);
  }

  /** A constant in its form on the device. */
  constant(plan: number, tensor: number): Promise<Uint8Array> {
    return this.#call('constant', plan, tensor);
  }

  kernel(plan: number, number: number): Promise<KernelText> {
    return this.#parsed('kernel', plan, number);
  }

  /** The name of the value that a step computes. */
  stepOutput(plan: number, step: number): Promise<string> {
    return this.#call('step_output', plan, step);
  }

  planText(plan: number): Promise<string> {
    return this.#call('plan_text', plan);
  }

  readRecords(lines: string): Promise<void> {
    return this.#call('read_records', lines);
  }

  /** The adapter's peaks, where they are known. */
  peaks(): Promise<Peaks | null> {
    return this.#parsed('peaks');
  }

  /** The kernels that measure them. */
  probes(): Promise<ProbeText[]> {
    return this.#parsed('probes');
  }

  /** What a dispatch of each probe took; the record. */
  probed(ns: Float64Array, unixSeconds: number): Promise<string> {
    return this.#call('probed', ns, unixSeconds);
  }

  /** The kernels of the run prepared last. */
  jobs(stepNs: readonly number[]): Promise<JobText[]> {
    return this.#parsed('jobs', new Float64Array(stepNs));
  }

  /** Begins the race of a job's candidates. */
  race(job: number, budgetMs: number, mostCandidates: number): Promise<void> {
    return this.#call('race', job, budgetMs, mostCandidates);
  }

  /** What to do next, with its commands in `words`; `null` when the race is over. */
  raceNext(spentMs: number): Promise<RaceStep | null> {
    return this.#parsed('race_next', spentMs);
  }

  raceChecked(output: Uint8Array, elapsedNs: number): Promise<void> {
    return this.#call('race_checked', output, elapsedNs);
  }

  raceSampled(ns: number): Promise<void> {
    return this.#call('race_sampled', ns);
  }

  raceFailed(why: string): Promise<void> {
    return this.#call('race_failed', why);
  }

  raceTrials(): Promise<TrialText[]> {
    return this.#parsed('race_trials');
  }

  /** Ends the race: runs use its winner until the finals say otherwise. */
  raceEnd(unixSeconds: number): Promise<void> {
    return this.#call('race_end', unixSeconds);
  }

  /** Begins the finals. Times of a kernel's dispatches say something from `shortestNs` on; without it there are none. */
  finals(shortestNs: number | undefined): Promise<void> {
    return this.#call('finals', shortestNs);
  }

  /** The next run to time, with its commands in `words`; `null` when all is decided. */
  finalsNext(isLate: boolean): Promise<Heat | null> {
    return this.#parsed('finals_next', isLate);
  }

  /** Nanoseconds of each dispatch, or of the whole. */
  finalsTimed(timesNs: readonly number[]): Promise<void> {
    return this.#call('finals_timed', new Float64Array(timesNs));
  }

  finalsFailed(why: string): Promise<void> {
    return this.#call('finals_failed', why);
  }

  finalsEnd(): Promise<FinalsEnded> {
    return this.#parsed('finals_end');
  }

  free(): Promise<void> {
    return this.#call('free');
  }
}

/** `count` elements of one type as another: between ONNX's form and the device's. */
export function convert(name: string, from: NumericType, bytes: Uint8Array, to: NumericType, count: number): Uint8Array {
  if (from === to) return bytes;
  try {
    return wasm.convert(name, from, bytes, to, count);
  } catch (error) {
    throw failed(error);
  }
}
