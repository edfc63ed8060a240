// A session in a worker, with the interface of one in the page.
import { env } from './env.js';
import { TilewrightError, type ErrorKind, unsupported } from './error.js';
import type { RunOptions, SessionOptions } from './options.js';
import type { Feeds, Fetches, ValueMetadata } from './values.js';
import type { FileLike } from './source.js';
import { startWorker } from './start-worker.js';
import { Tensor } from './tensor.js';
import type { TensorData, TensorType } from './dtype.js';

/** A tensor as it crosses. */
export interface Sent {
  readonly type: TensorType;
  readonly dims: readonly number[];
  readonly data: TensorData;
}

/** What the page asks of the worker. */
export type Call =
  | { readonly method: 'create'; readonly model: FileLike; readonly options: SessionOptions; readonly env: object }
  | { readonly method: 'run'; readonly feeds: Readonly<Record<string, Sent>>; readonly fetches: readonly string[] | undefined }
  | { readonly method: 'release' };

/** What the worker answers; several with `progress` may come before the last. */
export type Answer =
  | { readonly id: number; readonly progress: unknown }
  | { readonly id: number; readonly result: unknown }
  | { readonly id: number; readonly error: { readonly kind: ErrorKind; readonly message: string } };

/** What the worker says of a session it made. */
export interface Made {
  readonly inputMetadata: readonly ValueMetadata[];
  readonly outputMetadata: readonly ValueMetadata[];
}

/** A session in a worker of its own: nothing of it ever holds the page. Tensors are copied both ways. */
export class WorkerSession {
  readonly inputNames: readonly string[];
  readonly outputNames: readonly string[];
  readonly inputMetadata: readonly ValueMetadata[];
  readonly outputMetadata: readonly ValueMetadata[];

  /** @internal */
  constructor(
    private readonly channel: Channel,
    { inputMetadata, outputMetadata }: Made,
  ) {
    this.inputMetadata = inputMetadata;
    this.outputMetadata = outputMetadata;
    this.inputNames = inputMetadata.map(({ name }) => name);
    this.outputNames = outputMetadata.map(({ name }) => name);
  }

  /** Runs the model; as `InferenceSession.run`. */
  run(feeds: Feeds, options?: RunOptions): Promise<Record<string, Tensor>>;
  run(feeds: Feeds, fetches: Fetches, options?: RunOptions): Promise<Record<string, Tensor>>;
  async run(feeds: Feeds, second?: Fetches | RunOptions, third?: RunOptions): Promise<Record<string, Tensor>> {
    const names = Array.isArray(second) ? (second as readonly string[]) : undefined;
    if (names === undefined && second !== undefined && Object.values(second).some((value) => value instanceof Tensor)) {
      unsupported('tensors to fill, of a session in a worker');
    }
    const options = names === undefined ? ((second as RunOptions | undefined) ?? {}) : (third ?? {});
    const sent: Record<string, Sent> = {};
    for (const [name, tensor] of Object.entries(feeds)) {
      if (tensor.location === 'gpu-buffer') unsupported('tensors on the GPU, of a session in a worker');
      const { type, dims, data } = tensor;
      sent[name] = { type: type as TensorType, dims, data: data as TensorData };
    }
    const call: Call = { method: 'run', feeds: sent, fetches: names };
    const outputs = (await this.channel.call(call, options.signal)) as Record<string, Sent>;
    return Object.fromEntries(Object.entries(outputs).map(([name, { type, data, dims }]) => [name, new Tensor(type, data, dims)]));
  }

  /** Frees the session and ends the worker. */
  async release(): Promise<void> {
    await this.channel.call({ method: 'release' });
    this.channel.close();
  }
}

/** Loads a model in a worker of its own; as `InferenceSession.create`. */
export async function createWorkerSession(model: FileLike, options: SessionOptions = {}): Promise<WorkerSession> {
  const { onProgress, signal, preferredOutputLocation = 'cpu', ...rest } = options;
  if (preferredOutputLocation !== 'cpu') unsupported('preferredOutputLocation of a session in a worker');
  signal?.throwIfAborted();
  const channel = new Channel(startWorker('tilewright'), onProgress as ((progress: unknown) => void) | undefined);
  const base = globalThis.location.href;
  const absolute = typeof model === 'string' || model instanceof URL ? new URL(model, base).href : model;
  const { logLevel, debug, wasm, webgpu } = env;
  const { powerPreference, forceFallbackAdapter } = webgpu;
  const { wasmPaths, ...wasmRest } = wasm;
  const paths = typeof wasmPaths === 'string' ? new URL(wasmPaths, base).href : wasmPaths;
  const settings = { logLevel, debug, wasm: { ...wasmRest, ...(paths !== undefined && { wasmPaths: paths }) }, webgpu: { powerPreference, forceFallbackAdapter } };
  try {
    const made = await channel.call({ method: 'create', model: absolute, options: rest, env: settings }, signal);
    return new WorkerSession(channel, made as Made);
  } catch (error) {
    channel.close();
    throw error;
  }
}

/** Calls and their answers. */
class Channel {
  #next = 0;
  #closed = false;
  readonly #waiting = new Map<number, { resolve: (result: unknown) => void; reject: (error: unknown) => void }>();

  constructor(
    private readonly worker: Worker,
    onProgress: ((progress: unknown) => void) | undefined,
  ) {
    worker.onmessage = ({ data }: MessageEvent<Answer>) => {
      if ('progress' in data) return onProgress?.(data.progress);
      const waiting = this.#waiting.get(data.id);
      this.#waiting.delete(data.id);
      if ('error' in data) waiting?.reject(new TilewrightError(data.error.kind, data.error.message));
      else waiting?.resolve(data.result);
    };
    worker.onerror = (event) => this.#fail(new TilewrightError('io', `the worker failed: ${event.message ?? 'it cannot be loaded'}`));
  }

  call(call: Call, signal?: AbortSignal): Promise<unknown> {
    const id = this.#next++;
    return new Promise((resolve, reject) => {
      signal?.throwIfAborted();
      if (this.#closed) throw released();
      const abort = () => reject(signal?.reason);
      signal?.addEventListener('abort', abort, { once: true });
      const settled = () => signal?.removeEventListener('abort', abort);
      this.#waiting.set(id, {
        resolve: (result) => (settled(), resolve(result)),
        reject: (error) => (settled(), reject(error)),
      });
      this.worker.postMessage({ id, ...call });
    });
  }

  close(): void {
    this.#closed = true;
    this.worker.terminate();
    this.#fail(released());
  }

  #fail(error: TilewrightError): void {
    for (const { reject } of this.#waiting.values()) reject(error);
    this.#waiting.clear();
  }
}

function released(): TilewrightError {
  return new TilewrightError('released', 'the session was released');
}
