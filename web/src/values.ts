// Inputs and outputs: as the model declares them, as the caller gives or wants them, and what is refused.
import type { Declared } from './core.js';
import { isNumericType, numericType } from './dtype.js';
import { TilewrightError, unsupported } from './error.js';
import { isBindable } from './lend.js';
import type { SessionOptions } from './options.js';
import type { Given, Wanted } from './run.js';
import type { Tensor } from './tensor.js';

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

/**
 * Outputs by name: those wanted, or with `null` or a tensor to fill. A tensor on the GPU may be given as an input and for an
 * output, too: where the output is this input with a part replaced, as a cache with new rows, only that part is written.
 */
export type Fetches = readonly string[] | Readonly<Record<string, Tensor | null>>;

export function metadata({ name, type, shape }: Declared): ValueMetadata {
  const dims = shape ?? [];
  return { name, isTensor: true, type, shape: dims.map((dim) => (dim === -1 ? '' : dim)) };
}

/** The inputs of a run. */
export function givenOf(feeds: Feeds): Given[] {
  return Object.entries(feeds).map(([name, tensor]) => checked(name, tensor));
}

function checked(name: string, tensor: TensorLike): Given {
  const refuse = (message: string): never => {
    throw new TilewrightError('input', `input ${JSON.stringify(name)}: ${message}`);
  };
  if (typeof tensor !== 'object' || tensor === null || typeof tensor.type !== 'string' || !Array.isArray(tensor.dims)) {
    return refuse('is no tensor');
  }
  if (!isNumericType(tensor.type)) unsupported(`input ${JSON.stringify(name)} of type ${tensor.type}`);
  const type = numericType(tensor.type);
  const location = tensor.location ?? 'cpu';
  if (location === 'gpu-buffer') {
    const { dims, gpuBuffer } = tensor;
    return { name, type, dims, data: undefined, gpuBuffer, lent: gpuBuffer !== undefined && isBindable(gpuBuffer, type, dims) };
  }
  if (location !== 'cpu' && location !== 'cpu-pinned') return refuse(`its elements are in ${location}, wanted cpu or gpu-buffer`);
  const { data } = tensor;
  if (!ArrayBuffer.isView(data)) return refuse('its data is no typed array');
  return { name, type, dims: tensor.dims, data, gpuBuffer: undefined, lent: false };
}

/** Inputs of the shapes that the model and the options fix, without their elements; none where a size is open. */
export function givenAhead(inputs: readonly ValueMetadata[], { freeDimensionOverrides = {} }: SessionOptions): Given[] | undefined {
  const given: Given[] = [];
  for (const { name, type, shape } of inputs) {
    const dims = shape.map((dim) => (typeof dim === 'number' ? dim : (freeDimensionOverrides[dim] ?? -1)));
    if (!isNumericType(type) || dims.some((size) => size < 0)) return undefined;
    given.push({ name, type: numericType(type), dims, data: undefined, gpuBuffer: undefined, lent: false });
  }
  return given;
}

/** Whether what `run` was given after the feeds names outputs. */
export function areFetches(names: readonly string[], second: unknown): second is Fetches {
  if (Array.isArray(second)) return true;
  if (typeof second !== 'object' || second === null) return false;
  const keys = Object.keys(second);
  return keys.length > 0 && keys.every((name) => names.includes(name));
}

/** Where the outputs of a run go; all of them unless `fetches` says which. */
export function wantedOf(names: readonly string[], fetches: Fetches | undefined, options: SessionOptions): Wanted[] {
  const preferred = options.preferredOutputLocation ?? 'cpu';
  const want = (name: string, into?: Tensor): Wanted => {
    const output = names.indexOf(name);
    if (output < 0) {
      const there = names.map((name) => JSON.stringify(name)).join(', ');
      throw new TilewrightError('input', `output ${JSON.stringify(name)}: the model has no such output; it has ${there}`);
    }
    return { output, location: typeof preferred === 'string' ? preferred : (preferred[name] ?? 'cpu'), into };
  };
  if (fetches === undefined) return names.map((name) => want(name));
  if (Array.isArray(fetches)) return (fetches as readonly string[]).map((name) => want(name));
  return Object.entries(fetches as Record<string, Tensor | null>).map(([name, into]) => want(name, into ?? undefined));
}
