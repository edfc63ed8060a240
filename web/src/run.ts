// One run: inputs in, all dispatches in one pass, one submit, outputs out.
import { convert, type Output } from './core.js';
import { bytesIn, bytesOf, elementsOf, type NumericType, type TensorData } from './dtype.js';
import { TilewrightError, unsupported } from './error.js';
import { checkLost, failure, type Gpu, scoped } from './gpu.js';
import { type BufferRange, type Dispatch, replay, type Run } from './plan.js';
import type { Staging } from './staging.js';
import { Tensor, tensorOver } from './tensor.js';
import { STORAGE_USAGE, write } from './weights.js';

/** An input as given, of whichever library's Tensor. */
export interface Given {
  readonly name: string;
  readonly type: NumericType;
  readonly dims: readonly number[];
  readonly data: ArrayBufferView<ArrayBufferLike> | undefined;
  readonly gpuBuffer: GPUBuffer | undefined;
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
}

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
  const { dispatches } = run.recording;
  let errors: Promise<(GPUError | null)[]>;
  let results: Result[];
  let mappable: GPUBuffer | undefined;
  let size: number;
  device.pushErrorScope('out-of-memory');
  device.pushErrorScope('validation');
  try {
    const copies = inputs(gpu, run, given);
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
    results = wanted.map((want) => collect(gpu, encoder, run, want));
    const reads = results.flatMap(({ read }) => read ?? []);
    size = reads.reduce((sum, read) => sum + read.size, 0);
    if (size > 0) mappable = staging.take(size);
    let at = 0;
    for (const read of reads) {
      if (mappable !== undefined && read.size > 0) encoder.copyBufferToBuffer(read.buffer, read.offset, mappable, at, read.size);
      at += read.size;
    }
    device.queue.submit([encoder.finish()]);
  } finally {
    errors = Promise.all([device.popErrorScope(), device.popErrorScope()]);
    errors.catch(() => {}); // of a lost device; it is awaited below
  }
  const mapped = mappable?.mapAsync(1 /* READ */, 0, size);
  return { outputs: finish(gpu, staging, dispatches, errors, mapped, mappable, size, results) };
}

/** Writes the inputs that are in memory; those on the device are to be copied. */
function inputs(gpu: Gpu, run: Run, given: readonly Given[]): { from: GPUBuffer; to: BufferRange; size: number }[] {
  const copies: { from: GPUBuffer; to: BufferRange; size: number }[] = [];
  run.order.forEach((position, number) => {
    const { name, type, dims, data, gpuBuffer } = given[position] as Given;
    const [place, stored] = [run.plan.input(number), run.inputs[number]];
    if (place === undefined || stored === undefined || stored === null) return;
    const count = elementsOf(dims);
    if (gpuBuffer !== undefined) {
      if (type !== stored) unsupported(`input ${JSON.stringify(name)} of type ${type} in a GPU buffer`);
      const size = Math.ceil(bytesOf(type, count) / 4) * 4;
      if (gpuBuffer.size < size) {
        throw new TilewrightError('input', `input "${name}": its buffer has ${gpuBuffer.size} bytes, ${type} of shape [${dims.join(', ')}] wants ${size}`);
      }
      copies.push({ from: gpuBuffer, to: { ...place, size }, size });
    } else if (data !== undefined && count > 0) {
      write(gpu.device.queue, place, convert(name, type, bytesIn(data), stored, count));
    }
  });
  return copies;
}

/** How an output reaches the caller. */
interface Result {
  readonly output: Output;
  readonly into: Tensor | undefined;
  /** To be read back. */
  readonly read?: BufferRange;
  /** Known beforehand. */
  readonly known?: Uint8Array;
  /** In a buffer of its own. */
  readonly buffer?: GPUBuffer;
}

function collect(gpu: Gpu, encoder: GPUCommandEncoder, run: Run, want: Wanted): Result {
  const output = run.outputs[want.output] as Output;
  const { into } = want;
  const known = run.known[want.output];
  if (into !== undefined && (into.type !== output.type || into.dims.join() !== output.shape.join())) {
    throw new TilewrightError(
      'tensor',
      `output "${output.name}": is ${output.type} [${output.shape.join(', ')}], the tensor given for it ${into.type} [${into.dims.join(', ')}]`,
    );
  }
  const read = known === undefined ? run.recording.readbacks[readbackOf(run, want.output)] : undefined;
  if ((into?.location ?? want.location) !== 'gpu-buffer') {
    return { output, into, ...(read !== undefined && { read }), ...(known !== undefined && { known }) };
  }
  if (known === undefined && output.type !== output.stored) unsupported(`output ${JSON.stringify(output.name)} of type ${output.type} in a GPU buffer`);
  const size = Math.max(Math.ceil(bytesOf(output.type, elementsOf(output.shape)) / 4) * 4, 4);
  const buffer = into?.gpuBuffer ?? gpu.device.createBuffer({ label: output.name, size, usage: STORAGE_USAGE });
  if (known !== undefined) write(gpu.device.queue, { buffer, offset: 0 }, known);
  else if (read !== undefined && read.size > 0) encoder.copyBufferToBuffer(read.buffer, read.offset, buffer, 0, read.size);
  return { output, into, buffer };
}

/** The number of an output among those that are read back. */
function readbackOf(run: Run, output: number): number {
  return run.outputs.slice(0, output).filter(({ stored }) => stored !== null).length;
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
