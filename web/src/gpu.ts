// The device of the page: one for all sessions, opened when the first wants it and again after a loss.
import { env, log } from './env.js';
import { messageOf, TilewrightError } from './error.js';

/** A device, and what the core wants to know about it. */
export interface Gpu {
  readonly device: GPUDevice;
  readonly info: GPUAdapterInfo;
  readonly f16: boolean;
  /** Whether the adapter is software. */
  readonly cpu: boolean;
  readonly timestamps: boolean;
  /** The subgroup matrices that it multiplies. */
  readonly subgroupMatrices: readonly SubgroupMatrix[];
  /** Compiled kernels by source and bindings, of all sessions. */
  readonly pipelines: Map<string, Promise<GPUComputePipeline>>;
  /** Why the device was lost, once it is. */
  lost: GPUDeviceLostInfo | undefined;
}

/** Parts of WGSL that there is a use for. */
const LANGUAGE = ['packed_4x8_integer_dot_product'] as const;

/** Sizes and element types that a device can multiply: A is m x k of `ab`, C is m x n of `c`. */
export interface SubgroupMatrix {
  readonly m: number;
  readonly n: number;
  readonly k: number;
  readonly ab: string;
  readonly c: string;
}

/** Chromium has it behind a flag. */
const SUBGROUP_MATRIX = 'chromium-experimental-subgroup-matrix';

/** Features that there is a use for. */
const WANTED: readonly string[] = ['shader-f16', 'subgroups', 'timestamp-query', SUBGROUP_MATRIX];

const LIMITS = [
  'maxStorageBufferBindingSize',
  'maxBufferSize',
  'maxStorageBuffersPerShaderStage',
  'maxComputeWorkgroupSizeX',
  'maxComputeWorkgroupSizeY',
  'maxComputeWorkgroupSizeZ',
  'maxComputeInvocationsPerWorkgroup',
  'maxComputeWorkgroupStorageSize',
  'maxComputeWorkgroupsPerDimension',
] as const satisfies readonly (keyof GPUSupportedLimits)[];

const ALIGNMENTS = ['minStorageBufferOffsetAlignment', 'minUniformBufferOffsetAlignment'] as const;

let opening: Promise<Gpu> | undefined;

/** The page's device. */
export function openGpu(): Promise<Gpu> {
  opening ??= request().then(
    (gpu) => {
      void gpu.device.lost.then((info) => {
        gpu.lost = info;
        opening = undefined;
        if (env.webgpu.device === gpu.device) delete env.webgpu.device;
        if (info.reason !== 'destroyed') log('warning', `the GPU device was lost: ${info.message}`);
      });
      return gpu;
    },
    (error: unknown) => {
      opening = undefined;
      throw error;
    },
  );
  return opening;
}

async function request(): Promise<Gpu> {
  const given = env.webgpu.device;
  if (given !== undefined) return described(given, given.adapterInfo);
  const adapter = env.webgpu.adapter ?? (await requestAdapter());
  const requiredLimits: Record<string, number> = {};
  for (const name of LIMITS) requiredLimits[name] = adapter.limits[name];
  const requiredFeatures = WANTED.filter((name) => adapter.features.has(name)) as GPUFeatureName[];
  try {
    const device = await adapter.requestDevice({ label: 'tilewright', requiredFeatures, requiredLimits });
    env.webgpu.device = device;
    return described(device, adapter.info);
  } catch (error) {
    throw new TilewrightError('adapter', `the adapter gives no device: ${messageOf(error)}`, { cause: error });
  }
}

/** The page's WebGPU, or the one that was given. */
function implementation(): GPU | undefined {
  return env.webgpu.gpu ?? (globalThis as { navigator?: { gpu?: GPU } }).navigator?.gpu;
}

async function requestAdapter(): Promise<GPUAdapter> {
  const gpu = implementation();
  if (gpu === undefined) {
    const insecure = (globalThis as { isSecureContext?: boolean }).isSecureContext === false;
    const why = insecure ? 'this page is not served over https' : 'this browser or runtime has none, or has it turned off';
    throw new TilewrightError('adapter', `no WebGPU: ${why} (under Node give env.webgpu.gpu)`);
  }
  const { powerPreference, forceFallbackAdapter } = env.webgpu;
  const adapter = await gpu.requestAdapter({
    ...(powerPreference !== undefined && { powerPreference }),
    ...(forceFallbackAdapter !== undefined && { forceFallbackAdapter }),
  });
  if (adapter === null) throw new TilewrightError('adapter', 'WebGPU has no adapter here: no GPU, or its driver is blocked');
  return adapter;
}

function described(device: GPUDevice, info: GPUAdapterInfo): Gpu {
  const software = `${info.vendor} ${info.architecture} ${info.device} ${info.description}`.toLowerCase();
  return {
    device,
    info,
    f16: device.features.has('shader-f16'),
    cpu: info.isFallbackAdapter === true || /swiftshader|llvmpipe|basic render/.test(software),
    timestamps: device.features.has('timestamp-query'),
    subgroupMatrices: device.features.has(SUBGROUP_MATRIX) ? subgroupMatricesOf(info) : [],
    pipelines: new Map(),
    lost: undefined,
  };
}

/** What the device and its WGSL have beyond what all have. */
export function featuresOf(device: GPUDevice): string[] {
  const language: ReadonlySet<string> | undefined = implementation()?.wgslLanguageFeatures;
  return [...device.features, ...LANGUAGE.filter((name) => language?.has(name))];
}

function subgroupMatricesOf(info: GPUAdapterInfo): SubgroupMatrix[] {
  type Config = { readonly M: number; readonly N: number; readonly K: number; readonly componentType: string; readonly resultComponentType: string };
  const { subgroupMatrixConfigs = [] } = info as { subgroupMatrixConfigs?: Iterable<Config> };
  return Array.from(subgroupMatrixConfigs, ({ M, N, K, componentType, resultComponentType }) => ({ m: M, n: N, k: K, ab: componentType, c: resultComponentType }));
}

/** The device's limits as numbers. */
export function limitsOf(device: GPUDevice): Record<string, number> {
  const found: Record<string, number> = {};
  for (const name of [...LIMITS, ...ALIGNMENTS]) found[name] = device.limits[name];
  return found;
}

/** The error of a lost device. */
export function lostError(info: GPUDeviceLostInfo): TilewrightError {
  const why = info.message === '' ? info.reason : info.message;
  return new TilewrightError('lost', `the GPU device was lost: ${why}`);
}

/** Throws once the device is lost. */
export function checkLost(gpu: Gpu): void {
  if (gpu.lost !== undefined) throw lostError(gpu.lost);
}

/** Does `work` and throws what the device says about it, as an error of `place`. */
export async function scoped<T>(gpu: Gpu, place: string, work: () => T): Promise<T> {
  checkLost(gpu);
  const { device } = gpu;
  device.pushErrorScope('out-of-memory');
  device.pushErrorScope('validation');
  let result: T;
  let errors: Promise<(GPUError | null)[]>;
  try {
    result = work();
  } finally {
    errors = Promise.all([device.popErrorScope(), device.popErrorScope()]);
  }
  const [validation, memory] = await errors.catch(async (error: unknown) => {
    throw await failure(gpu, place, error);
  });
  if (memory) throw new TilewrightError('memory', `out of device memory: ${place}: ${memory.message}`);
  if (validation) throw new TilewrightError('device', `device error in ${place}: ${validation.message}`);
  return result;
}

/** What to say of a rejected promise of the device: its loss ends what waits for it before it is announced. */
export async function failure(gpu: Gpu, place: string, error: unknown): Promise<TilewrightError> {
  const soon = new Promise<undefined>((go) => setTimeout(go, 100));
  const info = gpu.lost ?? (await Promise.race([gpu.device.lost, soon]));
  if (info) return lostError(info);
  return new TilewrightError('device', `device error in ${place}: ${messageOf(error)}`, { cause: error });
}

/** Gives the page a turn. */
export function turn(): Promise<void> {
  return new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => {
      port1.close();
      resolve();
    };
    port2.postMessage(null);
  });
}

/** The promise's result, or the signal's reason. */
export function until<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return promise;
  const { promise: aborted, reject } = Promise.withResolvers<never>();
  const abort = () => reject(signal.reason);
  if (signal.aborted) abort();
  signal.addEventListener('abort', abort, { once: true });
  promise.catch(() => {}); // nobody waits for it any more once the signal has spoken
  return Promise.race([promise, aborted]).finally(() => signal.removeEventListener('abort', abort));
}

/** Gives the page a turn whenever work has held it for some milliseconds. */
export class Turns {
  #since = performance.now();

  constructor(readonly signal?: AbortSignal | undefined) {}

  async due(): Promise<void> {
    this.signal?.throwIfAborted();
    if (performance.now() - this.#since < 8) return;
    await turn();
    this.#since = performance.now();
    this.signal?.throwIfAborted();
  }
}
