// One run: inputs in, all dispatches in one pass, one submit, outputs out.
import { convert, type Output } from './core.js';
import { bytesIn, bytesOf, elementsOf, type NumericType, type TensorData } from './dtype.js';
import { TilewrightError, unsupported } from './error.js';
import { checkLost, failure, type Gpu, scoped } from './gpu.js';
import { boundBytes } from './lend.js';
import type { Run } from './plan.js';
import { type BufferRange, type Dispatch, replay } from './recording.js';
import type { Staging } from './staging.js';
import { Tensor, tensorOver } from './tensor.js';
import { STORAGE_USAGE, write } from './weights.js';
import { INPUT, memory, type Range } from './words.js';

/** An input as given, of whichever library's Tensor. */
export interface Given {
  readonly name: string;
  readonly type: NumericType;
  readonly dims: readonly number[];
  readonly data: ArrayBufferView<ArrayBufferLike> | undefined;
  readonly gpuBuffer: GPUBuffer | undefined;
  /** Whether kernels read the buffer where it lies; else it is copied. */
  readonly lent: boolean;
}

/** Where an output is to go. */
export interface Wanted {
  readonly output: number;
  readonly location: 'cpu' | 'gpu-buffer';
  /** A tensor of the caller's to fill. */
  readonly into: Tensor | undefined;
}

/** A submitted run: its outputs come later. */
export interface Flight {
  readonly outputs: Promise<Record<string, Tensor>>;
  /** What was replayed. */
  readonly dispatches: readonly Dispatch[];
}

/** Buffers lent to a run, by the memory that they are in it. */
type Lent = Map<number, GPUBuffer>;

/** Submits a run, or a stage that takes over what the one before it left. Everything up to the queue happens before this returns. */
export function submit(
  gpu: Gpu,
  staging: Staging,
  run: Run,
  given: readonly Given[],
  wanted: readonly Wanted[],
  left: readonly BufferRange[],
): Flight {
  checkLost(gpu);
  const { device } = gpu;
  const lent: Lent = new Map();
  let dispatches: readonly Dispatch[];
  let errors: Promise<(GPUError | null)[]>;
  let results: Result[];
  let mappable: GPUBuffer | undefined;
  let size: number;
  device.pushErrorScope('out-of-memory');
  device.pushErrorScope('validation');
  try {
    const copies = inputs(gpu, run, given, lent);
    const { recording } = run;
    results = wanted.map((want) => result(gpu, run, want, lent));
    dispatches = recording.dispatches(lent);
    const encoder = device.createCommandEncoder();
    for (const { from, to, size } of copies) encoder.copyBufferToBuffer(from, 0, to.buffer, to.offset, size);
    left.forEach(({ buffer, offset, size }, position) => {
      const to = run.plan.input(run.order.length + position);
      if (to !== undefined) encoder.copyBufferToBuffer(buffer, offset, to.buffer, to.offset, size);
    });
    if (dispatches.length > 0) {
      const pass = encoder.beginComputePass();
      replay(pass, dispatches);
      pass.end();
    }
    size = results.reduce((sum, { read }) => sum + (read?.size ?? 0), 0);
    if (size > 0) mappable = staging.take(size);
    const copy = (range: Range | undefined, to: GPUBuffer | undefined, offset: number) => {
      if (range === undefined || to === undefined || range.size === 0) return;
      const from = recording.place(range, lent);
      // An input that is an output, too, may be given as both.
      if (from.buffer !== to) encoder.copyBufferToBuffer(from.buffer, from.offset, to, offset, range.size);
    };
    let at = 0;
    for (const { read, stay, buffer } of results) {
      copy(stay, buffer, 0);
      copy(read, mappable, at);
      at += read?.size ?? 0;
    }
    device.queue.submit([encoder.finish()]);
    for (const { known, buffer } of results) if (known !== undefined && buffer !== undefined) write(device.queue, { buffer, offset: 0 }, known);
  } finally {
    errors = Promise.all([device.popErrorScope(), device.popErrorScope()]);
    errors.catch(() => {}); // of a lost device; it is awaited below
  }
  const mapped = mappable?.mapAsync(1 /* READ */, 0, size);
  return { outputs: finish(gpu, staging, dispatches, errors, mapped, mappable, size, results), dispatches };
}

/** Lends the inputs that kernels read where they lie, and writes those that are in memory; the others are to be copied. */
function inputs(gpu: Gpu, run: Run, given: readonly Given[], lent: Lent): { from: GPUBuffer; to: BufferRange; size: number }[] {
  const copies: { from: GPUBuffer; to: BufferRange; size: number }[] = [];
  run.order.forEach((position, number) => {
    const feed = given[position] as Given;
    const { name, type, dims, data, gpuBuffer } = feed;
    const stored = run.inputs[number];
    if (stored === undefined || stored === null) return;
    if (gpuBuffer !== undefined && type !== stored) unsupported(`input ${JSON.stringify(name)} of type ${type} in a GPU buffer`);
    if (gpuBuffer !== undefined && feed.lent) {
      lent.set(memory(INPUT, number), gpuBuffer);
      return;
    }
    const place = run.plan.input(number);
    if (place === undefined) return;
    const count = elementsOf(dims);
    if (gpuBuffer !== undefined) {
      const size = copied('input', name, gpuBuffer, type, dims);
      copies.push({ from: gpuBuffer, to: { ...place, size }, size });
    } else if (data !== undefined && count > 0) {
      write(gpu.device.queue, place, convert(name, type, bytesIn(data), stored, count));
    }
  });
  return copies;
}

/** Bytes of a tensor that are copied from or to a buffer of the caller's, which must have them. */
function copied(what: string, name: string, buffer: GPUBuffer, type: NumericType, dims: readonly number[]): number {
  const size = Math.ceil(bytesOf(type, elementsOf(dims)) / 4) * 4;
  if (buffer.size < size) {
    throw new TilewrightError('input', `${what} "${name}": its buffer has ${buffer.size} bytes, ${type} of shape [${dims.join(', ')}] wants ${size}`);
  }
  return size;
}

/** How an output reaches the caller. */
interface Result {
  readonly output: Output;
  readonly into: Tensor | undefined;
  /** Known beforehand. */
  readonly known: Uint8Array | undefined;
  /** To be read back. */
  readonly read?: Range | undefined;
  /** Where it stays. */
  readonly buffer?: GPUBuffer;
  /** To be copied there. */
  readonly stay?: Range | undefined;
}

/** Makes ready for an output; where kernels write it to a buffer of the caller's, this is lent. */
function result(gpu: Gpu, run: Run, want: Wanted, lent: Lent): Result {
  const output = run.outputs[want.output] as Output;
  const { name, type, shape } = output;
  const { into } = want;
  const [known, source] = [run.known[want.output], run.sources[want.output]];
  if (into !== undefined && (into.type !== type || into.dims.join() !== shape.join())) {
    throw new TilewrightError('tensor', `output "${name}": is ${type} [${shape.join(', ')}], the tensor given for it ${into.type} [${into.dims.join(', ')}]`);
  }
  if ((into?.location ?? want.location) !== 'gpu-buffer') return { output, into, known, read: source?.range };
  if (known === undefined && type !== output.stored) unsupported(`output ${JSON.stringify(name)} of type ${type} in a GPU buffer`);
  const buffer = into?.gpuBuffer ?? gpu.device.createBuffer({ label: name, size: boundBytes(type, shape), usage: STORAGE_USAGE });
  if (source?.isOwn === true) {
    lent.set(source.range.memory, buffer);
    return { output, into, known, buffer };
  }
  const size = copied('output', name, buffer, type, shape);
  return { output, into, known, buffer, stay: source && { ...source.range, size } };
}

async function finish(
  gpu: Gpu,
  staging: Staging,
  dispatches: readonly Dispatch[],
  errors: Promise<(GPUError | null)[]>,
  mapped: Promise<void> | undefined,
  mappable: GPUBuffer | undefined,
  size: number,
  results: readonly Result[],
): Promise<Record<string, Tensor>> {
  mapped?.catch(() => {}); // it is awaited after the errors, which say why
  try {
    const [validation, memory] = await errors;
    if (memory) throw new TilewrightError('memory', `out of device memory: run: ${memory.message}`);
    if (validation) {
      throw (await blame(gpu, dispatches)) ?? new TilewrightError('device', `device error in run: ${validation.message}`);
    }
    await mapped;
  } catch (error) {
    mappable?.destroy();
    throw error instanceof TilewrightError ? error : await failure(gpu, 'run', error);
  }
  const outputs: Record<string, Tensor> = {};
  const all = mappable === undefined ? new Uint8Array(0) : new Uint8Array(mappable.getMappedRange(0, size));
  let at = 0;
  for (const { output, into, read, known, buffer } of results) {
    if (buffer !== undefined) {
      outputs[output.name] = into ?? resident(gpu, output, buffer);
      continue;
    }
    const end = at + (read?.size ?? 0);
    const bytes = known ?? elements(output, all.subarray(at, end));
    at = end;
    outputs[output.name] = into === undefined ? tensorOver(output.type, bytes, output.shape) : filled(into, bytes);
  }
  if (mappable !== undefined) {
    mappable.unmap();
    staging.give(mappable);
  }
  return outputs;
}

/** A copy of what was read back, in ONNX's form. */
function elements({ name, type, stored, shape }: Output, raw: Uint8Array): Uint8Array {
  const count = elementsOf(shape);
  if (stored === null || type === stored) return raw.slice(0, bytesOf(type, count));
  return convert(name, stored, raw, type, count);
}

function filled(into: Tensor, bytes: Uint8Array): Tensor {
  bytesIn(into.data as ArrayBufferView<ArrayBufferLike> & TensorData).set(bytes);
  return into;
}

/** A tensor that owns its buffer. */
function resident(gpu: Gpu, output: Output, buffer: GPUBuffer): Tensor {
  return new Tensor(output.type, buffer, {
    dims: output.shape,
    download: async () => {
      const { device } = gpu;
      const size = buffer.size;
      const usage = 0x1 /* MAP_READ */ | 0x8; /* COPY_DST */
      const mappable = await scoped(gpu, `readback of "${output.name}"`, () => {
        const mappable = device.createBuffer({ size, usage });
        const encoder = device.createCommandEncoder();
        encoder.copyBufferToBuffer(buffer, 0, mappable, 0, size);
        device.queue.submit([encoder.finish()]);
        return mappable;
      });
      await mappable.mapAsync(1 /* READ */);
      const bytes = elements(output, new Uint8Array(mappable.getMappedRange()));
      mappable.destroy();
      return tensorOver(output.type, bytes, output.shape).data;
    },
    dispose: () => buffer.destroy(),
  });
}

/** The error of the first dispatch that cannot be recorded by itself, with its name. */
async function blame(gpu: Gpu, dispatches: readonly Dispatch[]): Promise<TilewrightError | undefined> {
  for (const [i, dispatch] of dispatches.entries()) {
    try {
      await scoped(gpu, `dispatch ${i}, kernel "${dispatch.pipeline.label}"`, () => {
        const encoder = gpu.device.createCommandEncoder();
        const pass = encoder.beginComputePass();
        replay(pass, [dispatch]);
        pass.end();
        encoder.finish();
      });
    } catch (error) {
      if (error instanceof TilewrightError) return error;
    }
  }
  return undefined;
}
