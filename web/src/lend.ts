// Tensors in GPU buffers of the caller's: which of them kernels read and write where they lie.
import type { Stays } from './core.js';
import { bytesOf, elementsOf, type NumericType } from './dtype.js';
import type { Gpu } from './gpu.js';
import type { Run } from './plan.js';
import type { Given, Wanted } from './run.js';
import { write } from './weights.js';

/** Bytes that a tensor takes where kernels bind it: whole vectors of four words, at least one. */
export function boundBytes(type: NumericType, dims: readonly number[]): number {
  return Math.max(16, Math.ceil(bytesOf(type, elementsOf(dims)) / 16) * 16);
}

/** Whether kernels can bind a buffer for such a tensor. */
export function isBindable(buffer: GPUBuffer, type: NumericType, dims: readonly number[]): boolean {
  return (buffer.usage & 0x80) /* STORAGE */ !== 0 && buffer.size >= boundBytes(type, dims);
}

/**
 * The outputs that kernels write to buffers of the caller's. A buffer to fill that holds one of the inputs, too, is written
 * only where the output is an update of that input; what else a run reads or writes is filled by a copy after it.
 */
export function staying(given: readonly Given[], wanted: readonly Wanted[]): Stays[] {
  const stay: Stays[] = [];
  for (const { output, location, into } of wanted) {
    if ((into?.location ?? location) !== 'gpu-buffer') continue;
    if (into === undefined) {
      stay.push({ output, over: null });
      continue;
    }
    const buffer = into.gpuBuffer;
    const readers = given.flatMap((feed, position) => (feed.gpuBuffer === buffer ? [position] : []));
    const writers = wanted.filter((other) => other.into?.location === 'gpu-buffer' && other.into.gpuBuffer === buffer);
    const [over = null] = readers;
    const isLent = over === null || given[over]?.lent === true;
    if (readers.length <= 1 && writers.length === 1 && isLent && isBindable(buffer, into.type as NumericType, into.dims)) {
      stay.push({ output, over });
    }
  }
  return stay;
}

/** The same inputs without those tensors: for runs in the plan's own memory. */
export function withoutBuffers(given: readonly Given[]): Given[] {
  return given.map((feed) => ({ ...feed, gpuBuffer: undefined, lent: false }));
}

/**
 * Makes up the elements of inputs that are not in memory, for tuning: floats between 1 and 2, as equal ones would hide wrong
 * results, and zeros else, as integers may be positions.
 */
export function makeUp({ device }: Gpu, { plan, order, inputs }: Run, given: readonly Given[]): void {
  order.forEach((position, number) => {
    const [{ data, dims }, place, type] = [given[position] as Given, plan.input(number), inputs[number]];
    if (data !== undefined || place === undefined || type === undefined || type === null) return;
    const bytes = new Uint8Array(Math.ceil(bytesOf(type, elementsOf(dims)) / 4) * 4);
    const fraction = (i: number) => (i * 0x9e37) & 0x3ff;
    if (type === 'float32') new Uint32Array(bytes.buffer).forEach((_, i, words) => (words[i] = 0x3f800000 | (fraction(i) << 13)));
    if (type === 'float16') new Uint16Array(bytes.buffer).forEach((_, i, halves) => (halves[i] = 0x3c00 | fraction(i)));
    write(device.queue, place, bytes);
  });
}
