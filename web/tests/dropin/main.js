// @huggingface/transformers as it is, its feature-extraction pipeline on local files.
import { env, pipeline } from '@huggingface/transformers';

window.embed = async (sentences) => {
  env.allowRemoteModels = false;
  env.allowLocalModels = true;
  env.localModelPath = '/models/';
  // Its default is a CDN.
  if (import.meta.env.VITE_ENGINE === 'ort') env.backends.onnx.wasm.wasmPaths = '/ort/';
  const start = performance.now();
  const extract = await pipeline('feature-extraction', 'minilm', { device: 'webgpu', dtype: 'fp32' });
  const created = performance.now();
  const output = await extract(sentences, { pooling: 'mean', normalize: true });
  return { dims: output.dims, data: [...output.data], createMs: created - start, firstMs: performance.now() - created };
};
