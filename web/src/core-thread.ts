// Where cores are called: in a worker of the package's own if this is a page, so that planning never holds it.
import { callHere, type CoreCall } from './cores.js';
import { log } from './env.js';
import { messageOf, TilewrightError } from './error.js';
import { startWorker } from './start-worker.js';

/** What a worker for cores is told first; it answers `{ ready: true }`. */
export interface CoreModule {
  readonly module: WebAssembly.Module;
}

/** A call, numbered. */
export interface CoreMessage {
  readonly id: number;
  readonly coreCall: CoreCall;
}

/** Its answer: the result, or what was thrown. */
export type CoreAnswer = { readonly id: number } & ({ readonly result: unknown } | { readonly thrown: unknown });

export type CallCore = (call: CoreCall) => Promise<unknown>;

/** Starts the worker where this is a page; without one, calls are done here. */
export async function openCoreThread(module: WebAssembly.Module): Promise<CallCore> {
  const inPage = 'document' in globalThis && typeof Worker === 'function';
  if (!inPage) return async (call) => callHere(call);
  try {
    return await callsTo(module);
  } catch (error) {
    log('warning', `the core runs in the page and may hold it, as its worker does not start: ${messageOf(error)}`);
    return async (call) => callHere(call);
  }
}

function callsTo(module: WebAssembly.Module): Promise<CallCore> {
  const worker = startWorker('tilewright core');
  const waiting = new Map<number, { resolve: (result: unknown) => void; reject: (thrown: unknown) => void }>();
  let next = 0;
  let failed: TilewrightError | undefined;
  const call: CallCore = (coreCall) =>
    new Promise((resolve, reject) => {
      if (failed !== undefined) throw failed;
      const id = next++;
      waiting.set(id, { resolve, reject });
      worker.postMessage({ id, coreCall } satisfies CoreMessage);
    });
  return new Promise((started, fail) => {
    worker.onmessage = ({ data }: MessageEvent<CoreAnswer | { ready: true }>) => {
      if ('ready' in data) return started(call);
      const { resolve, reject } = waiting.get(data.id) ?? {};
      waiting.delete(data.id);
      if ('thrown' in data) reject?.(data.thrown);
      else resolve?.(data.result);
    };
    worker.onerror = (event) => {
      failed = new TilewrightError('internal', `the core's worker failed: ${event.message ?? 'it cannot be loaded'}`);
      worker.terminate();
      for (const { reject } of waiting.values()) reject(failed);
      fail(failed);
    };
    worker.postMessage({ module } satisfies CoreModule);
  });
}
