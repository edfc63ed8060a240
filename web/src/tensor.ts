import {
  arrayOver,
  bytesIn,
  elementsOf,
  emptyArray,
  entriesOf,
  fits,
  isNumericType,
  typeOfArray,
  type NumericType,
  type TensorData,
  type TensorType,
} from './dtype.js';
import { TilewrightError, unsupported } from './error.js';

/** Where a tensor's elements are. */
export type TensorLocation = 'none' | 'cpu' | 'gpu-buffer';

/** How a tensor over a buffer is read and freed. */
export interface GpuBufferOptions {
  /** The elements' type; float32 unless named. */
  dataType?: 'float32' | 'float16' | 'int32' | 'uint32';
  /** The shape. */
  dims: readonly number[];
  /** Reads the elements; without it `getData` is refused. */
  download?: () => Promise<TensorData>;
  /** Called by `dispose`; without it the buffer is left alone. */
  dispose?: () => void;
}

function refuse(message: string): never {
  throw new TilewrightError('tensor', `tensor: ${message}`);
}

/** A tensor: type, shape, and elements in row-major order, in memory or in a GPU buffer. */
export class Tensor {
  /** The elements' type. */
  readonly type: TensorType;
  #dims: readonly number[];
  #data: TensorData | undefined;
  #buffer: GPUBuffer | undefined;
  #download: (() => Promise<TensorData>) | undefined;
  #dispose: (() => void) | undefined;

  /** A tensor over `data`; without `dims` a vector. Plain numbers become an array of the type. */
  constructor(type: TensorType, data: TensorData | readonly (number | bigint | boolean | string)[], dims?: readonly number[]);
  /** A tensor over an array whose type says what its elements are. */
  constructor(data: TensorData | readonly (boolean | string)[], dims?: readonly number[]);
  /** @internal */
  constructor(type: TensorType, buffer: GPUBuffer, options: GpuBufferOptions);
  constructor(first: unknown, second?: unknown, third?: unknown) {
    if (typeof GPUBuffer !== 'undefined' && second instanceof GPUBuffer) {
      const options = third as GpuBufferOptions;
      this.type = first as TensorType;
      this.#dims = checkedDims(options.dims);
      this.#buffer = second;
      this.#download = options.download;
      this.#dispose = options.dispose;
      return;
    }
    const named = typeof first === 'string';
    const given = named ? second : first;
    const dims = (named ? third : second) as readonly number[] | undefined;
    const type = named ? checkedType(first) : typeOf(given);
    const data = elements(type, given);
    this.type = type;
    this.#data = data;
    this.#dims = checkedDims(dims ?? [data.length]);
    const count = elementsOf(this.#dims);
    const wanted = isNumericType(type) ? entriesOf(type, count) : count;
    if (data.length !== wanted) {
      refuse(`${type} of shape [${this.#dims.join(', ')}] wants ${wanted} elements, got ${data.length}`);
    }
  }

  /** A tensor over a GPU buffer of the device in use (`env.webgpu.device`). */
  static fromGpuBuffer(buffer: GPUBuffer, options: GpuBufferOptions): Tensor {
    const type = options.dataType ?? 'float32';
    if (!['float32', 'float16', 'int32', 'uint32'].includes(type)) unsupported(`tensors of ${type} in GPU buffers`);
    return new Tensor(type, buffer, options);
  }

  /** onnxruntime-common's; not supported. */
  static fromImage(): never {
    return unsupported('Tensor.fromImage');
  }

  /** onnxruntime-common's; not supported. */
  static fromTexture(): never {
    return unsupported('Tensor.fromTexture');
  }

  /** onnxruntime-common's; not supported. */
  static fromPinnedBuffer(): never {
    return unsupported('Tensor.fromPinnedBuffer');
  }

  /** The shape. */
  get dims(): readonly number[] {
    return this.#dims;
  }

  /** The same elements under another shape of the same size. */
  set dims(dims: readonly number[]) {
    this.#dims = this.#reshaped(dims);
  }

  /** Number of elements. */
  get size(): number {
    return elementsOf(this.#dims);
  }

  /** Where the elements are; `none` after `dispose`. */
  get location(): TensorLocation {
    if (this.#data !== undefined) return 'cpu';
    return this.#buffer === undefined ? 'none' : 'gpu-buffer';
  }

  /** The elements; refused where they are not in memory. */
  get data(): TensorData {
    return this.#data ?? refuse('its elements are not in memory; use getData()');
  }

  /** The buffer of a tensor on the GPU. */
  get gpuBuffer(): GPUBuffer {
    return this.#buffer ?? refuse('it has no GPU buffer');
  }

  /** onnxruntime-common's; not supported. */
  get texture(): never {
    return unsupported('textures');
  }

  /** The elements, read back if they are on the GPU; with `release` the buffer is freed afterwards. */
  async getData(release?: boolean): Promise<TensorData> {
    if (this.#data !== undefined) return this.#data;
    if (this.#buffer === undefined) refuse('it was disposed of');
    if (this.#download === undefined) refuse('it was made without a `download`');
    const data = await this.#download();
    if (release === true) {
      this.dispose();
      this.#data = data;
    }
    return data;
  }

  /** Frees the elements. */
  dispose(): void {
    this.#dispose?.();
    this.#dispose = this.#download = this.#data = this.#buffer = undefined;
  }

  /** A tensor over the same elements under another shape of the same size. */
  reshape(dims: readonly number[]): Tensor {
    const shape = this.#reshaped(dims);
    if (this.#data !== undefined) return new Tensor(this.type, this.#data, shape);
    const options: GpuBufferOptions = { dims: shape };
    if (this.#download !== undefined) options.download = this.#download;
    return new Tensor(this.type, this.gpuBuffer, options);
  }

  #reshaped(dims: readonly number[]): readonly number[] {
    const checked = checkedDims(dims);
    if (elementsOf(checked) !== this.size) {
      refuse(`shape [${checked.join(', ')}] has ${elementsOf(checked)} elements, it has ${this.size}`);
    }
    return checked;
  }
}

function checkedDims(dims: readonly number[]): readonly number[] {
  if (!Array.isArray(dims)) refuse(`dims wants an array, got ${typeof dims}`);
  dims.forEach((dim, axis) => {
    if (!Number.isSafeInteger(dim) || dim < 0) refuse(`dims[${axis}] wants a size, got ${String(dim)}`);
  });
  return [...dims];
}

function checkedType(type: string): TensorType {
  return type === 'string' || isNumericType(type) ? type : refuse(`there is no type ${JSON.stringify(type)}`);
}

function typeOf(data: unknown): TensorType {
  if (Array.isArray(data)) {
    if (typeof data[0] === 'string') return 'string';
    if (typeof data[0] === 'boolean') return 'bool';
    return refuse(`an array of ${typeof data[0]} does not tell its type; name it`);
  }
  return typeOfArray(data) ?? refuse(`wants an array of elements, got ${typeof data}`);
}

/** `data` as the array of its type. */
function elements(type: TensorType, data: unknown): TensorData {
  if (type === 'string') {
    return Array.isArray(data) && data.every((item) => typeof item === 'string')
      ? data
      : refuse('string wants an array of strings');
  }
  if (fits(type, data)) return data instanceof Uint8ClampedArray ? bytesIn(data) : (data as TensorData);
  if (!Array.isArray(data)) return refuse(`${type} does not take ${Object.prototype.toString.call(data).slice(8, -1)}`);
  return filled(type, data as (number | bigint | boolean)[]);
}

function filled(type: NumericType, values: readonly (number | bigint | boolean)[]): TensorData {
  if (type === 'float16' && emptyArray(type, 0) instanceof Uint16Array) {
    refuse('plain numbers as float16 want an engine with Float16Array; give a Uint16Array of bits');
  }
  const array = emptyArray(type, 0) as unknown as { constructor: { from(values: unknown[]): TensorData } };
  const wide = type === 'int64' || type === 'uint64';
  return array.constructor.from(values.map((value) => (wide ? BigInt(value) : Number(value))));
}

/** A tensor over the bytes of its elements. */
export function tensorOver(type: NumericType, bytes: Uint8Array, dims: readonly number[]): Tensor {
  return new Tensor(type, arrayOver(type, bytes), dims);
}
