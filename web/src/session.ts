import { timed } from './clock.js';
import { loadCore } from './core.js';
import { DeviceModel, preparing } from './device.js';
import { log } from './env.js';
import { messageOf, TilewrightError, unsupported } from './error.js';
import { type Gpu, lostError, openGpu, until } from './gpu.js';
import { idleAndSeen } from './idle.js';
import { makeUp, staying, withoutBuffers } from './lend.js';
import { type ModelFiles, openModel } from './model.js';
import { checkRunOptions, checkSessionOptions, type RunOptions, type SessionOptions } from './options.js';
import type { Run } from './plan.js';
import { importRecords } from './records.js';
import type { Flight, Given } from './run.js';
import type { FileLike } from './source.js';
import { submitAll } from './stages.js';
import type { Tensor } from './tensor.js';
import { tune, type Tuned, type TuneOptions, type TuneReport } from './tuner.js';
import { areFetches, type Feeds, type Fetches, givenAhead, givenOf, metadata, type ValueMetadata, wantedOf } from './values.js';

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
  /** None once the session is released. */
  #model: DeviceModel | undefined;
  /** What the last run was given: what is tuned. */
  #last: readonly Given[] | undefined;
  #tuned = false;
  /** Preparing and submitting go one after another; waiting for results does not. */
  #queue: Promise<unknown> = Promise.resolve();

  private constructor(files: ModelFiles, options: SessionOptions, model: DeviceModel) {
    super();
    this.#files = files;
    this.#options = options;
    this.#model = model;
    this.#watch(model.gpu);
    this.inputMetadata = model.declared.inputs.map(metadata);
    this.outputMetadata = model.declared.outputs.map(metadata);
    this.inputNames = this.inputMetadata.map(({ name }) => name);
    this.outputNames = this.outputMetadata.map(({ name }) => name);
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
    const session = new InferenceSession(files, options, await DeviceModel.open(gpu, files, options));
    session.#compileAhead();
    return session;
  }

  /** Where the inputs' shapes are known, kernels are compiled while the caller gets the inputs ready. */
  #compileAhead(): void {
    const given = givenAhead(this.inputMetadata, this.#options);
    if (given === undefined) return;
    // What fails now fails in the run, which says it.
    const stay = staying(given, wantedOf(this.outputNames, undefined, this.#options));
    this.#inTurn((model) => model.first(given, stay, preparing(this.#options, undefined))).catch(() => {});
  }

  /** Runs the model. Tensors in GPU buffers are read, and filled, where they lie; `Fetches` says when in place. */
  run(feeds: Feeds, options?: RunOptions): Promise<Record<string, Tensor>>;
  run(feeds: Feeds, fetches: Fetches, options?: RunOptions): Promise<Record<string, Tensor>>;
  async run(feeds: Feeds, second?: Fetches | RunOptions, third?: RunOptions): Promise<Record<string, Tensor>> {
    const isFetches = third !== undefined || areFetches(this.outputNames, second);
    const options = (isFetches ? third : (second as RunOptions | undefined)) ?? {};
    checkRunOptions(options);
    const wanted = wantedOf(this.outputNames, isFetches ? (second as Fetches) : undefined, this.#options);
    const given = givenOf(feeds);
    const { signal } = options;
    signal?.throwIfAborted();
    const submitted = () =>
      this.#inTurn(async (model) => {
        this.#last = withoutBuffers(given);
        return (await submitAll(model, given, wanted, preparing(this.#options, signal))).flight;
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
    const given = givenOf(feeds);
    return this.#inTurn(async (model) => {
      const { gpu, core } = model;
      const found: { kernel: string; output: string; ns: number }[] = [];
      const onStage = async ({ plan }: Run, { dispatches }: Flight) => {
        const times = await timed(gpu, dispatches.map((dispatch) => [dispatch]));
        const outputs = await Promise.all(dispatches.map(({ step }) => core.stepOutput(plan.number, step)));
        dispatches.forEach(({ pipeline }, i) => found.push({ kernel: pipeline.label, output: outputs[i] ?? '', ns: times[i] ?? 0 }));
      };
      const { run, flight } = await submitAll(model, given, [], preparing(this.#options, undefined), onStage);
      await flight.outputs;
      await onStage(run, flight);
      return found;
    });
  }

  /** The plan of the last run (the first stage's, where it has several), and its kernels with their schedules and WGSL. */
  async explain(): Promise<{ plan: string; kernels: readonly { label: string; schedule: string; wgsl: string }[] }> {
    return this.#inTurn(async (model) => {
      const { core } = model;
      const run = await model.first(this.#given(), [], preparing(this.#options, undefined));
      const numbers = new Set(run.recording.dispatches().map(({ kernel }) => kernel));
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
    const { signal } = options;
    const inTurn = async <T>(work: (tuned: Tuned) => Promise<T>): Promise<T> => {
      await idle();
      return this.#inTurn(async (model) => {
        const run = () => model.first(this.#given(), [], preparing(this.#options, signal), true);
        return work({ gpu: model.gpu, core: model.core, run, preparing: preparing({}, signal) });
      });
    };
    await inTurn(async ({ gpu, run, preparing }) => makeUp(gpu, await run(preparing), this.#given()));
    const report = await tune(inTurn, options);
    await importRecords(report.records);
    return report;
  }

  async #tuneInBackground(): Promise<void> {
    try {
      await this.#tune(this.#budget(), idleAndSeen);
    } catch (error) {
      if (this.#model !== undefined) log('warning', `tuning in the background ended: ${messageOf(error)}`);
    }
  }

  /** Frees everything that the session holds on the device. */
  async release(): Promise<void> {
    await this.#queued(async () => {
      this.#model?.close();
      this.#model = undefined;
    });
  }

  /** Resolves when the device in use is lost. */
  get lost(): Promise<GPUDeviceLostInfo> {
    return this.#model?.gpu.device.lost ?? Promise.reject(released());
  }

  #watch({ device }: Gpu): void {
    void device.lost.then(() => {
      if (this.#model !== undefined) this.dispatchEvent(new Event('devicelost'));
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

  #queued<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#queue.then(work);
    this.#queue = result.catch(() => {});
    return result;
  }

  /** Does `work` with the model, on a new device after a loss. */
  #inTurn<T>(work: (model: DeviceModel) => Promise<T>): Promise<T> {
    return this.#queued(async () => work(await this.#ready()));
  }

  async #ready(): Promise<DeviceModel> {
    const model = this.#model;
    if (model === undefined) throw released();
    const { lost } = model.gpu;
    if (lost === undefined) return model;
    if (this.#options.recover === false) throw lostError(lost);
    model.close();
    this.#model = await DeviceModel.open(await openGpu(), this.#files, this.#options);
    this.#watch(this.#model.gpu);
    return this.#model;
  }
}

function released(): TilewrightError {
  return new TilewrightError('released', 'the session was released');
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
