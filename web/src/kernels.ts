// Kernels: all that a run needs are compiled at once, while the page stays alive.
import type { KernelText } from './core.js';
import { messageOf, TilewrightError } from './error.js';
import { checkLost, type Gpu } from './gpu.js';

/** The compiled kernel; the same promise for the same text. */
export function compile(gpu: Gpu, text: Omit<KernelText, 'schedule'>): Promise<GPUComputePipeline> {
  const key = `${text.bindings.join()}\n${text.source}`;
  let pipeline = gpu.pipelines.get(key);
  if (pipeline === undefined) {
    pipeline = build(gpu, text);
    gpu.pipelines.set(key, pipeline);
    pipeline.catch(() => gpu.pipelines.delete(key));
  }
  return pipeline;
}

async function build(gpu: Gpu, { label, source, bindings }: Omit<KernelText, 'schedule'>): Promise<GPUComputePipeline> {
  checkLost(gpu);
  const { device } = gpu;
  const storage = bindings.filter((type) => type !== 'uniform').length;
  const most = device.limits.maxStorageBuffersPerShaderStage;
  if (storage > most) {
    throw new TilewrightError('limit', `kernel ${label}: has ${storage} storage bindings, the device allows ${most}`);
  }
  device.pushErrorScope('validation');
  const module = device.createShaderModule({ label, code: source });
  const invalid = device.popErrorScope();
  const layout = device.createBindGroupLayout({
    label,
    entries: bindings.map((type, binding) => ({ binding, visibility: 4 /* COMPUTE */, buffer: { type } })),
  });
  const pipeline = device.createComputePipelineAsync({
    label,
    layout: device.createPipelineLayout({ label, bindGroupLayouts: [layout] }),
    compute: { module, entryPoint: 'main' },
  });
  try {
    const [, compiled] = await Promise.all([invalid, pipeline]);
    return compiled;
  } catch (error) {
    checkLost(gpu);
    const message = (await compilerText(module, source)) ?? messageOf(error);
    throw new TilewrightError('device', `device error in kernel "${label}": ${message}`, { cause: error });
  }
}

/** The compiler's errors with their source lines. */
async function compilerText(module: GPUShaderModule, source: string): Promise<string | undefined> {
  const { messages } = await module.getCompilationInfo();
  const errors = messages.filter((message) => message.type === 'error');
  if (errors.length === 0) return undefined;
  const lines = source.split('\n');
  return errors.map((e) => `${e.message} (line ${e.lineNum}: ${lines[e.lineNum - 1]?.trim() ?? ''})`).join('; ');
}
