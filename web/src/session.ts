import { timed } from './clock.js';
import { Core, type Declared, type Described, type Feed, loadCore } from './core.js';
import { isNumericType, type NumericType, numericType } from './dtype.js';
import { log } from './env.js';
import { messageOf, TilewrightError, unsupported } from './error.js';
import { type Gpu, featuresOf, limitsOf, lostError, openGpu, Turns, until } from './gpu.js';
import { type ModelFiles, openModel } from './model.js';
import { checkRunOptions, checkSessionOptions, type RunOptions, type SessionOptions } from './options.js';
import { HostPlan, type Preparing, recorded, type Run } from './plan.js';
import { exportRecords, importRecords } from './records.js';
import type { Given, Wanted } from './run.js';
import type { FileLike } from './source.js';
import { type Running, submitAll } from './stages.js';
import { Staging } from './staging.js';
import { Tensor } from './tensor.js';
import { tune, type Tuned, type TuneOptions, type TuneReport } from './tuner.js';
import { Weights } from './weights.js';

/** An input or output as the model declares it. */
export interface ValueMetadata {
  readonly name: string;
  readonly isTensor: true;
  readonly type: string;
  /** Numbers, and symbols by name; '' for a size of which nothing is said. */
  readonly shape: readonly (number | string)[];
}

/** A tensor of this package or of another with onnxruntime-common's interface. */
export interface TensorLike {
  readonly type: string;
  readonly dims: readonly number[];
  readonly location?: string;
  readonly data?: unknown;
  readonly gpuBuffer?: GPUBuffer;
}

/** Inputs by name. */
export type Feeds = Readonly<Record<string, TensorLike>>;

/** Outputs by name: those wanted, or with `null` or a tensor to fill. */
export type Fetches = readonly string[] | Readonly<Record<string, Tensor | null>>;

/** Everything of a session that is on a device. */
interface Device {
  readonly gpu: Gpu;
  readonly core: Core;
  readonly weights: Weights;
  readonly staging: Staging;
  readonly plans: Map<number, HostPlan>;
  /** What the core prepared last. */
  last: string | undefined;
}

/**
 * A model ready to run. Several runs, and several sessions, may be under way at once. Dispatches `devicelost` whenever
 * its device is lost; the next run makes a new one, unless `recover` is off.
 */
export class InferenceSession extends EventTarget {
  /** The inputs' names, in the model's order. */
  readonly inputNames: readonly string[];
  /** The outputs' names, in the model's order. */
  readonly outputNames: readonly string[];
  readonly inputMetadata: readonly ValueMetadata[];
  readonly outputMetadata: readonly ValueMetadata[];

  readonly #files: ModelFiles;
  readonly #options: SessionOptions;
  #device: Device | undefined;
  #released = false;
  /** What the last run was given: what is tuned. */
  #last: readonly Given[] | undefined;
  #tuned = false;
  /** Preparing and submitting go one after another; waiting for results does not. */
  #queue: Promise<unknown> = Promise.resolve();

  private constructor(files: ModelFiles, options: SessionOptions, device: Device, { inputs, outputs }: Described) {
    super();
    this.#files = files;
    this.#options = options;
    this.#device = device;
    this.#watch(device);
    this.inputMetadata = inputs.map(metadata);
    this.outputMetadata = outputs.map(metadata);
    this.inputNames = inputs.map(({ name }) => name);
    this.outputNames = outputs.map(({ name }) => name);
  }

  /** Loads a model: its file, or its URL. */
  static create(model: FileLike, options?: SessionOptions): Promise<InferenceSession>;
  /** Loads a model from a part of a buffer. */
  static create(buffer: ArrayBufferLike, offset: number, length?: number, options?: SessionOptions): Promise<InferenceSession>;
  static async create(model: FileLike, ...rest: readonly unknown[]): Promise<InferenceSession> {
    const [file, options] = parts(model, rest);
    checkSessionOptions(options);
    options.signal?.throwIfAborted();
    const [gpu, files] = await Promise.all([openGpu(), openModel(file, options), loadCore()]);
    const device = await openDevice(gpu, files, options);
    const session = new InferenceSession(files, options, device, await device.core.describe());
    session.#compileAhead();
    return session;
  }

  /** Where the inputs' shapes are known, kernels are compiled while the caller gets the inputs ready. */
  #compileAhead(): void {
    const { freeDimensionOverrides = {} } = this.#options;
    const given = this.inputMetadata.map(({ name, type, shape }): Given => {
      const dims = shape.map((dim) => (typeof dim === 'number' ? dim : (freeDimensionOverrides[dim] ?? -1)));
      return { name, type: type as NumericType, dims, data: undefined, gpuBuffer: undefined };
    });
    if (!given.every(({ type, dims }) => isNumericType(type) && dims.every((size) => size >= 0))) return;
    // What fails now fails in the run, which says it.
    this.#inTurn(async () => this.#first(await this.#ready(), given, undefined)).catch(() => {});
  }

  /** Runs the model. */
  run(feeds: Feeds, options?: RunOptions): Promise<Record<string, Tensor>>;
  run(feeds: Feeds, fetches: Fetches, options?: RunOptions): Promise<Record<string, Tensor>>;
  async run(feeds: Feeds, second?: Fetches | RunOptions, third?: RunOptions): Promise<Record<string, Tensor>> {
    const isFetches = third !== undefined || this.#areFetches(second);
    const options = (isFetches ? third : (second as RunOptions | undefined)) ?? {};
    checkRunOptions(options);
    const wanted = this.#wanted(isFetches ? (second as Fetches) : undefined);
    const given = Object.entries(feeds).map(([name, tensor]) => checked(name, tensor));
    const { signal } = options;
    signal?.throwIfAborted();
    const submitted = () =>
      this.#inTurn(async () => {
        const device = await this.#ready();
        this.#last = given;
        return (await submitAll(this.#running(device, given, signal), given, wanted)).flight;
      });
    let flight = await submitted();
    const { tuning = 'off' } = this.#options;
    if (tuning !== 'off' && !this.#tuned) {
      this.#tuned = true;
      await flight.outputs;
      if (tuning === 'full') {
        await this.tune({ ...this.#budget(), ...(signal && { signal }) });
        flight = await submitted();
      } else {
        void this.#tuneInBackground();
      }
    }
    return until(flight.outputs, signal);
  }

  /**
   * Measures the candidates of every kernel of the last run, keeps the winners for the next, and the records in
   * IndexedDB for later sessions. Runs go on meanwhile.
   */
  async tune(options: TuneOptions = {}): Promise<TuneReport> {
    return this.#tune(options, async () => {});
  }

  /** Runs once and times every dispatch; what it computes is thrown away. */
  async profile(feeds: Feeds): Promise<readonly { kernel: string; output: string; ns: number }[]> {
    const given = Object.entries(feeds).map(([name, tensor]) => checked(name, tensor));
    return this.#inTurn(async () => {
      const device = await this.#ready();
      const { gpu, core } = device;
      const found: { kernel: string; output: string; ns: number }[] = [];
      const onStage = async ({ plan, recording: { dispatches } }: Run) => {
        const times = await timed(gpu, dispatches.map((dispatch) => [dispatch]));
        const outputs = await Promise.all(dispatches.map(({ step }) => core.stepOutput(plan.number, step)));
        dispatches.forEach(({ pipeline }, i) => found.push({ kernel: pipeline.label, output: outputs[i] ?? '', ns: times[i] ?? 0 }));
      };
      const { run, flight } = await submitAll({ ...this.#running(device, given, undefined), onStage }, given, []);
      await flight.outputs;
      await onStage(run);
      return found;
    });
  }

  /** The plan of the last run (the first stage's, where it has several), and its kernels with their schedules and WGSL. */
  async explain(): Promise<{ plan: string; kernels: readonly { label: string; schedule: string; wgsl: string }[] }> {
    return this.#inTurn(async () => {
      const device = await this.#ready();
      const { core } = device;
      const run = await this.#first(device, this.#given(), undefined);
      const numbers = new Set(run.recording.dispatches.map(({ kernel }) => kernel));
      const texts = await Promise.all([...numbers].map((number) => core.kernel(run.plan.number, number)));
      const kernels = texts.map(({ label, schedule, source }) => ({ label, schedule, wgsl: source }));
      return { plan: await core.planText(run.plan.number), kernels };
    });
  }

  #given(): readonly Given[] {
    return this.#last ?? unsupported('tune and explain before the first run');
  }

  #budget(): { budgetMs?: number } {
    const { tuningBudgetMs } = this.#options;
    return tuningBudgetMs === undefined ? {} : { budgetMs: tuningBudgetMs };
  }

  async #tune(options: TuneOptions, idle: () => Promise<void>): Promise<TuneReport> {
    const inTurn = async <T>(work: (tuned: Tuned) => Promise<T>): Promise<T> => {
      await idle();
      return this.#inTurn(async () => {
        const device = await this.#ready();
        const run = () => this.#first(device, this.#given(), options.signal, true);
        return work({ gpu: device.gpu, core: device.core, run, preparing: progress({}, options.signal) });
      });
    };
    const report = await tune(inTurn, options);
    await importRecords(report.records);
    return report;
  }

  async #tuneInBackground(): Promise<void> {
    try {
      await this.#tune(this.#budget(), idleAndSeen);
    } catch (error) {
      if (!this.#released) log('warning', `tuning in the background ended: ${messageOf(error)}`);
    }
  }

  /** Frees everything that the session holds on the device. */
  async release(): Promise<void> {
    await this.#inTurn(async () => {
      this.#released = true;
      if (this.#device !== undefined) close(this.#device);
      this.#device = undefined;
    });
  }

  /** Resolves when the device in use is lost. */
  get lost(): Promise<GPUDeviceLostInfo> {
    return this.#device?.gpu.device.lost ?? Promise.reject(new TilewrightError('released', 'the session was released'));
  }

  #watch({ gpu }: Device): void {
    void gpu.device.lost.then(() => {
      if (!this.#released) this.dispatchEvent(new Event('devicelost'));
    });
  }

  /** onnxruntime-common's; use `profile`. */
  startProfiling(): never {
    return unsupported('startProfiling; use profile()');
  }

  /** onnxruntime-common's; use `profile`. */
  endProfiling(): never {
    return unsupported('endProfiling; use profile()');
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#queue.then(work);
    this.#queue = result.catch(() => {});
    return result;
  }

  #areFetches(second: unknown): boolean {
    if (Array.isArray(second)) return true;
    if (typeof second !== 'object' || second === null) return false;
    const names = Object.keys(second);
    return names.length > 0 && names.every((name) => this.outputNames.includes(name));
  }

  #wanted(fetches: Fetches | undefined): Wanted[] {
    const preferred = this.#options.preferredOutputLocation ?? 'cpu';
    const location = (name: string) => (typeof preferred === 'string' ? preferred : (preferred[name] ?? 'cpu'));
    const want = (name: string, into?: Tensor): Wanted => {
      const output = this.outputNames.indexOf(name);
      if (output < 0) {
        const there = this.outputNames.map((name) => JSON.stringify(name)).join(', ');
        throw new TilewrightError('input', `output ${JSON.stringify(name)}: the model has no such output; it has ${there}`);
      }
      return { output, location: location(name), into };
    };
    if (fetches === undefined) return this.outputNames.map((name) => want(name));
    if (Array.isArray(fetches)) return (fetches as readonly string[]).map((name) => want(name));
    return Object.entries(fetches as Record<string, Tensor | null>).map(([name, into]) => want(name, into ?? undefined));
  }

  /** The device, a new one after a loss. */
  async #ready(): Promise<Device> {
    const device = this.#device;
    if (this.#released || device === undefined) throw new TilewrightError('released', 'the session was released');
    const { lost } = device.gpu;
    if (lost === undefined) return device;
    if (this.#options.recover === false) throw lostError(lost);
    close(device);
    this.#device = await openDevice(await openGpu(), this.#files, this.#options);
    this.#watch(this.#device);
    return this.#device;
  }

  #running(device: Device, given: readonly Given[], signal: AbortSignal | undefined): Running {
    const prepare = (isFirst: boolean) =>
      isFirst ? this.#first(device, given, signal) : this.#prepared(device, given, signal, `${keyOf(given)};later`);
    return { ...device, prepare };
  }

  /**
   * The commands for such inputs, or for the first stage of them: recorded before, or prepared now. With `inCore` they
   * are those that the core prepared last.
   */
  async #first(device: Device, given: readonly Given[], signal: AbortSignal | undefined, inCore = false): Promise<Run> {
    const key = keyOf(given);
    for (const plan of device.plans.values()) {
      const run = plan.runs.get(key);
      if (run !== undefined && (!inCore || device.last === key)) return run;
    }
    await device.core.begin();
    const run = await this.#prepared(device, given, signal, key);
    if (run === undefined) throw new TilewrightError('internal', 'a run wants to begin again at its beginning');
    return run;
  }

  /** Prepares what is next of a run: nothing where it must begin again. */
  async #prepared(device: Device, given: readonly Given[], signal: AbortSignal | undefined, key: string): Promise<Run | undefined> {
    const feeds = given.map(({ name, type, dims }): Feed => ({ name, type, shape: dims }));
    const { core } = device;
    let ready = await core.prepare(feeds);
    while (ready.needs !== undefined) {
      for (const input of ready.needs) await core.give(input, this.#contents(input, given));
      ready = await core.prepare(feeds);
    }
    if (ready.again) return undefined;
    const preparing = progress(this.#options, signal);
    const plan = await hostPlan(device, ready.plan, preparing);
    const kept = new Set(ready.live);
    for (const [number, old] of device.plans) {
      if (kept.has(number)) continue;
      device.plans.delete(number);
      old.destroy();
    }
    device.weights.retain(kept);
    const run = await recorded(core, plan, { ...ready, isStage: ready.is_stage }, preparing);
    device.last = key;
    // What depends on contents or on earlier stages, or is a stage, is asked of the core every time.
    plan.keep(ready.by_contents || ready.is_stage ? `${key};last` : key, run);
    return run;
  }

  #contents(input: number, given: readonly Given[]): Uint8Array {
    const name = this.inputNames[input];
    const data = given.find((feed) => feed.name === name)?.data;
    if (data === undefined) {
      throw new TilewrightError('input', `input ${JSON.stringify(name)}: the plan depends on its elements, which must be in memory`);
    }
    return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  }
}

/** What recorded commands are good for. */
function keyOf(given: readonly Given[]): string {
  return given.map(({ name, type, dims }) => `${name}:${type}:${dims.join()}`).join(';');
}

/** The forms of `create`. */
function parts(model: FileLike, rest: readonly unknown[]): [FileLike, SessionOptions] {
  const [first, second, third] = rest;
  if (typeof first !== 'number') return [model, (first as SessionOptions | undefined) ?? {}];
  if (!(model instanceof ArrayBuffer) && !ArrayBuffer.isView(model)) unsupported('an offset into what is no buffer');
  const buffer = model instanceof ArrayBuffer ? model : (model as Uint8Array).buffer;
  const length = typeof second === 'number' ? second : buffer.byteLength - first;
  if (first < 0 || length < 0 || first + length > buffer.byteLength) {
    throw new TilewrightError('io', `${length} bytes at ${first} do not fit the ${buffer.byteLength} bytes of the buffer`);
  }
  const options = (typeof second === 'number' ? third : second) as SessionOptions | undefined;
  return [new Uint8Array(buffer, first, length), options ?? {}];
}

async function openDevice(gpu: Gpu, files: ModelFiles, options: SessionOptions): Promise<Device> {
  const info = gpu.info as GPUAdapterInfo & { subgroupMinSize?: number; subgroupMaxSize?: number };
  const core = await Core.open(files.skeleton, {
    limits: limitsOf(gpu.device),
    features: featuresOf(gpu.device),
    cpu: gpu.cpu,
    subgroup_size: gpu.device.features.has('subgroups') ? [info.subgroupMinSize ?? 0, info.subgroupMaxSize ?? 0] : [0, 0],
    adapter: adapterName(info),
    driver: '',
    compiler: compilerName(),
    dims: options.freeDimensionOverrides ?? {},
    allow_f64_as_f32: options.allowFloat64AsFloat32 ?? false,
    f16_sums: options.float16Sums ?? false,
  });
  await core.readRecords(await exportRecords());
  const weights = new Weights(gpu, files.file);
  const device: Device = { gpu, core, weights, staging: new Staging(gpu.device), plans: new Map(), last: undefined };
  try {
    const plan = await core.planAhead();
    if (plan !== undefined) await hostPlan(device, plan, progress(options, options.signal));
  } catch (error) {
    close(device);
    throw error;
  }
  return device;
}

function close({ core, weights, staging, plans }: Device): void {
  for (const plan of plans.values()) plan.destroy();
  weights.destroy();
  staging.destroy();
  core.free().catch(() => {}); // of a worker that failed
}

async function hostPlan(device: Device, number: number, preparing: Preparing): Promise<HostPlan> {
  let plan = device.plans.get(number);
  if (plan === undefined) {
    const made = await HostPlan.make(device.gpu, device.core, number, device.weights, preparing);
    device.plans.set(number, made);
    made.ready.catch(() => {
      // Those who wait for it are told; the next run makes another.
      if (device.plans.get(number) === made) device.plans.delete(number);
      made.destroy();
    });
    plan = made;
  }
  return plan;
}

function progress({ onProgress }: SessionOptions, signal: AbortSignal | undefined): Preparing {
  return {
    turns: new Turns(signal),
    onUpload: (done, total) => onProgress?.({ stage: 'upload', done, total }),
    onCompile: (done, total) => onProgress?.({ stage: 'compile', done, total }),
  };
}

function metadata({ name, type, shape }: Declared): ValueMetadata {
  const dims = shape ?? [];
  return { name, isTensor: true, type, shape: dims.map((dim) => (dim === -1 ? '' : dim)) };
}

function checked(name: string, tensor: TensorLike): Given {
  const refuse = (message: string): never => {
    throw new TilewrightError('input', `input ${JSON.stringify(name)}: ${message}`);
  };
  if (typeof tensor !== 'object' || tensor === null || typeof tensor.type !== 'string' || !Array.isArray(tensor.dims)) {
    return refuse('is no tensor');
  }
  if (!isNumericType(tensor.type)) unsupported(`input ${JSON.stringify(name)} of type ${tensor.type}`);
  const type: NumericType = numericType(tensor.type);
  const location = tensor.location ?? 'cpu';
  if (location === 'gpu-buffer') return { name, type, dims: tensor.dims, data: undefined, gpuBuffer: tensor.gpuBuffer };
  if (location !== 'cpu' && location !== 'cpu-pinned') return refuse(`its elements are in ${location}, wanted cpu or gpu-buffer`);
  const { data } = tensor;
  if (!ArrayBuffer.isView(data)) return refuse('its data is no typed array');
  return { name, type, dims: tensor.dims, data, gpuBuffer: undefined };
}

function adapterName({ vendor, architecture, device, description }: GPUAdapterInfo): string {
  return [vendor, architecture, device, description].filter((part) => part !== '').join(' ');
}

/** The browser compiles shaders; its version stands for the compiler's. */
function compilerName(): string {
  const agent = globalThis.navigator?.userAgent ?? '';
  return /(?:Firefox|Chrome|Version)\/\d+/.exec(agent)?.[0] ?? agent;
}

/** Waits until the page is seen and has nothing to do. */
async function idleAndSeen(): Promise<void> {
  const { document, requestIdleCallback } = globalThis as { document?: Document; requestIdleCallback?: (go: () => void) => void };
  while (document?.hidden === true) {
    await new Promise<void>((seen) => document.addEventListener('visibilitychange', () => seen(), { once: true }));
  }
  await new Promise<void>((go) => (requestIdleCallback ?? setTimeout)(go));
}
