// A run, stage by stage where its shapes or conditions depend on values that it computes.
import type { Core } from './core.js';
import { bytesIn } from './dtype.js';
import type { Gpu } from './gpu.js';
import type { BufferRange, Run } from './plan.js';
import { type Flight, type Given, submit, type Wanted } from './run.js';
import type { Staging } from './staging.js';

/** Prepares the first stage of a run, or the one that is next: none where the run must begin again. */
export type PrepareStage = (isFirst: boolean) => Promise<Run | undefined>;

/** What a run needs besides its inputs. */
export interface Running {
  readonly gpu: Gpu;
  readonly core: Core;
  readonly staging: Staging;
  readonly prepare: PrepareStage;
  /** Sees every stage that has run but the last. */
  readonly onStage?: (run: Run) => Promise<void>;
}

/** Submits a run. Of several stages, all but the last are through when this returns. */
export async function submitAll(
  { gpu, core, staging, prepare, onStage }: Running,
  given: readonly Given[],
  wanted: readonly Wanted[],
): Promise<{ readonly run: Run; readonly flight: Flight }> {
  let left: readonly BufferRange[] = [];
  let run = await prepare(true);
  for (;;) {
    if (run === undefined) {
      left = [];
      run = await prepare(true);
    } else if (!run.isStage) {
      return { run, flight: submit(gpu, staging, run, given, wanted, left) };
    } else {
      const { outputs } = submit(gpu, staging, run, given, [{ output: 0, location: 'cpu', into: undefined }], left);
      for (const { data } of Object.values(await outputs)) await core.handOn(bytesIn(data as ArrayBufferView));
      await onStage?.(run);
      ({ left } = run.recording);
      run = await prepare(false);
    }
  }
}
