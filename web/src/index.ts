/**
 * Tilewright in the browser: ONNX models on WebGPU, with the interface of onnxruntime-common.
 *
 * ```js
 * import { InferenceSession, Tensor } from 'tilewright';
 * const session = await InferenceSession.create('model.onnx');
 * const { y } = await session.run({ x: new Tensor('float32', [1, 2, 3, 4], [2, 2]) });
 * ```
 */
export { type TensorData, type TensorType } from './dtype.js';
export { type Env, env, type WasmEnv, type WebGpuEnv } from './env.js';
export { type ErrorKind, TilewrightError } from './error.js';
export { type ExternalData, type OutputLocation, type Progress, type RunOptions, type SessionOptions } from './options.js';
export { InferenceSession } from './session.js';
export { exportRecords, importRecords } from './records.js';
export { type FileLike } from './source.js';
export { type TunedKernel, type TuneOptions, type TuneProgress, type TuneReport } from './tuner.js';
export { type Feeds, type Fetches, type TensorLike, type ValueMetadata } from './values.js';
export { createWorkerSession, type WorkerSession } from './worker-session.js';
export { type GpuBufferOptions, Tensor, type TensorLocation } from './tensor.js';
