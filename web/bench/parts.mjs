// What is measured: a row per part, with the job that web/bench/page does.
import { fileURLToPath } from 'node:url';

export const parts = {
  minilm: {
    title: 'MiniLM, 128 tokens, a run', wanted: 5,
    job: { kind: 'network', model: 'minilm', name: 'b1_s128' }, engines: ['tilewright', 'onnxruntime-web'],
  },
  matmul: {
    title: 'matrix product 1024 x 1024 x 1024, float32', wanted: 4,
    job: { kind: 'matmul', size: 1024 }, engines: ['tilewright', 'onnxruntime-web', 'TensorFlow.js'],
  },
  resnet18: {
    title: 'ResNet-18, a run', wanted: 5,
    job: { kind: 'network', model: 'resnet18', name: 'b1' }, engines: ['tilewright', 'onnxruntime-web'],
  },
  navigation: {
    title: 'MiniLM, 128 tokens: from navigation to the first result, all files cached', wanted: 5, navigates: true,
    job: { kind: 'network', model: 'minilm', name: 'b1_s128' }, engines: ['tilewright', 'onnxruntime-web'],
  },
};

/** A line of JSON for each round measured. */
export const roundsFile = fileURLToPath(new URL('../../target/web/bench/rounds.jsonl', import.meta.url));
