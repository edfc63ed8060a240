// A plan of the core with its memory and kernels on the device, and the runs recorded of it.
import type { Core, KernelText, Output } from './core.js';
import type { NumericType } from './dtype.js';
import { type Gpu, scoped, type Turns, until } from './gpu.js';
import { compile } from './kernels.js';
import { Recording, replay } from './recording.js';
import { type Place, STORAGE_USAGE, type Weights, write } from './weights.js';
import { type Commands, CONSTANT, decode, INPUT, type Kept, memory, OUTPUT, PARAMETERS, type Range } from './words.js';

/** A run for inputs of given shapes. */
export interface Run {
  readonly plan: HostPlan;
  readonly recording: Recording;
  /** By input of the model, its position among the feeds. */
  readonly order: readonly number[];
  /** By input of the model, the type that the device holds its elements as; `null` where no kernel reads it. */
  readonly inputs: readonly (NumericType | null)[];
  readonly outputs: readonly Output[];
  /** By output, its elements where the core knows them ... */
  readonly known: readonly (Uint8Array | undefined)[];
  /** ... and else where it is when the run is through. */
  readonly sources: readonly (Kept | undefined)[];
  /** Whether another stage follows. */
  readonly isStage: boolean;
}

/** Shapes whose recorded commands are kept. */
const RUNS_KEPT = 16;

/** How far preparing has got. */
export interface Preparing {
  readonly turns: Turns;
  readonly onUpload: (done: number, total: number) => void;
  readonly onCompile: (done: number, total: number) => void;
}

export class HostPlan {
  readonly runs = new Map<string, Run>();
  readonly #memory = new Map<number, Place>();
  readonly #owned = new Map<number, GPUBuffer>();
  readonly #pipelines: GPUComputePipeline[] = [];
  #ready: Promise<void> = Promise.resolve();

  private constructor(
    private readonly gpu: Gpu,
    private readonly core: Core,
    readonly number: number,
  ) {}

  /** Begins to upload a plan's constants; what depends on them alone is computed once they are there. */
  static async make(gpu: Gpu, core: Core, number: number, weights: Weights, preparing: Preparing): Promise<HostPlan> {
    const plan = new HostPlan(gpu, core, number);
    const { places, written } = await weights.upload(core, number, preparing.onUpload);
    written.catch(() => {}); // it is awaited in `ready`
    for (const [tensor, place] of places) plan.#memory.set(memory(CONSTANT, tensor), place);
    const commands = decode(await core.once(number));
    const once = commands.dispatches.length === 0 ? undefined : await plan.realise(commands, preparing);
    plan.#ready = written.then(() => (once === undefined ? undefined : plan.#runOnce(once)));
    plan.#ready.catch(() => {}); // it is awaited by those who want the plan
    return plan;
  }

  /** When all constants are there. Meanwhile kernels can be compiled. */
  get ready(): Promise<void> {
    return this.#ready;
  }

  async #runOnce(once: Recording): Promise<void> {
    await scoped(this.gpu, 'what depends on constants alone', () => {
      const encoder = this.gpu.device.createCommandEncoder();
      const pass = encoder.beginComputePass();
      replay(pass, once.dispatches());
      pass.end();
      this.gpu.device.queue.submit([encoder.finish()]);
    });
    once.parameters?.destroy();
  }

  /** Where input `number` of the model goes; nowhere if no kernel reads it. */
  input(number: number): Place | undefined {
    return this.#memory.get(memory(INPUT, number));
  }

  /** Keeps a run; the oldest goes. */
  keep(key: string, run: Run): void {
    for (const [oldest, { recording }] of this.runs) {
      if (this.runs.size < RUNS_KEPT) break;
      this.runs.delete(oldest);
      recording.parameters?.destroy();
    }
    this.runs.get(key)?.recording.parameters?.destroy();
    this.runs.set(key, run);
  }

  /** Forgets the recorded runs. */
  forget(): void {
    for (const { recording } of this.runs.values()) recording.parameters?.destroy();
    this.runs.clear();
  }

  destroy(): void {
    this.forget();
    for (const buffer of this.#owned.values()) buffer.destroy();
  }

  /** The device's objects for `commands`: memory, kernels, bindings. */
  async realise(commands: Commands, preparing: Preparing): Promise<Recording> {
    await this.#grow(commands);
    await this.#compile(commands, preparing);
    const { device } = this.gpu;
    let parameters: GPUBuffer | undefined;
    if (commands.parameters.length > 0) {
      const bytes = new Uint8Array(commands.parameters.buffer);
      const usage = 0x40 /* UNIFORM */ | 0x8; /* COPY_DST */
      parameters = device.createBuffer({ label: 'parameters', size: bytes.length, usage });
      write(device.queue, { buffer: parameters, offset: 0 }, bytes);
    }
    const own = (id: number) => (id === PARAMETERS && parameters !== undefined ? { buffer: parameters, offset: 0 } : this.#memory.get(id));
    return Recording.make(this.gpu, commands, own, parameters, this.#pipelines);
  }

  /** Makes the memory large enough. Runs recorded for buffers that are replaced are dropped. */
  async #grow(commands: Commands): Promise<void> {
    for (const { memory: id, size } of commands.buffers) {
      if ((id & 7) === OUTPUT) continue; // the caller's
      const owned = this.#owned.get(id);
      if (owned !== undefined && owned.size >= size) continue;
      const label = `memory ${id >> 3} of kind ${id & 7}`;
      const buffer = await scoped(this.gpu, `${label}, ${size} bytes`, () =>
        this.gpu.device.createBuffer({ label, size, usage: STORAGE_USAGE }),
      );
      if (owned !== undefined) {
        this.forget();
        owned.destroy();
      }
      this.#owned.set(id, buffer);
      this.#memory.set(id, { buffer, offset: 0 });
    }
  }

  async #compile(commands: Commands, { turns, onCompile }: Preparing): Promise<void> {
    const missing = new Set<number>();
    for (const { kernel } of commands.dispatches) if (this.#pipelines[kernel] === undefined) missing.add(kernel);
    let done = 0;
    const compiling: Promise<void>[] = [];
    const texts = await Promise.all([...missing].map((kernel) => this.core.kernel(this.number, kernel)));
    for (const [i, kernel] of [...missing].entries()) {
      const pipeline = compile(this.gpu, texts[i] as KernelText);
      compiling.push(
        pipeline.then((pipeline) => {
          this.#pipelines[kernel] = pipeline;
          done += 1;
          onCompile(done, missing.size);
        }),
      );
      compiling.at(-1)?.catch(() => {}); // it is awaited below
      await turns.due();
    }
    await Promise.all(compiling);
  }
}

/** A run that the core prepared, on the device. */
export async function recorded(
  core: Core,
  plan: HostPlan,
  { order, inputs, outputs, isStage }: Pick<Run, 'order' | 'inputs' | 'outputs' | 'isStage'>,
  preparing: Preparing,
): Promise<Run> {
  const known = await Promise.all(outputs.map((output, i) => (output.stored === null ? core.knownOutput(i) : undefined)));
  const recording = await plan.realise(decode(await core.words()), preparing);
  await until(plan.ready, preparing.turns.signal);
  const [readbacks, kept] = [recording.readbacks.values(), recording.kept.values()];
  const read = () => ({ range: readbacks.next().value as Range, isOwn: false });
  const sources = outputs.map((output) => (output.stored === null ? undefined : output.kept ? (kept.next().value as Kept) : read()));
  return { plan, recording, order, inputs, outputs, known, sources, isStage };
}
