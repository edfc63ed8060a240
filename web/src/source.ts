import { messageOf, TilewrightError } from './error.js';

/** A file that can be read in pieces. */
export interface Source {
  /** What messages call it. */
  readonly name: string;
  readonly size: number;
  /** The bytes from `offset` on; fewer only at the end. */
  read(offset: number, length: number): Promise<Uint8Array>;
}

/** What a file may be given as. */
export type FileLike = string | URL | ArrayBufferLike | Uint8Array | Blob;

/** How a file is fetched. */
export interface FetchOptions {
  readonly signal?: AbortSignal | undefined;
  /** Told of bytes as they come; `total` is 0 where the server does not say. */
  readonly onBytes?: ((done: number, total: number) => void) | undefined;
  /** Whether the file is kept in the Cache API, and used from there as long as the server has the same. */
  readonly cache?: boolean | undefined;
}

/** The file, fetched if it is a URL. What is fetched goes into a Blob, which the browser keeps on disk when it is large. */
export async function open(file: FileLike, name: string, options: FetchOptions = {}): Promise<Source> {
  if (typeof file === 'string' || file instanceof URL) return ofBlob(await download(String(file), options), String(file));
  if (file instanceof Uint8Array) return ofBytes(file, name);
  if (typeof Blob !== 'undefined' && file instanceof Blob) return ofBlob(file, name);
  if (isBuffer(file)) return ofBytes(new Uint8Array(file), name);
  throw new TilewrightError('unsupported', `unsupported: a model given as ${Object.prototype.toString.call(file)}`);
}

function isBuffer(file: unknown): file is ArrayBufferLike {
  const shared = typeof SharedArrayBuffer !== 'undefined' && file instanceof SharedArrayBuffer;
  return file instanceof ArrayBuffer || shared;
}

function ofBytes(bytes: Uint8Array, name: string): Source {
  return { name, size: bytes.length, read: async (offset, length) => bytes.subarray(offset, offset + length) };
}

function ofBlob(blob: Blob, name: string): Source {
  return {
    name,
    size: blob.size,
    read: async (offset, length) => {
      try {
        return new Uint8Array(await blob.slice(offset, offset + length).arrayBuffer());
      } catch (error) {
        throw new TilewrightError('io', `${name}: ${messageOf(error)}`, { cause: error });
      }
    },
  };
}

const CACHE = 'tilewright-models';

async function download(url: string, options: FetchOptions): Promise<Blob> {
  const kept = options.cache === true ? await fromCache(url, options.signal) : undefined;
  if (kept !== undefined) {
    options.onBytes?.(kept.size, kept.size);
    return kept;
  }
  const response = await request(url, options.signal);
  const total = Number(response.headers.get('content-length') ?? 0);
  let body: Blob;
  try {
    const counted = response.body?.pipeThrough(counter((done) => options.onBytes?.(done, total)));
    body = await new Response(counted ?? null).blob();
  } catch (error) {
    options.signal?.throwIfAborted();
    throw new TilewrightError('io', `${url}: ${messageOf(error)}`, { cause: error });
  }
  if (options.cache === true) {
    const cache = await caches.open(CACHE);
    await cache.put(url, new Response(body, { headers: validators(response) }));
  }
  return body;
}

async function request(url: string, signal?: AbortSignal, init: RequestInit = {}): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(url, { ...init, ...(signal && { signal }) });
  } catch (error) {
    signal?.throwIfAborted();
    throw new TilewrightError('io', `${url}: ${messageOf(error)}`, { cause: error });
  }
  if (!response.ok) throw new TilewrightError('io', `${url}: ${response.status} ${response.statusText}`.trimEnd());
  return response;
}

/** The cached file, if the server still has the same: by ETag, else by date and length. */
async function fromCache(url: string, signal?: AbortSignal): Promise<Blob | undefined> {
  if (typeof caches === 'undefined') {
    throw new TilewrightError('unsupported', 'unsupported: cacheModel where there is no Cache API (it wants https)');
  }
  const kept = await (await caches.open(CACHE)).match(url);
  if (kept === undefined) return undefined;
  let head: Response;
  try {
    head = await request(url, signal, { method: 'HEAD', cache: 'no-cache' });
  } catch (error) {
    if (error instanceof TilewrightError && error.cause !== undefined) return kept.blob(); // offline
    throw error;
  }
  const now = validators(head);
  const same = Object.keys(now).length > 0 && Object.entries(now).every(([name, value]) => kept.headers.get(name) === value);
  return same ? kept.blob() : undefined;
}

function validators(response: Response): Record<string, string> {
  const found: Record<string, string> = {};
  for (const name of ['etag', 'last-modified', 'content-length']) {
    const value = response.headers.get(name);
    if (value !== null) found[name] = value;
    if (name === 'etag' && value !== null) break;
  }
  return found;
}

function counter(tell: (done: number) => void): TransformStream<Uint8Array<ArrayBuffer>, Uint8Array<ArrayBuffer>> {
  let done = 0;
  return new TransformStream({
    transform(chunk, controller) {
      done += chunk.length;
      tell(done);
      controller.enqueue(chunk);
    },
  });
}
