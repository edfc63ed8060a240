// Writes small ONNX models, as bytes.
const varint = (value) => {
  const bytes = [];
  for (; value > 127; value = Math.floor(value / 128)) bytes.push((value % 128) | 128);
  return [...bytes, value];
};
const number = (field, value) => [...varint(field * 8), ...varint(value)];
const bytes = (field, value) => {
  const inner = typeof value === 'string' ? new TextEncoder().encode(value) : value;
  return [...varint(field * 8 + 2), ...varint(inner.length), ...inner];
};
const types = { float32: [1, Float32Array], int64: [7, BigInt64Array], bool: [9, Uint8Array] };

/** An input or output, float32 unless a type is given; a dimension is a number or a symbol. */
const valueInfo = ([name, dims, type = 'float32']) => {
  const dim = (size) => bytes(1, typeof size === 'number' ? number(1, size) : bytes(2, size));
  return [...bytes(1, name), ...bytes(2, bytes(1, [...number(1, types[type][0]), ...bytes(2, dims.flatMap(dim))]))];
};

/** A constant: its values, or `{ location, offset, length }` of external data. */
const tensor = ([name, dims, values, type = 'float32']) => {
  const [code, array] = types[type];
  const head = [...dims.flatMap((dim) => number(1, dim)), ...number(2, code), ...bytes(8, name)];
  if (Array.isArray(values)) return [...head, ...bytes(9, new Uint8Array(array.from(values).buffer))];
  const entries = Object.entries(values).flatMap(([key, value]) => bytes(13, [...bytes(1, key), ...bytes(2, String(value))]));
  return [...head, ...entries, ...number(14, 1)];
};

/** An integer, or a graph as `model` takes it. */
const attribute = ([name, value]) => [
  ...bytes(1, name), ...(typeof value === 'number' ? [...number(3, value), ...number(20, 2)] : [...bytes(6, graph(value)), ...number(20, 5)]),
];

/** `[op, 'input input', 'output output', { attribute: value }]`. */
const node = ([op, inputs, outputs, attributes = {}]) => [
  ...inputs.split(' ').flatMap((name) => bytes(1, name)), ...outputs.split(' ').flatMap((name) => bytes(2, name)), ...bytes(4, op),
  ...Object.entries(attributes).flatMap((entry) => bytes(5, attribute(entry))),
];

const graph = ({ inputs, constants = [], nodes, outputs }) => [
  ...nodes.flatMap((row) => bytes(1, node(row))), ...bytes(2, 'test'), ...constants.flatMap((row) => bytes(5, tensor(row))),
  ...inputs.flatMap((row) => bytes(11, valueInfo(row))), ...outputs.flatMap((row) => bytes(12, valueInfo(row))),
];

export const model = (whole) => new Uint8Array([...number(1, 9), ...bytes(7, graph(whole)), ...bytes(8, number(2, 17))]);
