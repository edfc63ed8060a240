import { TilewrightError } from './error.js';

type Numbers = ArrayLike<number> & ArrayBufferView<ArrayBufferLike>;
type BigInts = ArrayLike<bigint> & ArrayBufferView<ArrayBufferLike>;

/** The array that holds a tensor's elements. */
export type TensorData = Numbers | BigInts | string[];

interface TypedArray {
  readonly BYTES_PER_ELEMENT: number;
  new (length: number): Numbers | BigInts;
  new (buffer: ArrayBuffer, offset?: number, length?: number): Numbers | BigInts;
}

/** An element type: its array, and its bits; 2- and 4-bit types are packed into bytes, first element in the low bits. */
interface Row {
  readonly array: TypedArray;
  readonly bits: number;
}

/** `Float16Array` where the engine has it, as onnxruntime-common does. */
const float16 = ((globalThis as { Float16Array?: unknown }).Float16Array ?? Uint16Array) as TypedArray;

const rows = {
  float32: { array: Float32Array, bits: 32 },
  uint8: { array: Uint8Array, bits: 8 },
  int8: { array: Int8Array, bits: 8 },
  uint16: { array: Uint16Array, bits: 16 },
  int16: { array: Int16Array, bits: 16 },
  int32: { array: Int32Array, bits: 32 },
  int64: { array: BigInt64Array, bits: 64 },
  bool: { array: Uint8Array, bits: 8 },
  float16: { array: float16, bits: 16 },
  float64: { array: Float64Array, bits: 64 },
  uint32: { array: Uint32Array, bits: 32 },
  uint64: { array: BigUint64Array, bits: 64 },
  bfloat16: { array: Uint16Array, bits: 16 },
  float8e4m3fn: { array: Uint8Array, bits: 8 },
  float8e4m3fnuz: { array: Uint8Array, bits: 8 },
  float8e5m2: { array: Uint8Array, bits: 8 },
  float8e5m2fnuz: { array: Uint8Array, bits: 8 },
  float8e8m0: { array: Uint8Array, bits: 8 },
  float4e2m1: { array: Uint8Array, bits: 4 },
  uint4: { array: Uint8Array, bits: 4 },
  int4: { array: Int8Array, bits: 4 },
  uint2: { array: Uint8Array, bits: 2 },
  int2: { array: Int8Array, bits: 2 },
} as const satisfies Record<string, Row>;

/** An element type with numbers in it. */
export type NumericType = keyof typeof rows;

/** An element type, by ONNX's name in lower case. */
export type TensorType = NumericType | 'string';

/** Whether there is such an element type with numbers in it. */
export function isNumericType(type: string): type is NumericType {
  return Object.hasOwn(rows, type);
}

/** The element type of that name. */
export function numericType(type: string): NumericType {
  if (!isNumericType(type)) {
    throw new TilewrightError('unsupported', `unsupported: tensors of type ${JSON.stringify(type)}`);
  }
  return type;
}

/** Bytes that `count` elements take. */
export function bytesOf(type: NumericType, count: number): number {
  return Math.ceil((rows[type].bits * count) / 8);
}

/** Entries of the array that holds `count` elements. */
export function entriesOf(type: NumericType, count: number): number {
  return rows[type].bits < 8 ? bytesOf(type, count) : count;
}

/** An array of zeros for `count` elements. */
export function emptyArray(type: NumericType, count: number): Numbers | BigInts {
  return new rows[type].array(entriesOf(type, count));
}

/** The array over `bytes`, which are copied only where they are not aligned to the elements. */
export function arrayOver(type: NumericType, bytes: Uint8Array): Numbers | BigInts {
  const { array } = rows[type];
  const aligned = bytes.byteOffset % array.BYTES_PER_ELEMENT === 0 ? bytes : bytes.slice();
  return new array(aligned.buffer as ArrayBuffer, aligned.byteOffset, aligned.byteLength / array.BYTES_PER_ELEMENT);
}

/** Whether `data` is an array for elements of this type. */
export function fits(type: NumericType, data: unknown): boolean {
  if (type === 'float16') return data instanceof Uint16Array || data instanceof float16;
  if (type === 'uint8' || type === 'bool') return data instanceof Uint8Array || data instanceof Uint8ClampedArray;
  return data instanceof rows[type].array;
}

/** The element type that an array stands for when none is named. */
export function typeOfArray(data: unknown): NumericType | undefined {
  if (data instanceof Uint8ClampedArray) return 'uint8';
  if (float16 !== (Uint16Array as unknown) && data instanceof float16) return 'float16';
  const names = Object.keys(rows) as NumericType[];
  return names.find((name) => data instanceof rows[name].array);
}

/** The bytes of an array. */
export function bytesIn(data: ArrayBufferView<ArrayBufferLike>): Uint8Array {
  return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
}

/** Number of elements of a shape. */
export function elementsOf(dims: readonly number[]): number {
  return dims.reduce((product, dim) => product * dim, 1);
}
