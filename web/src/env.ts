/** Where the WASM core comes from. */
export interface WasmEnv {
  /** The folder of `core.wasm`, ending in `/`, or `{ wasm }` with the file itself. */
  wasmPaths?: string | { wasm?: string | URL };
  /** The contents of `core.wasm`. */
  wasmBinary?: ArrayBufferLike | Uint8Array;
  /** onnxruntime-web's; there are no threads here, so it has no effect. */
  numThreads?: number;
  /** onnxruntime-web's; it has no effect. */
  simd?: boolean;
  /** onnxruntime-web's. Use `createWorkerSession` instead; `true` is refused. */
  proxy?: boolean;
}

/** Which GPU is used. */
export interface WebGpuEnv {
  /** Handed to `requestAdapter`. */
  powerPreference?: GPUPowerPreference;
  /** Handed to `requestAdapter`. */
  forceFallbackAdapter?: boolean;
  /** An implementation of WebGPU where `navigator.gpu` is none, as npm `webgpu` under Node. */
  gpu?: GPU;
  /** The adapter to use. */
  adapter?: GPUAdapter;
  /** The device to use; it is not recovered when lost. Afterwards, the device in use. */
  device?: GPUDevice;
}

export interface Env {
  /** What is written to the console. */
  logLevel: 'verbose' | 'info' | 'warning' | 'error' | 'fatal';
  /** More of it. */
  debug: boolean;
  /** Versions by library, as `{ tilewright: '0.1.0' }`. */
  readonly versions: { readonly common: string; readonly tilewright: string; readonly web?: string };
  readonly wasm: WasmEnv;
  readonly webgpu: WebGpuEnv;
}

/** Settings of the page; they count for sessions created later. */
export const env: Env = {
  logLevel: 'warning',
  debug: false,
  versions: { common: '1.30.0', tilewright: '0.1.0' },
  wasm: {},
  webgpu: {},
};

/** Writes to the console what `logLevel` lets through. */
export function log(level: 'info' | 'warning', message: string): void {
  const shown = env.debug || env.logLevel === 'verbose' || env.logLevel === 'info';
  if (level === 'warning' && (shown || env.logLevel === 'warning')) console.warn(`tilewright: ${message}`);
  else if (level === 'info' && shown) console.info(`tilewright: ${message}`);
}
