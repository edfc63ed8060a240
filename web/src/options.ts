// What the caller may ask for, and what of it is refused.
import { unsupported } from './error.js';
import type { FileLike } from './source.js';

/** How far long work has got. */
export interface Progress {
  /** `download` and `upload` are counted in bytes, `compile` in kernels. */
  readonly stage: 'download' | 'upload' | 'compile';
  readonly done: number;
  /** 0 where it is not known. */
  readonly total: number;
}

/** Where an output goes. */
export type OutputLocation = 'cpu' | 'gpu-buffer';

/** A file of weights, by the name that the model has for it. */
export type ExternalData = string | { readonly path: string; readonly data: FileLike };

/** A session's settings: onnxruntime-common's as far as they make sense here, and our own. */
export interface SessionOptions {
  /** Must name `webgpu`, if given. */
  executionProviders?: readonly (string | { readonly name: string; readonly [option: string]: unknown })[];
  /** Symbolic dimensions with fixed sizes, as `{ batch: 1 }`. */
  freeDimensionOverrides?: Readonly<Record<string, number>>;
  /** Where outputs go; `cpu` unless said. */
  preferredOutputLocation?: OutputLocation | Readonly<Record<string, OutputLocation>>;
  /** Files of weights beside the model. */
  externalData?: readonly ExternalData[];
  /** Plans are always optimised; no effect. */
  graphOptimizationLevel?: 'disabled' | 'basic' | 'extended' | 'layout' | 'all';
  /** Runs are always recorded; no effect. */
  enableGraphCapture?: boolean;
  /** No effect. */
  enableCpuMemArena?: boolean;
  /** No effect. */
  enableMemPattern?: boolean;
  /** No effect. */
  executionMode?: 'sequential' | 'parallel';
  /** No effect; `env.logLevel` counts. */
  logSeverityLevel?: 0 | 1 | 2 | 3 | 4;
  /** No effect. */
  logVerbosityLevel?: number;
  /** No effect. */
  logId?: string;
  /** No effect. */
  extra?: Readonly<Record<string, unknown>>;

  /** Ours: told how far loading and compiling have got. */
  onProgress?: (progress: Progress) => void;
  /** Ours: ends `create`. */
  signal?: AbortSignal;
  /** Ours: keep the model in the Cache API. */
  cacheModel?: boolean;
  /** Ours: compute float64 tensors in float32 rather than refuse them. */
  allowFloat64AsFloat32?: boolean;
  /** Ours: add up products of float16 in float16, where the device has it: faster on some, and far less exact. */
  float16Sums?: boolean;
  /**
   * Ours: `background` tunes after the first run, in idle time and while the page is seen; `full` before the first
   * answer. Off unless said; what was tuned before is used in any case.
   */
  tuning?: 'off' | 'background' | 'full';
  /** Ours: the time that `tuning` may take; 30 seconds unless said. */
  tuningBudgetMs?: number;
  /** Ours: make a new device and go on when the device is lost; on unless turned off. */
  recover?: boolean;
  /** Ours: what not every browser is going to have in this form; nothing of it unless said. */
  experimental?: {
    /** Multiply matrices by Chromium's `chromium-experimental-subgroup-matrix`, where tuning finds that faster. */
    readonly subgroupMatrices?: boolean;
  };
}

const SESSION_OPTIONS: Readonly<Record<keyof SessionOptions, true>> = {
  executionProviders: true,
  freeDimensionOverrides: true,
  preferredOutputLocation: true,
  externalData: true,
  graphOptimizationLevel: true,
  enableGraphCapture: true,
  enableCpuMemArena: true,
  enableMemPattern: true,
  executionMode: true,
  logSeverityLevel: true,
  logVerbosityLevel: true,
  logId: true,
  extra: true,
  onProgress: true,
  signal: true,
  cacheModel: true,
  allowFloat64AsFloat32: true,
  float16Sums: true,
  tuning: true,
  tuningBudgetMs: true,
  recover: true,
  experimental: true,
};

/** A run's settings. */
export interface RunOptions {
  /** No effect; `env.logLevel` counts. */
  logSeverityLevel?: 0 | 1 | 2 | 3 | 4;
  /** No effect. */
  logVerbosityLevel?: number;
  /** No effect. */
  tag?: string;
  /** No effect. */
  extra?: Readonly<Record<string, unknown>>;
  /** Ours: ends the wait for the run. */
  signal?: AbortSignal;
}

const RUN_OPTIONS: Readonly<Record<keyof RunOptions, true>> = {
  logSeverityLevel: true,
  logVerbosityLevel: true,
  tag: true,
  extra: true,
  signal: true,
};

/** Refuses, by name, what is not supported. */
export function checkSessionOptions(options: SessionOptions): void {
  known('session option', options, SESSION_OPTIONS);
  known('session option experimental', options.experimental ?? {}, { subgroupMatrices: true });
  const providers = options.executionProviders?.map((provider) => (typeof provider === 'string' ? provider : provider.name));
  if (providers !== undefined && providers.length > 0 && !providers.includes('webgpu')) {
    unsupported(`executionProviders ${providers.join(', ')}; there is webgpu`);
  }
  const preferred = options.preferredOutputLocation ?? 'cpu';
  for (const location of typeof preferred === 'string' ? [preferred] : Object.values(preferred)) {
    if (!['cpu', 'gpu-buffer'].includes(location)) unsupported(`preferredOutputLocation ${location}`);
  }
}

/** Refuses, by name, what is not supported. */
export function checkRunOptions(options: RunOptions): void {
  known('run option', options, RUN_OPTIONS);
}

function known(what: string, given: object, all: Readonly<Record<string, true>>): void {
  for (const [name, value] of Object.entries(given)) {
    if (value !== undefined && !Object.hasOwn(all, name)) unsupported(`${what} ${name}`);
  }
}
