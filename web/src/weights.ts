// Constants of plans in GPU buffers, shared by all plans of a session.
import { type Constant, convert, type Core } from './core.js';
import { bytesOf } from './dtype.js';
import { TilewrightError } from './error.js';
import { checkLost, type Gpu, scoped, Turns } from './gpu.js';
import type { Source } from './source.js';

/** A piece of memory in a buffer. */
export interface Place {
  readonly buffer: GPUBuffer;
  readonly offset: number;
}

/** Weights are packed into buffers of at most this size. */
const BUFFER_BYTES = 2 ** 28;

/** A weight is read and uploaded in pieces of this size; the elements of every type fill it exactly. */
const CHUNK_BYTES = 2 ** 22;

/** Uploads that may wait in the browser's own memory. */
const IN_FLIGHT_BYTES = 2 ** 26;

/** What binds or is copied. */
export const STORAGE_USAGE = 0x80 /* STORAGE */ | 0x4 /* COPY_SRC */ | 0x8; /* COPY_DST */

/** Identifies a constant's elements. */
function keyOf(plan: number, constant: Constant): string {
  const { place } = constant;
  if (place === null) return `${plan}:${constant.tensor}`;
  return `${place.file}:${place.offset}:${place.bytes}:${constant.type}:${constant.stored}`;
}

/** Constants of a plan with room on the device. */
export interface Placed {
  /** By tensor. */
  readonly places: ReadonlyMap<number, Place>;
  /** When they will have been written there. */
  readonly written: Promise<void>;
}

export class Weights {
  readonly #places = new Map<string, Place>();
  readonly #buffers = new Map<GPUBuffer, Set<string>>();
  readonly #wanted = new Map<number, Set<string>>();
  /** Uploads go one after another: what one plan finds in its place may still be on its way for another. */
  #uploads: Promise<void> = Promise.resolve();

  constructor(
    private readonly gpu: Gpu,
    /** The file that a place names. */
    private readonly file: (name: string) => Promise<Source>,
  ) {}

  /**
   * Finds room for those constants of a plan that have none yet, and begins to upload them. What is missing on the device
   * or in the files is found out here.
   */
  async upload(core: Core, plan: number, onBytes: (done: number, total: number) => void): Promise<Placed> {
    const constants = await core.constants(plan);
    this.#wanted.set(plan, new Set(constants.map((constant) => keyOf(plan, constant))));
    const missing = constants.filter((constant) => !this.#places.has(keyOf(plan, constant)));
    for (const constant of missing) await this.#check(constant);
    // In the order of their files, each of which is read once from front to back.
    missing.sort((a, b) => compare(a.place?.file ?? '', b.place?.file ?? '') || (a.place?.offset ?? 0) - (b.place?.offset ?? 0));
    const packs = new Map<GPUBuffer, Pack>();
    for (const pack of this.#packed(missing)) {
      const buffer = await this.#allocate(pack.size);
      packs.set(buffer, pack);
      for (const { constant, offset } of pack.members) {
        const key = keyOf(plan, constant);
        if (this.#places.has(key)) continue;
        this.#places.set(key, { buffer, offset });
        this.#buffers.get(buffer)?.add(key);
      }
    }
    const places = new Map(constants.map((constant) => [constant.tensor, this.#places.get(keyOf(plan, constant)) as Place]));
    const written = this.#uploads.then(async () => {
      for (const { buffer } of places.values()) this.#goOn(buffer);
      await this.#writeAll(core, plan, packs, onBytes);
    });
    this.#uploads = written.catch(() => this.#forget(packs.keys()));
    return { places, written };
  }

  async #writeAll(core: Core, plan: number, packs: ReadonlyMap<GPUBuffer, Pack>, onBytes: (done: number, total: number) => void): Promise<void> {
    const total = [...packs.values()].reduce((sum, { members }) => sum + members.reduce((s, { constant }) => s + constant.device_bytes, 0), 0);
    const turns = new Turns();
    let done = 0;
    for (const [buffer, { members }] of packs) {
      for (const { constant, offset } of members) {
        await this.#write(core, plan, constant, { buffer, offset }, turns);
        done += constant.device_bytes;
        onBytes(done, total);
      }
    }
  }

  /** Frees what none of these plans uses. */
  retain(plans: ReadonlySet<number>): void {
    for (const plan of this.#wanted.keys()) if (!plans.has(plan)) this.#wanted.delete(plan);
    const used = new Set([...this.#wanted.values()].flatMap((keys) => [...keys]));
    this.#forget([...this.#buffers].filter(([, keys]) => ![...keys].some((key) => used.has(key))).map(([buffer]) => buffer));
  }

  /** Frees everything; an upload under way ends. */
  destroy(): void {
    this.#wanted.clear();
    this.retain(new Set());
  }

  #forget(buffers: Iterable<GPUBuffer>): void {
    for (const buffer of buffers) {
      for (const key of this.#buffers.get(buffer) ?? []) this.#places.delete(key);
      this.#buffers.delete(buffer);
      buffer.destroy();
    }
  }

  /** Whether a constant's file is there and long enough. */
  async #check({ name, place }: Constant): Promise<void> {
    if (place === null) return;
    const { size } = await this.file(place.file);
    if (place.offset + place.bytes <= size) return;
    const message = `wants ${place.bytes} bytes from byte ${place.offset} on, got a file of ${size} bytes`;
    throw new TilewrightError('model', `${name}: data in ${(await this.file(place.file)).name}: ${message}`);
  }

  #packed(constants: readonly Constant[]): Pack[] {
    const { limits } = this.gpu.device;
    const most = Math.min(BUFFER_BYTES, limits.maxBufferSize);
    const alignment = limits.minStorageBufferOffsetAlignment;
    const packs: Pack[] = [];
    for (const constant of constants) {
      let pack = packs.at(-1);
      let offset = pack === undefined ? 0 : Math.ceil(pack.size / alignment) * alignment;
      if (pack === undefined || offset + constant.device_bytes > most) {
        pack = { size: 0, members: [] };
        packs.push(pack);
        offset = 0;
      }
      pack.members.push({ constant, offset });
      pack.size = offset + constant.device_bytes;
    }
    return packs;
  }

  /** Throws once a buffer is gone. */
  #goOn(buffer: GPUBuffer): void {
    checkLost(this.gpu);
    if (!this.#buffers.has(buffer)) throw new TilewrightError('released', 'the weights were released before they were all there');
  }

  async #allocate(size: number): Promise<GPUBuffer> {
    const { device } = this.gpu;
    const buffer = await scoped(this.gpu, `weights of ${size} bytes`, () =>
      device.createBuffer({ label: 'weights', size, usage: STORAGE_USAGE }),
    );
    this.#buffers.set(buffer, new Set());
    return buffer;
  }

  async #write(core: Core, plan: number, constant: Constant, to: Place, turns: Turns): Promise<void> {
    const { name, type, stored, elements, place } = constant;
    const { queue } = this.gpu.device;
    if (place === null) {
      const bytes = await core.constant(plan, constant.tensor);
      this.#goOn(to.buffer);
      write(queue, to, bytes);
      await turns.due();
      return;
    }
    const file = await this.file(place.file);
    const elementsPerChunk = Math.floor((CHUNK_BYTES * elements) / Math.max(bytesOf(type, elements), 1) / 64) * 64;
    let at = to.offset;
    let waiting = 0;
    for (let first = 0; first < elements; first += elementsPerChunk) {
      const count = Math.min(elementsPerChunk, elements - first);
      const length = bytesOf(type, count);
      const bytes = await file.read(place.offset + bytesOf(type, first), length);
      this.#goOn(to.buffer);
      const converted = convert(name, type, bytes, stored, count);
      write(queue, { buffer: to.buffer, offset: at }, converted);
      at += converted.length;
      waiting += converted.length;
      if (waiting >= IN_FLIGHT_BYTES) {
        await queue.onSubmittedWorkDone();
        waiting = 0;
      }
      await turns.due();
    }
  }
}

/** A buffer to be, and what will lie in it. */
interface Pack {
  size: number;
  readonly members: { readonly constant: Constant; readonly offset: number }[];
}

/** Writes bytes of any length; a copy's is a multiple of four. */
export function write(queue: GPUQueue, to: Place, bytes: Uint8Array): void {
  const whole = bytes.length & ~3;
  const view = bytes as Uint8Array<ArrayBuffer>;
  queue.writeBuffer(to.buffer, to.offset, view, 0, whole);
  if (whole < bytes.length) {
    const last = new Uint8Array(4);
    last.set(bytes.subarray(whole));
    queue.writeBuffer(to.buffer, to.offset + whole, last);
  }
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
