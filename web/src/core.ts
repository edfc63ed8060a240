// The WASM core with types. It plans and writes kernels; it has no device.
import * as wasm from '../dist/core/core.js';
import { env } from './env.js';
import { messageOf, TilewrightError, type ErrorKind } from './error.js';
import type { NumericType } from './dtype.js';

/** What the core is told about device and wishes. */
export interface CoreOptions {
  readonly limits: Record<string, number>;
  readonly features: readonly string[];
  readonly cpu: boolean;
  readonly subgroup_size: readonly [number, number];
  readonly dims: Readonly<Record<string, number>>;
  readonly allow_f64_as_f32: boolean;
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

/** What a run gives for an input. */
export interface Feed {
  readonly name: string;
  readonly type: NumericType;
  readonly shape: readonly number[];
}

export interface Output {
  readonly name: string;
  readonly type: NumericType;
  readonly shape: readonly number[];
  /** The type that the device holds its elements as; `null` where the core knows it and it is not read back. */
  readonly stored: NumericType | null;
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

export interface KernelText {
  readonly label: string;
  readonly schedule: string;
  readonly source: string;
  readonly bindings: readonly GPUBufferBindingType[];
}

let loading: Promise<void> | undefined;

/** Compiles the core, once a page. A failure is not remembered. */
export function loadCore(): Promise<void> {
  loading ??= instantiate().catch((error: unknown) => {
    loading = undefined;
    throw error;
  });
  return loading;
}

async function instantiate(): Promise<void> {
  const { wasmBinary, wasmPaths } = env.wasm;
  if (wasmBinary !== undefined) {
    await wasm.default({ module_or_path: wasmBinary as ArrayBuffer });
    return;
  }
  // Bundlers know this form and bring the file along.
  let url: string | URL = new URL('./core.wasm', import.meta.url);
  if (typeof wasmPaths === 'string') url = new URL('core.wasm', new URL(wasmPaths, baseUrl()));
  else if (wasmPaths?.wasm !== undefined) url = new URL(wasmPaths.wasm, baseUrl());
  try {
    await wasm.default({ module_or_path: url.protocol === 'file:' ? await fileBytes(url) : fetch(url) });
  } catch (error) {
    throw new TilewrightError('io', `cannot load the core from ${url.href}: ${messageOf(error)}`, { cause: error });
  }
}

function baseUrl(): string {
  return (globalThis as { location?: Location }).location?.href ?? import.meta.url;
}

/** Node has no fetch for files. */
async function fileBytes(url: URL): Promise<Uint8Array<ArrayBuffer>> {
  const module = ['node', 'fs/promises'].join(':'); // so that bundlers for browsers leave it alone
  const files = (await import(/* @vite-ignore */ /* webpackIgnore: true */ module)) as {
    readFile(url: URL): Promise<Uint8Array<ArrayBuffer>>;
  };
  return files.readFile(url);
}

/** Calls into the core; its errors come as `kind`, a line break, `message`. */
function call<T>(f: () => T): T {
  try {
    return f();
  } catch (error) {
    if (typeof error === 'string') {
      const line = error.indexOf('\n');
      throw new TilewrightError(error.slice(0, line) as ErrorKind, error.slice(line + 1));
    }
    throw new TilewrightError('internal', `the core failed: ${messageOf(error)}`, { cause: error });
  }
}

function parsed<T>(f: () => string): T {
  return JSON.parse(call(f)) as T;
}

/** A model in the core. */
export class Core {
  readonly #core: wasm.Core;

  /** Parses a model; see `skeleton`. */
  constructor(model: Uint8Array, options: CoreOptions) {
    this.#core = call(() => new wasm.Core(model, JSON.stringify(options)));
  }

  describe(): { inputs: Declared[]; outputs: Declared[] } {
    return parsed(() => this.#core.describe());
  }

  /** Plans ahead of the first run, where that is possible without its inputs. */
  planAhead(): number | undefined {
    return call(() => this.#core.plan_ahead());
  }

  /** The contents of an input for the next `prepare`. */
  give(input: number, contents: Uint8Array): void {
    this.#core.give(input, contents);
  }

  /** Begins a run anew, at its first stage. */
  begin(): void {
    this.#core.begin();
  }

  /** The output of the stage prepared last: the next `prepare` is for the stage after it. */
  handOn(output: Uint8Array): void {
    call(() => this.#core.hand_on(output));
  }

  prepare(feeds: readonly Feed[]): Ready {
    return parsed(() => this.#core.prepare(JSON.stringify(feeds)));
  }

  /** The commands of the run prepared last. */
  words(): Uint32Array {
    return this.#core.words();
  }

  /** The elements of an output of the run prepared last that is known. */
  knownOutput(output: number): Uint8Array {
    return this.#core.known_output(output);
  }

  /** The commands that compute what depends on a plan's constants alone. */
  once(plan: number): Uint32Array {
    return call(() => this.#core.once(plan));
  }

  constants(plan: number): Constant[] {
    return parsed(() => this.#core.constants(plan));
  }

  /** A constant in its form on the device. */
  constant(plan: number, tensor: number): Uint8Array {
    return call(() => this.#core.constant(plan, tensor));
  }

  kernel(plan: number, number: number): KernelText {
    return parsed(() => this.#core.kernel(plan, number));
  }

  /** The name of the value that a step computes. */
  stepOutput(plan: number, step: number): string {
    return call(() => this.#core.step_output(plan, step));
  }

  planText(plan: number): string {
    return call(() => this.#core.plan_text(plan));
  }

  readRecords(lines: string): void {
    this.#core.read_records(lines);
  }

  /** The kernels of the run prepared last. */
  jobs(stepNs: Float64Array): JobText[] {
    return parsed(() => this.#core.jobs(stepNs));
  }

  /** Begins the race of a job's candidates. */
  race(job: number, budgetMs: number, mostCandidates: number): void {
    call(() => this.#core.race(job, budgetMs, mostCandidates));
  }

  /** What to do next, with its commands in `words`; `null` when the race is over. */
  raceNext(spentMs: number): RaceStep | null {
    return parsed(() => this.#core.race_next(spentMs));
  }

  raceChecked(output: Uint8Array, elapsedNs: number): void {
    call(() => this.#core.race_checked(output, elapsedNs));
  }

  raceSampled(ns: number): void {
    call(() => this.#core.race_sampled(ns));
  }

  raceFailed(why: string): void {
    call(() => this.#core.race_failed(why));
  }

  raceTrials(): TrialText[] {
    return parsed(() => this.#core.race_trials());
  }

  /** Ends the race; its record. */
  raceEnd(unixSeconds: number): string {
    return call(() => this.#core.race_end(unixSeconds));
  }

  free(): void {
    this.#core.free();
  }
}

/** `count` elements of one type as another: between ONNX's form and the device's. */
export function convert(name: string, from: NumericType, bytes: Uint8Array, to: NumericType, count: number): Uint8Array {
  return from === to ? bytes : call(() => wasm.convert(name, from, bytes, to, count));
}
