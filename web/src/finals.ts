// Finals in whole runs: the core says which run to time and decides, this times it.
import { sampled, SHORTEST_NS, timed } from './clock.js';
import type { FinalsEnded } from './core.js';
import { endsTuning, messageOf } from './error.js';
import type { Recording } from './recording.js';
import type { InTurn, Tuned } from './tuner.js';
import { decode } from './words.js';

/** Plays the finals of the kernels raced. A whole run takes about `runNs`; once `isLate`, as few as may be are timed. */
export async function finals(inTurn: InTurn, runNs: number, isLate: () => boolean, signal: AbortSignal | undefined): Promise<FinalsEnded> {
  await inTurn(({ gpu, core }) => core.finals(gpu.timestamps ? SHORTEST_NS : undefined));
  while (await inTurn((tuned) => heat(tuned, runNs, isLate()))) signal?.throwIfAborted();
  return inTurn(async ({ core, run, preparing }) => {
    const ended = await core.finalsEnd();
    (await run(preparing)).plan.forget();
    return ended;
  });
}

/** Times the next run; false when all is decided. */
async function heat({ gpu, core, run, preparing }: Tuned, runNs: number, isLate: boolean): Promise<boolean> {
  const { plan } = await run(preparing); // the core is to speak of this run
  const next = await core.finalsNext(isLate);
  if (next === null) return false;
  let recording: Recording | undefined;
  try {
    recording = await plan.realise(decode(await core.words()), preparing);
    const dispatches = recording.dispatches();
    const times = next.whole ? [await sampled(gpu, dispatches, runNs)] : await timed(gpu, dispatches.map((dispatch) => [dispatch]));
    await core.finalsTimed(times);
  } catch (error) {
    if (next.is_default || endsTuning(error)) throw error;
    await core.finalsFailed(messageOf(error));
  } finally {
    recording?.parameters?.destroy();
  }
  return true;
}
