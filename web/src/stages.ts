// A run, stage by stage where its shapes or conditions depend on values that it computes.
import type { DeviceModel } from './device.js';
import { bytesIn } from './dtype.js';
import { staying } from './lend.js';
import type { Preparing, Run } from './plan.js';
import type { BufferRange } from './recording.js';
import { type Flight, type Given, submit, type Wanted } from './run.js';

/** Submits a run. Of several stages, all but the last are through when this returns, and `onStage` has seen them. */
export async function submitAll(
  model: DeviceModel,
  given: readonly Given[],
  wanted: readonly Wanted[],
  preparing: Preparing,
  onStage?: (run: Run, flight: Flight) => Promise<void>,
): Promise<{ readonly run: Run; readonly flight: Flight }> {
  const { gpu, core, staging } = model;
  const stay = staying(given, wanted);
  let left: readonly BufferRange[] = [];
  let run: Run | undefined = await model.first(given, stay, preparing);
  for (;;) {
    if (run === undefined) {
      left = [];
      run = await model.first(given, stay, preparing);
    } else if (!run.isStage) {
      return { run, flight: submit(gpu, staging, run, given, wanted, left) };
    } else {
      const read: Wanted[] = run.outputs.map((_, output) => ({ output, location: 'cpu', into: undefined }));
      const flight = submit(gpu, staging, run, given, read, left);
      for (const { data } of Object.values(await flight.outputs)) await core.handOn(bytesIn(data as ArrayBufferView));
      await onStage?.(run, flight);
      ({ left } = run.recording);
      run = await model.next(given, stay, preparing);
    }
  }
}
