// Reads what the tests compare with: NumPy's files and ONNX's TensorProto, as tensors of the package under test.
import { Tensor } from '/dist/index.js';

const kinds = {
  '<f4': 'float32', '<f8': 'float64', '<f2': 'float16', '<i8': 'int64', '<i4': 'int32', '<i2': 'int16', '|i1': 'int8',
  '<u8': 'uint64', '<u4': 'uint32', '<u2': 'uint16', '|u1': 'uint8', '|b1': 'bool',
};

export const bytesOf = async (url) => {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${url}: ${response.status}`);
  return new Uint8Array(await response.arrayBuffer());
};

const over = (type, bytes, dims) => {
  const { constructor } = new Tensor(type, [], [0]).data;
  return new Tensor(type, new constructor(bytes.slice().buffer), dims);
};

export async function npy(url) {
  const bytes = await bytesOf(url);
  const length = new DataView(bytes.buffer).getUint16(8, true);
  const header = new TextDecoder().decode(bytes.subarray(10, 10 + length));
  const type = kinds[/'descr': '([^']+)'/.exec(header)[1]];
  const dims = (/'shape': \(([^)]*)\)/.exec(header)[1].match(/\d+/g) ?? []).map(Number);
  return over(type, bytes.subarray(10 + length), dims);
}

// By ONNX's number: type, and the field that holds its values where raw_data does not.
const types = {
  1: ['float32', 4], 2: ['uint8', 5], 3: ['int8', 5], 4: ['uint16', 5], 5: ['int16', 5], 6: ['int32', 5], 7: ['int64', 7],
  9: ['bool', 5], 10: ['float16', 5], 11: ['float64', 10], 12: ['uint32', 11], 13: ['uint64', 11],
};

/** Name and tensor of a TensorProto; no tensor where its type is none of the above. */
export async function proto(url) {
  const bytes = await bytesOf(url);
  let at = 0;
  const varint = () => {
    let value = 0n;
    for (let shift = 0n; ; shift += 7n) {
      const byte = bytes[at++];
      value |= BigInt(byte & 127) << shift;
      if (byte < 128) return value;
    }
  };
  const fields = new Map();
  const add = (field, value) => fields.set(field, [...(fields.get(field) ?? []), value]);
  while (at < bytes.length) {
    const tag = Number(varint()), field = tag >> 3, wire = tag & 7;
    if (wire === 0) add(field, varint());
    else if (wire === 2) { const end = Number(varint()) + at; add(field, bytes.subarray(at, end)); at = end; }
    else { const size = wire === 1 ? 8 : 4; add(field, bytes.subarray(at, at + size)); at += size; }
  }
  const packed = (field) => (fields.get(field) ?? []).flatMap((value) => {
    if (typeof value === 'bigint') return [value];
    const all = [];
    for (let i = 0; i < value.length;) {
      let v = 0n, shift = 0n, byte;
      do { byte = value[i++]; v |= BigInt(byte & 127) << shift; shift += 7n; } while (byte >= 128);
      all.push(v);
    }
    return all;
  });
  const name = new TextDecoder().decode(fields.get(8)?.[0] ?? new Uint8Array());
  const row = types[Number(fields.get(2)?.[0] ?? 0n)];
  if (!row) return { name };
  const [type, field] = row, dims = packed(1).map(Number), raw = fields.get(9)?.[0];
  if (raw) return { name, tensor: over(type, raw, dims) };
  if (field === 4 || field === 10) {
    const parts = fields.get(field) ?? [], joined = new Uint8Array(parts.reduce((n, p) => n + p.length, 0));
    parts.reduce((n, p) => (joined.set(p, n), n + p.length), 0);
    return { name, tensor: over(type, joined, dims) };
  }
  const values = packed(field), array = new Tensor(type, [], [0]).data.constructor;
  const narrow = type === 'float16' ? Uint16Array : array;
  const data = array.BYTES_PER_ELEMENT === 8 ? array.from(values.map((v) => BigInt.asIntN(64, v)))
    : narrow.from(values.map((v) => Number(BigInt.asIntN(64, v))));
  return { name, tensor: over(type, new Uint8Array(data.buffer), dims) };
}

/** As numpy.testing.assert_allclose: what differs, in words, or nothing. */
export function difference(got, want, rtol, atol) {
  if (!got) return 'missing';
  if (got.type !== want.type || got.dims.join() !== want.dims.join()) return `got ${got.type} [${got.dims}], want ${want.type} [${want.dims}]`;
  const exact = !want.type.startsWith('float');
  const half = want.type === 'float16' && want.data instanceof Uint16Array;
  const number = half ? fromHalf : Number;
  for (let i = 0; i < want.data.length; i++) {
    const g = number(got.data[i]), w = number(want.data[i]);
    if (got.data[i] === want.data[i] || (Number.isNaN(g) && Number.isNaN(w))) continue;
    if (!exact && Math.abs(g - w) <= atol + rtol * Math.abs(w) && Number.isFinite(g - w)) continue;
    return `element ${i}: got ${g}, want ${w}`;
  }
}

function fromHalf(bits) {
  const sign = bits & 0x8000 ? -1 : 1, exponent = (bits >> 10) & 31, mantissa = bits & 1023;
  if (exponent === 31) return mantissa ? NaN : sign * Infinity;
  return sign * (exponent ? (1 + mantissa / 1024) * 2 ** (exponent - 15) : mantissa * 2 ** -24);
}

/** Inputs and outputs of a case of NumPy files. */
export async function numpyCase(folder, files) {
  const feeds = {}, want = {};
  for (const file of files) {
    const match = /^(input|output)_(.*)\.npy$/.exec(file);
    if (match) (match[1] === 'input' ? feeds : want)[match[2]] = await npy(`${folder}/${file}`);
  }
  return { feeds, want };
}

/** max |got - want| / max |want|. */
export function relativeError(got, want) {
  if (got.dims.join() !== want.dims.join()) return Infinity;
  let error = 0, largest = 0;
  for (let i = 0; i < want.data.length; i++) {
    if (!Number.isFinite(Number(got.data[i]))) return Infinity;
    error = Math.max(error, Math.abs(Number(got.data[i]) - Number(want.data[i])));
    largest = Math.max(largest, Math.abs(Number(want.data[i])));
  }
  return error === 0 ? 0 : error / largest;
}
