// The first sentence of target/test-data/minilm and what ONNX Runtime makes of it.
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

export const root = path.join(fileURLToPath(new URL('.', import.meta.url)), '../../..');

/** The elements of a NumPy file of int64 or float32. */
function elements(name) {
  const bytes = fs.readFileSync(path.join(root, 'target/test-data/minilm', name));
  const data = bytes.buffer.slice(bytes.byteOffset + 10 + bytes.readUInt16LE(8), bytes.byteOffset + bytes.length);
  return bytes.includes("'<i8'") ? Array.from(new BigInt64Array(data), Number) : Array.from(new Float32Array(data));
}

const mask = elements('attention_mask.npy');
const length = mask.indexOf(0);
export const ids = elements('input_ids.npy').slice(0, length);
const wanted = elements('embeddings.npy').slice(0, 384);

/** Throws where an embedding, of length 1 as ONNX Runtime's, is another. */
export function check(embedding) {
  const difference = Math.max(...wanted.map((want, i) => Math.abs(want - embedding[i])));
  if (!(embedding.length === wanted.length && difference < 1e-5)) throw new Error(`differs from ONNX Runtime's by ${difference}`);
  return `differs from ONNX Runtime's by ${difference.toExponential(1)}`;
}
