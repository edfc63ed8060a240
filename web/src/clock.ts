// How long dispatches take: by timestamps, or by the page's clock where the device has none.
import { type Gpu, scoped } from './gpu.js';
import { type Dispatch, replay } from './recording.js';

/** A sample lasts this long at the least: browsers round timestamps to a tenth of a millisecond. */
const SAMPLE_NS = 10e6;

/** A time of less than ten of those steps says nothing. */
export const SHORTEST_NS = 1e6;

/** Repetitions in one sample at the most. */
const MOST_REPEATS = 256;

/** Query sets have no more entries. */
const MOST_QUERIES = 4096;

/**
 * Nanoseconds of `dispatches` together, the best of so many samples. They take about `guessNs` and are repeated to be
 * well above the clock's steps.
 */
export async function sampled(gpu: Gpu, dispatches: readonly Dispatch[], guessNs: number, samples = 1): Promise<number> {
  const repeats = Math.max(1, Math.min(MOST_REPEATS, Math.ceil(SAMPLE_NS / Math.max(guessNs, 1))));
  const sample = Array.from({ length: repeats }, () => dispatches).flat();
  return Math.min(...(await timed(gpu, Array.from({ length: samples }, () => sample)))) / repeats;
}

/** Nanoseconds of each of `groups`, which run one after another, each in a pass of its own. */
export async function timed(gpu: Gpu, groups: readonly (readonly Dispatch[])[]): Promise<number[]> {
  if (!gpu.timestamps) return byPageClock(gpu, groups);
  const times: number[] = [];
  for (let at = 0; at < groups.length; at += MOST_QUERIES / 2) {
    times.push(...(await byTimestamps(gpu, groups.slice(at, at + MOST_QUERIES / 2))));
  }
  return times;
}

async function byTimestamps(gpu: Gpu, groups: readonly (readonly Dispatch[])[]): Promise<number[]> {
  const { device } = gpu;
  const count = groups.length * 2;
  const size = count * 8;
  const querySet = device.createQuerySet({ type: 'timestamp', count });
  const resolved = device.createBuffer({ size, usage: 0x200 /* QUERY_RESOLVE */ | 0x4 /* COPY_SRC */ });
  const mappable = device.createBuffer({ size, usage: 0x1 /* MAP_READ */ | 0x8 /* COPY_DST */ });
  try {
    await scoped(gpu, 'timing', () => {
      const encoder = device.createCommandEncoder();
      groups.forEach((dispatches, i) => {
        const timestampWrites = { querySet, beginningOfPassWriteIndex: 2 * i, endOfPassWriteIndex: 2 * i + 1 };
        const pass = encoder.beginComputePass({ timestampWrites });
        replay(pass, dispatches);
        pass.end();
      });
      encoder.resolveQuerySet(querySet, 0, count, resolved, 0);
      encoder.copyBufferToBuffer(resolved, 0, mappable, 0, size);
      device.queue.submit([encoder.finish()]);
    });
    await mappable.mapAsync(1 /* READ */);
    const stamps = new BigUint64Array(mappable.getMappedRange());
    return groups.map((_, i) => Math.max(0, Number((stamps[2 * i + 1] as bigint) - (stamps[2 * i] as bigint))));
  } finally {
    querySet.destroy();
    resolved.destroy();
    mappable.destroy();
  }
}

async function byPageClock(gpu: Gpu, groups: readonly (readonly Dispatch[])[]): Promise<number[]> {
  const times: number[] = [];
  const { queue } = gpu.device;
  await queue.onSubmittedWorkDone();
  for (const dispatches of groups) {
    const start = performance.now();
    await scoped(gpu, 'timing', () => {
      const encoder = gpu.device.createCommandEncoder();
      const pass = encoder.beginComputePass();
      replay(pass, dispatches);
      pass.end();
      queue.submit([encoder.finish()]);
    });
    await queue.onSubmittedWorkDone();
    times.push((performance.now() - start) * 1e6);
  }
  return times;
}
