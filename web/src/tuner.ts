// Tuning: the core says what to try next and decides, this measures it, in the memory and with the data of a run.
import { sampled, timed } from './clock.js';
import type { Core, FinalsEnded, JobText, Peaks, TrialText } from './core.js';
import { endsTuning, messageOf } from './error.js';
import { finals } from './finals.js';
import { type Gpu, scoped } from './gpu.js';
import type { Preparing, Run } from './plan.js';
import { peaks as measurePeaks } from './probes.js';
import { type Dispatch, type Recording, replay } from './recording.js';
import { decode, type Range } from './words.js';

/** How much to tune. */
export interface TuneOptions {
  /** Time for all kernels together; 30 seconds unless said. What the adapter can do is measured before, once. */
  readonly budgetMs?: number;
  /** Candidates per kernel, the default included; 16 unless said. */
  readonly mostCandidates?: number;
  readonly onProgress?: (progress: TuneProgress) => void;
  readonly signal?: AbortSignal;
}

/** How far tuning has got. */
export interface TuneProgress {
  /** Number of the kernel at work, from 0, of `kernels`. */
  readonly kernel: number;
  readonly kernels: number;
  readonly label: string;
  /** What it computes first, as `gelu_5 float32 [1, 128, 1536]`. */
  readonly output: string;
  /** Its trials so far, the default first. */
  readonly trials: readonly TrialText[];
  /** What a dispatch of it must do at the least: operations of floats, and bytes moved. */
  readonly flops: number;
  readonly bytes: number;
  /** What the adapter can do at best. */
  readonly peaks: Peaks;
  /** Time of a whole run on the device, with the winners so far; it changes after each kernel. */
  readonly runNs: number;
}

/** A kernel, what it computes first, how often a run has it, and its trials. */
export interface TunedKernel {
  readonly label: string;
  readonly output: string;
  readonly uses: number;
  /** What a dispatch of it must do at the least: operations of floats, and bytes moved. */
  readonly flops: number;
  readonly bytes: number;
  /** The default first. What is `Rejected` was fast alone and slower in whole runs. */
  readonly trials: readonly TrialText[];
  /** Time of all its dispatches in a run by default and under the winner, where the clock can tell. */
  readonly inModelNs: readonly [number, number] | null;
}

/** What tuning found. */
export interface TuneReport {
  readonly kernels: readonly TunedKernel[];
  /** What the adapter can do at best. */
  readonly peaks: Peaks;
  /** Time of a whole run on the device by default ... */
  readonly beforeNs: number;
  /** ... and under the winners. */
  readonly afterNs: number;
  /** One line for each kernel, and one for the adapter's peaks if they are new, for `importRecords`. */
  readonly records: string;
}

/** What a tuner tunes: `run` prepares it, anew once schedules have changed. */
export interface Tuned {
  readonly gpu: Gpu;
  readonly core: Core;
  readonly run: (preparing: Preparing) => Promise<Run>;
  readonly preparing: Preparing;
}

/** The part of a budget that is for kernels on their own; the rest is for whole runs. */
const ALONE = 0.8;

/** Whole runs timed; the best counts. */
const WHOLE_RUNS = 3;

/** Does `work` when nothing else uses the run's memory. */
export type InTurn = <T>(work: (tuned: Tuned) => Promise<T>) => Promise<T>;

/** Tunes the kernels of a run, those first that take most of it. Between any two measurements others get their turn. */
export async function tune(inTurn: InTurn, options: TuneOptions): Promise<TuneReport> {
  const { budgetMs = 30_000, mostCandidates = 16, onProgress, signal } = options;
  const { peaks, line } = await measurePeaks(inTurn);
  const start = performance.now();
  const leftOf = (budgetMs: number) => Math.max(0, budgetMs - (performance.now() - start));
  let { runNs, jobs } = await inTurn(begin);
  let timeLeft = jobs.reduce((sum, job) => sum + job.total_ns, 0);
  const tell = (kernel: number, trials: readonly TrialText[]) => {
    const { label, output, flops, bytes } = jobs[kernel] as JobText;
    onProgress?.({ kernel, kernels: jobs.length, label, output, trials, flops, bytes, peaks, runNs });
  };
  for (const [kernel, { step, total_ns }] of jobs.entries()) {
    signal?.throwIfAborted();
    const budget = leftOf(budgetMs * ALONE) * (total_ns / Math.max(timeLeft, 1));
    timeLeft -= total_ns;
    let spent = 0;
    let going = await inTurn(async ({ core }) => (await core.race(kernel, budget, mostCandidates), true));
    while (going) {
      signal?.throwIfAborted();
      going = await inTurn(async (tuned) => {
        const begun = performance.now();
        const went = await raceStep(tuned, step, spent);
        spent += performance.now() - begun;
        tell(kernel, await tuned.core.raceTrials());
        return went;
      });
    }
    await inTurn(async (tuned) => {
      const trials = await tuned.core.raceTrials();
      await tuned.core.raceEnd(Date.now() / 1000);
      const run = await tuned.run(tuned.preparing);
      run.plan.forget();
      runNs = await wholeRun(tuned, runNs);
      tell(kernel, trials);
    });
  }
  const ended = await finals(inTurn, runNs, () => leftOf(budgetMs) === 0, signal);
  const [beforeNs, afterNs] = ended.whole_ns;
  runNs = afterNs;
  const kernels = jobs.map(({ label, output, uses, flops, bytes }, kernel): TunedKernel => {
    const { trials, in_model_ns } = ended.kernels[kernel] as FinalsEnded['kernels'][number];
    tell(kernel, trials);
    return { label, output, uses, flops, bytes, trials, inModelNs: in_model_ns };
  });
  const records = (line === undefined ? '' : `${line}\n`) + ended.records;
  return { kernels, peaks, beforeNs, afterNs, records };
}

async function begin(tuned: Tuned): Promise<{ runNs: number; jobs: readonly JobText[] }> {
  const { gpu, core } = tuned;
  const run = await tuned.run(tuned.preparing);
  const dispatches = run.recording.dispatches();
  const [guessNs = 0] = await timed(gpu, [dispatches]); // some drivers compile at the first dispatch
  const times = await timed(gpu, dispatches.map((dispatch) => [dispatch]));
  const stepNs: number[] = [];
  dispatches.forEach(({ step }, i) => {
    while (stepNs.length <= step) stepNs.push(0);
    stepNs[step] = (stepNs[step] ?? 0) + Math.max(1, times[i] ?? 0);
  });
  return { runNs: await wholeRun(tuned, guessNs), jobs: await core.jobs(stepNs) };
}

/** The best time of a whole run, which takes about `guessNs`. */
async function wholeRun({ gpu, run, preparing }: Tuned, guessNs: number): Promise<number> {
  return sampled(gpu, (await run(preparing)).recording.dispatches(), guessNs, WHOLE_RUNS);
}

/** Does the next thing of a race; false when it is over. */
async function raceStep({ gpu, core, run, preparing }: Tuned, step: number, spentMs: number): Promise<boolean> {
  const { plan } = await run(preparing); // the core is to speak of this run
  const next = await core.raceNext(spentMs);
  if (next === null) return false;
  const words = await core.words();
  let recording: Recording | undefined;
  try {
    const start = performance.now();
    recording = await plan.realise(decode(words), preparing);
    if (next.check) {
      // Recorded anew if the candidate wanted more memory.
      const before = (await run(preparing)).recording.dispatches().filter((dispatch) => dispatch.step < step);
      const output = await outputOf(gpu, before, recording);
      await core.raceChecked(output, (performance.now() - start) * 1e6);
    } else {
      await core.raceSampled(await sampled(gpu, recording.dispatches(), next.guess_ns ?? Number.MAX_SAFE_INTEGER));
    }
  } catch (error) {
    if (next.trial === 0 || endsTuning(error)) throw error;
    await core.raceFailed(messageOf(error));
  } finally {
    recording?.parameters?.destroy();
  }
  return true;
}

/** What a candidate writes into memory filled with NaN, after everything that the run does before it. */
async function outputOf(gpu: Gpu, before: readonly Dispatch[], recording: Recording): Promise<Uint8Array> {
  const { device } = gpu;
  const dispatches = recording.dispatches();
  const output = recording.place(recording.readbacks[0] as Range);
  const mappable = device.createBuffer({ size: output.size, usage: 0x1 /* MAP_READ */ | 0x8 /* COPY_DST */ });
  try {
    await scoped(gpu, `kernel "${dispatches.at(-1)?.pipeline.label ?? ''}"`, () => {
      const submit = (record: (encoder: GPUCommandEncoder) => void) => {
        const encoder = device.createCommandEncoder();
        record(encoder);
        device.queue.submit([encoder.finish()]);
      };
      const pass = (encoder: GPUCommandEncoder, dispatches: readonly Dispatch[]) => {
        const pass = encoder.beginComputePass();
        replay(pass, dispatches);
        pass.end();
      };
      submit((encoder) => pass(encoder, before));
      device.queue.writeBuffer(output.buffer, output.offset, new Uint8Array(output.size).fill(0xff));
      submit((encoder) => {
        pass(encoder, dispatches);
        encoder.copyBufferToBuffer(output.buffer, output.offset, mappable, 0, output.size);
      });
    });
    await mappable.mapAsync(1 /* READ */);
    return new Uint8Array(mappable.getMappedRange()).slice();
  } finally {
    mappable.destroy();
  }
}
