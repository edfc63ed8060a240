// Inputs and expected outputs: of a network from NumPy's files, of a matrix product made here.
import { model } from '/tests/model.js';

const arrays = { '<f4': ['float32', Float32Array], '<i8': ['int64', BigInt64Array] };

async function npy(url) {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${url}: ${response.status}`);
  const bytes = await response.arrayBuffer();
  const length = new DataView(bytes).getUint16(8, true);
  const header = new TextDecoder().decode(new Uint8Array(bytes, 10, length));
  const [type, Data] = arrays[/'descr': '([^']+)'/.exec(header)[1]];
  const dims = (/'shape': \(([^)]*)\)/.exec(header)[1].match(/\d+/g) ?? []).map(Number);
  return { type, dims, data: new Data(bytes.slice(10 + length)) };
}

/** max |got - want| / max |want| of an output. */
function relativeError(got, want) {
  if (got?.dims.join() !== want.dims.join()) return Infinity;
  let [error, largest] = [0, 0];
  want.data.forEach((value, i) => {
    error = Math.max(error, Math.abs(got.data[i] - value));
    largest = Math.max(largest, Math.abs(value));
  });
  return Number.isNaN(error) ? Infinity : error / largest;
}

/** The inputs of a network's case; `error` compares all outputs with ONNX Runtime's. */
export async function network({ model, name, files }) {
  const folder = `/data/models/${model}.cases/${name}`;
  const of = (role) => files.filter((file) => file.startsWith(role)).map((file) => [file.slice(role.length, -'.npy'.length), file]);
  const inputs = Object.fromEntries(await Promise.all(of('input_').map(async ([key, file]) => [key, await npy(`${folder}/${file}`)])));
  const error = async (outputs) => {
    const byFile = Object.fromEntries(Object.entries(outputs).map(([key, value]) => [key.replaceAll('/', '_'), value]));
    const errors = await Promise.all(of('output_').map(async ([key, file]) => relativeError(byFile[key], await npy(`${folder}/${file}`))));
    return Math.max(...errors);
  };
  return { model: `/data/models/${model}.onnx`, inputs, error };
}

/** Elements of a product that are compared with their sums in float64. */
const COMPARED = 2000;

/** `c = a b` of two matrices of `size` x `size`. */
export async function matmul({ size }) {
  const bytes = model({ inputs: [['a', [size, size]], ['b', [size, size]]], outputs: [['c', [size, size]]], nodes: [['MatMul', 'a b', 'c']] });
  const random = (seed) => Float32Array.from({ length: size * size }, (_, i) => ((Math.imul(i + seed, 2654435761) >>> 8) & 0xffff) / 65536 - 0.5);
  const [a, b] = [random(1), random(7919)].map((data) => ({ type: 'float32', dims: [size, size], data }));
  const error = async ({ c }) => {
    if (c.dims.join() !== `${size},${size}`) return Infinity;
    const at = Array.from({ length: COMPARED }, (_, i) => (i * 7907) % (size * size));
    const sums = at.map((index) => {
      let sum = 0;
      for (let k = 0; k < size; k++) sum += a.data[Math.floor(index / size) * size + k] * b.data[k * size + (index % size)];
      return sum;
    });
    return relativeError({ dims: [COMPARED], data: at.map((index) => c.data[index]) }, { dims: [COMPARED], data: sums });
  };
  return { model: bytes, inputs: { a, b }, error };
}
