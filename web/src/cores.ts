// The cores of one thread, called by name: of a page's worker, or of the thread that they are used in.
import * as wasm from '../dist/core/core.js';

/** A call of core number `core`: `new` makes it, `free` ends it. */
export interface CoreCall {
  readonly core: number;
  readonly method: string;
  readonly args: readonly unknown[];
}

const cores = new Map<number, wasm.Core>();

/** Does a call. Errors of the core are text: `kind`, a line break, `message`. */
export function callHere({ core, method, args }: CoreCall): unknown {
  if (method === 'new') {
    const [model, options] = args as [Uint8Array, string];
    cores.set(core, new wasm.Core(model, options));
    return undefined;
  }
  const found = cores.get(core) as unknown as Record<string, (...args: readonly unknown[]) => unknown> | undefined;
  if (found === undefined) throw new Error(`there is no core ${core}`);
  const result = found[method]?.(...args);
  if (method === 'free') cores.delete(core);
  return result;
}
