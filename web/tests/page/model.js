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
const float32 = 1;

/** A float32 input or output; a dimension is a number or a symbol. */
const valueInfo = ([name, dims]) => {
  const dim = (size) => bytes(1, typeof size === 'number' ? number(1, size) : bytes(2, size));
  return [...bytes(1, name), ...bytes(2, bytes(1, [...number(1, float32), ...bytes(2, dims.flatMap(dim))]))];
};

/** A float32 constant: its values, or `{ location, offset, length }` of external data. */
const tensor = ([name, dims, values]) => {
  const head = [...dims.flatMap((dim) => number(1, dim)), ...number(2, float32), ...bytes(8, name)];
  if (Array.isArray(values)) return [...head, ...bytes(9, new Uint8Array(Float32Array.from(values).buffer))];
  const entries = Object.entries(values).flatMap(([key, value]) => bytes(13, [...bytes(1, key), ...bytes(2, String(value))]));
  return [...head, ...entries, ...number(14, 1)];
};

/** `[op, 'input input', 'output', { attribute: integer }]`. */
const node = ([op, inputs, output, attributes = {}]) => [
  ...inputs.split(' ').flatMap((name) => bytes(1, name)), ...bytes(2, output), ...bytes(4, op),
  ...Object.entries(attributes).flatMap(([name, value]) => bytes(5, [...bytes(1, name), ...number(3, value), ...number(20, 2)])),
];

export function model({ inputs, constants = [], nodes, outputs }) {
  const graph = [
    ...nodes.flatMap((row) => bytes(1, node(row))), ...bytes(2, 'test'), ...constants.flatMap((row) => bytes(5, tensor(row))),
    ...inputs.flatMap((row) => bytes(11, valueInfo(row))), ...outputs.flatMap((row) => bytes(12, valueInfo(row))),
  ];
  return new Uint8Array([...number(1, 9), ...bytes(7, graph), ...bytes(8, number(2, 17))]);
}
