// What the device can do at best, measured once and kept with the tuning records: the roof of the roofline.
import { sampled } from './clock.js';
import type { Peaks, ProbeText } from './core.js';
import { scoped } from './gpu.js';
import { compile } from './kernels.js';
import type { Dispatch } from './recording.js';
import type { InTurn } from './tuner.js';
import { STORAGE_USAGE } from './weights.js';

/** Samples of each probe; the best counts. */
const SAMPLES = 3;

/** The adapter's peaks, and the line that records them where they were not known. */
export async function peaks(inTurn: InTurn): Promise<{ peaks: Peaks; line: string | undefined }> {
  const known = await inTurn(({ core }) => core.peaks());
  if (known !== null) return { peaks: known, line: undefined };
  const times: number[] = [];
  for (const probe of await inTurn(({ core }) => core.probes())) times.push(await best(inTurn, probe));
  return inTurn(async ({ core }) => {
    const line = await core.probed(new Float64Array(times), Date.now() / 1000);
    return { peaks: (await core.peaks()) as Peaks, line };
  });
}

/** Nanoseconds of a dispatch of the probe. */
async function best(inTurn: InTurn, { label, source, bindings, buffer_bytes, workgroups }: ProbeText): Promise<number> {
  const gpu = await inTurn(async ({ gpu }) => gpu);
  const { device } = gpu;
  const pipeline = await compile(gpu, { label, source, bindings });
  const { buffers, group } = await scoped(gpu, label, () => {
    const buffers = buffer_bytes.map((size) => device.createBuffer({ label, size, usage: STORAGE_USAGE }));
    const entries = buffers.map((buffer, binding) => ({ binding, resource: { buffer } }));
    return { buffers, group: device.createBindGroup({ label, layout: pipeline.getBindGroupLayout(0), entries }) };
  });
  const dispatch: Dispatch = { pipeline, group, x: workgroups, y: 1, z: 1, step: 0, kernel: 0 };
  const sample = (guessNs: number) => inTurn(() => sampled(gpu, [dispatch], guessNs));
  try {
    let ns = await sample(Number.MAX_SAFE_INTEGER); // some drivers compile at the first dispatch
    for (let i = 0; i < SAMPLES; i++) ns = Math.min(ns, await sample(ns));
    return ns;
  } finally {
    for (const buffer of buffers) buffer.destroy();
  }
}
