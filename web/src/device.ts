// Everything of a session that is on a device, and with it the core: after a loss, all of it is made anew.
import { Core, type Described, type Feed, type Stays } from './core.js';
import { log } from './env.js';
import { TilewrightError } from './error.js';
import { featuresOf, type Gpu, limitsOf, type SubgroupMatrix, Turns } from './gpu.js';
import type { ModelFiles } from './model.js';
import type { SessionOptions } from './options.js';
import { HostPlan, type Preparing, recorded, type Run } from './plan.js';
import { exportRecords } from './records.js';
import type { Given } from './run.js';
import { Staging } from './staging.js';
import { Weights } from './weights.js';

/** A model on a device. */
export class DeviceModel {
  readonly weights: Weights;
  readonly staging: Staging;
  readonly #plans = new Map<number, HostPlan>();
  /** What the core prepared last. */
  #last: string | undefined;

  private constructor(
    readonly gpu: Gpu,
    readonly core: Core,
    files: ModelFiles,
    readonly declared: Described,
  ) {
    this.weights = new Weights(gpu, files.file);
    this.staging = new Staging(gpu.device);
  }

  /** Gives the model to a core and, where it can be planned without inputs, begins to upload its weights. */
  static async open(gpu: Gpu, files: ModelFiles, options: SessionOptions): Promise<DeviceModel> {
    const core = await Core.open(files.skeleton, {
      ...described(gpu),
      subgroup_matrices: subgroupMatrices(gpu, options),
      dims: options.freeDimensionOverrides ?? {},
      allow_f64_as_f32: options.allowFloat64AsFloat32 ?? false,
      f16_sums: options.float16Sums ?? false,
    });
    await core.readRecords(await exportRecords());
    const model = new DeviceModel(gpu, core, files, await core.describe());
    try {
      const plan = await core.planAhead();
      if (plan !== undefined) await model.#plan(plan, preparing(options, options.signal));
    } catch (error) {
      model.close();
      throw error;
    }
    return model;
  }

  close(): void {
    for (const plan of this.#plans.values()) plan.destroy();
    this.weights.destroy();
    this.staging.destroy();
    this.core.free().catch(() => {}); // of a worker that failed
  }

  /**
   * The commands for such inputs and outputs that stay on the device, or for the first stage of them: recorded before, or
   * prepared now. With `inCore` they are those that the core prepared last.
   */
  async first(given: readonly Given[], stay: readonly Stays[], preparing: Preparing, inCore = false): Promise<Run> {
    const key = keyOf(given, stay);
    for (const plan of this.#plans.values()) {
      const run = plan.runs.get(key);
      if (run !== undefined && (!inCore || this.#last === key)) return run;
    }
    await this.core.begin();
    const run = await this.#prepared(given, stay, preparing, key);
    if (run === undefined) throw new TilewrightError('internal', 'a run wants to begin again at its beginning');
    return run;
  }

  /** The commands for the stage that is next; none where the run must begin again. */
  next(given: readonly Given[], stay: readonly Stays[], preparing: Preparing): Promise<Run | undefined> {
    return this.#prepared(given, stay, preparing, `${keyOf(given, stay)};later`);
  }

  async #prepared(given: readonly Given[], stay: readonly Stays[], preparing: Preparing, key: string): Promise<Run | undefined> {
    const feeds = given.map(({ name, type, dims, lent }): Feed => ({ name, type, shape: dims, lent }));
    const { core } = this;
    let ready = await core.prepare(feeds, stay);
    while (ready.needs !== undefined) {
      for (const input of ready.needs) await core.give(input, this.#contents(input, given));
      ready = await core.prepare(feeds, stay);
    }
    if (ready.again) return undefined;
    const plan = await this.#plan(ready.plan, preparing);
    const kept = new Set(ready.live);
    for (const [number, old] of this.#plans) {
      if (kept.has(number)) continue;
      this.#plans.delete(number);
      old.destroy();
    }
    this.weights.retain(kept);
    const run = await recorded(core, plan, { ...ready, isStage: ready.is_stage }, preparing);
    this.#last = key;
    // What depends on contents or on earlier stages, or is a stage, is asked of the core every time.
    plan.keep(ready.by_contents || ready.is_stage ? `${key};last` : key, run);
    return run;
  }

  async #plan(number: number, preparing: Preparing): Promise<HostPlan> {
    let plan = this.#plans.get(number);
    if (plan === undefined) {
      const made = await HostPlan.make(this.gpu, this.core, number, this.weights, preparing);
      this.#plans.set(number, made);
      made.ready.catch(() => {
        // Those who wait for it are told; the next run makes another.
        if (this.#plans.get(number) === made) this.#plans.delete(number);
        made.destroy();
      });
      plan = made;
    }
    return plan;
  }

  #contents(input: number, given: readonly Given[]): Uint8Array {
    const name = this.declared.inputs[input]?.name;
    const data = given.find((feed) => feed.name === name)?.data;
    if (data === undefined) {
      throw new TilewrightError('input', `input ${JSON.stringify(name)}: the plan depends on its elements, which must be in memory`);
    }
    return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  }
}

/** What recorded commands are good for. */
function keyOf(given: readonly Given[], stay: readonly Stays[]): string {
  const feeds = given.map(({ name, type, dims, lent }) => `${name}:${type}:${dims.join()}:${lent}`);
  return [...feeds, ...stay.map(({ output, over }) => `${output}:${over}`)].join(';');
}

/** Tells the caller how far preparing has got. */
export function preparing({ onProgress }: SessionOptions, signal: AbortSignal | undefined): Preparing {
  return {
    turns: new Turns(signal),
    onUpload: (done, total) => onProgress?.({ stage: 'upload', done, total }),
    onCompile: (done, total) => onProgress?.({ stage: 'compile', done, total }),
  };
}

/** Those that kernels may use: as long as they are an experiment of one browser, none unless asked for. */
function subgroupMatrices({ subgroupMatrices }: Gpu, { experimental }: SessionOptions): readonly SubgroupMatrix[] {
  if (experimental?.subgroupMatrices !== true) return [];
  if (subgroupMatrices.length === 0) log('warning', 'experimental.subgroupMatrices: this browser or GPU has none; kernels do without');
  return subgroupMatrices;
}

/** The device as the core knows it. */
function described({ device, info, cpu }: Gpu) {
  const { subgroupMinSize = 0, subgroupMaxSize = 0 } = info as GPUAdapterInfo & { subgroupMinSize?: number; subgroupMaxSize?: number };
  return {
    limits: limitsOf(device),
    features: featuresOf(device),
    cpu,
    subgroup_size: device.features.has('subgroups') ? ([subgroupMinSize, subgroupMaxSize] as const) : ([0, 0] as const),
    adapter: adapterName(info),
    driver: '',
    compiler: compilerName(),
  };
}

function adapterName({ vendor, architecture, device, description }: GPUAdapterInfo): string {
  return [vendor, architecture, device, description].filter((part) => part !== '').join(' ');
}

/** The browser compiles shaders; its version stands for the compiler's. */
function compilerName(): string {
  const agent = globalThis.navigator?.userAgent ?? '';
  return /(?:Firefox|Chrome|Version)\/\d+/.exec(agent)?.[0] ?? agent;
}
