// A model's files: what the core parses, and where its weights are read from.
import { TilewrightError } from './error.js';
import { MODEL_FILE, skeleton } from './onnx.js';
import type { ExternalData, SessionOptions } from './options.js';
import { type FileLike, open, type Source } from './source.js';

/** A model ready to be planned, and its files. */
export interface ModelFiles {
  /** The model without its large tensors. */
  readonly skeleton: Uint8Array;
  /** A file by the name that places have for it. */
  readonly file: (name: string) => Promise<Source>;
}

/** Opens a model: fetches it if it is a URL, and reads all but its large tensors. */
export async function openModel(model: FileLike, options: SessionOptions): Promise<ModelFiles> {
  const { onProgress, signal, cacheModel, externalData = [] } = options;
  // One count over all files, which come one after another or not at all.
  const counts = new Map<string, { done: number; total: number }>();
  const opened = (file: FileLike, name: string): Promise<Source> =>
    open(file, name, {
      signal,
      cache: cacheModel,
      onBytes: (done, total) => {
        counts.set(name, { done, total });
        const all = [...counts.values()];
        const sum = (of: (count: { done: number; total: number }) => number) => all.reduce((s, count) => s + of(count), 0);
        onProgress?.({ stage: 'download', done: sum((c) => c.done), total: sum((c) => c.total) });
      },
    });
  const source = await opened(model, 'model');
  const externals = new Map<string, Promise<Source>>();
  const file = (name: string): Promise<Source> => {
    if (name === MODEL_FILE) return Promise.resolve(source);
    let external = externals.get(name);
    if (external === undefined) {
      external = opened(externalFile(name, externalData, model), name);
      externals.set(name, external);
    }
    return external;
  };
  signal?.throwIfAborted();
  return { skeleton: await skeleton(source, file), file };
}

/** The file that a model calls `name`: as given, or beside the model's own URL. */
function externalFile(name: string, given: readonly ExternalData[], model: FileLike): FileLike {
  const bare = (path: string) => path.replace(/^\.\//, '');
  const found = given.find((external) => bare(typeof external === 'string' ? external : external.path) === bare(name));
  if (found !== undefined && typeof found !== 'string') return found.data;
  if (typeof model === 'string' || model instanceof URL) {
    return new URL(name, new URL(model, (globalThis as { location?: Location }).location?.href)).href;
  }
  const there = given.map((external) => (typeof external === 'string' ? external : external.path));
  throw new TilewrightError(
    'model',
    `external data in ${JSON.stringify(name)}: not among externalData, which has [${there.join(', ')}]`,
  );
}
