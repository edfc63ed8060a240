// What a run does with the device's objects. What it binds of buffers that callers hold is left open until the run.
import { type Gpu, scoped } from './gpu.js';
import { TilewrightError } from './error.js';
import type { Place } from './weights.js';
import { type Commands, INPUT, type Kept, OUTPUT, type Range } from './words.js';

/** One kernel over its memory, ready to be replayed. */
export interface Dispatch {
  readonly pipeline: GPUComputePipeline;
  readonly group: GPUBindGroup;
  readonly x: number;
  readonly y: number;
  readonly z: number;
  readonly step: number;
  readonly kernel: number;
}

/** A range of a buffer. */
export interface BufferRange extends Place {
  readonly size: number;
}

/** Buffers of tensors that the caller holds, by the memory that they are in a run. */
export type Lent = ReadonlyMap<number, GPUBuffer>;

const NOTHING: Lent = new Map();

/** Sets of lent buffers whose bindings are kept: a cache that is written whole alternates between two. */
const SETS_KEPT = 4;

/** A dispatch whose bindings are open where any of its memory is lent. */
type Open = Omit<Dispatch, 'group'> & { readonly group: GPUBindGroup | undefined; readonly bindings: readonly Range[] };

/** Commands with the device's objects. */
export class Recording {
  #dispatches: readonly Open[] = [];
  /** The latest last. */
  readonly #bound: { readonly lent: Lent; readonly dispatches: readonly Dispatch[] }[] = [];

  private constructor(
    private readonly gpu: Gpu,
    private readonly commands: Commands,
    /** The memory that is the plan's, or the recording's. */
    private readonly own: (memory: number) => Place | undefined,
    readonly parameters: GPUBuffer | undefined,
  ) {}

  static async make(
    gpu: Gpu,
    commands: Commands,
    own: (memory: number) => Place | undefined,
    parameters: GPUBuffer | undefined,
    pipelines: readonly GPUComputePipeline[],
  ): Promise<Recording> {
    const recording = new Recording(gpu, commands, own, parameters);
    // An input that is lent takes no memory of the plan.
    const owned = new Set(commands.buffers.map(({ memory }) => memory));
    const isLent = ({ memory }: Range) => (memory & 7) === OUTPUT || ((memory & 7) === INPUT && !owned.has(memory));
    recording.#dispatches = await scoped(gpu, 'bindings', () =>
      commands.dispatches.map(({ kernel, step, workgroups: [x, y, z], bindings }) => {
        const pipeline = pipelines[kernel] as GPUComputePipeline;
        const group = bindings.some(isLent) ? undefined : recording.#bind(pipeline, bindings, NOTHING);
        return { pipeline, group, x, y, z, step, kernel, bindings };
      }),
    );
    return recording;
  }

  /** What to replay, with the memory that is lent to the run. */
  dispatches(lent: Lent = NOTHING): readonly Dispatch[] {
    const at = this.#bound.findIndex((bound) => isSame(bound.lent, lent));
    const [found] = at < 0 ? [] : this.#bound.splice(at, 1);
    const bound = found ?? { lent, dispatches: this.#dispatches.map((dispatch) => this.#closed(dispatch, lent)) };
    if (this.#bound.length >= SETS_KEPT) this.#bound.shift();
    this.#bound.push(bound);
    return bound.dispatches;
  }

  /** What is to be read back, in the order of those outputs. */
  get readbacks(): readonly Range[] {
    return this.commands.readbacks;
  }

  /** What stays on the device for the caller, in the order of those outputs. */
  get kept(): readonly Kept[] {
    return this.commands.kept;
  }

  /** What stays on the device for the next stage of the run. */
  get left(): readonly BufferRange[] {
    return this.commands.left.map((range) => this.place(range));
  }

  /** Where a range is. */
  place({ memory, offset, size }: Range, lent: Lent = NOTHING): BufferRange {
    const buffer = lent.get(memory);
    if (buffer !== undefined) return { buffer, offset, size };
    const found = this.own(memory);
    if (found === undefined) throw new TilewrightError('internal', `there is no memory ${memory}`);
    return { buffer: found.buffer, offset: found.offset + offset, size };
  }

  #closed({ bindings, ...dispatch }: Open, lent: Lent): Dispatch {
    return { ...dispatch, group: dispatch.group ?? this.#bind(dispatch.pipeline, bindings, lent) };
  }

  #bind(pipeline: GPUComputePipeline, bindings: readonly Range[], lent: Lent): GPUBindGroup {
    const entries = bindings.map((range, binding) => ({ binding, resource: this.place(range, lent) }));
    return this.gpu.device.createBindGroup({ label: pipeline.label, layout: pipeline.getBindGroupLayout(0), entries });
  }
}

function isSame(a: Lent, b: Lent): boolean {
  return a.size === b.size && [...a].every(([memory, buffer]) => b.get(memory) === buffer);
}

/** Records dispatches into a pass; the pipeline is set where it changes. */
export function replay(pass: GPUComputePassEncoder, dispatches: readonly Dispatch[]): void {
  let current: GPUComputePipeline | undefined;
  for (const { pipeline, group, x, y, z } of dispatches) {
    if (pipeline !== current) {
      pass.setPipeline(pipeline);
      current = pipeline;
    }
    pass.setBindGroup(0, group);
    pass.dispatchWorkgroups(x, y, z);
  }
}
