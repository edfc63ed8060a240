// A model file without its large tensors, which the core does not need in order to plan. They become external data of
// the file `MODEL_FILE`, small external data comes in. All else is copied as it stands.
import { TilewrightError } from './error.js';
import { delimited, type Field, FieldReader, joined, Malformed, number, varintIn } from './protobuf.js';
import type { Source } from './source.js';

/** What the core calls the model's own file. No external file can have this name. */
export const MODEL_FILE = '/';

/**
 * Tensors from this many bytes on stay out of the core's memory. What it folds when it plans, constants of up to 2^16
 * elements of four bytes, is smaller.
 */
export const LARGE_BYTES = 1 << 18;

// Field numbers of onnx.proto.
const MODEL_GRAPH = 7;
const GRAPH_INITIALIZER = 5;
const TENSOR_TYPE = 2;
const TENSOR_FLOATS = 4;
const TENSOR_RAW = 9;
const TENSOR_EXTERNAL = 13;
const TENSOR_LOCATION = 14;
const ENTRY_KEY = 1;
const ENTRY_VALUE = 2;
const FLOAT = 1;

/** Gives an external file by the location that the model has for it. */
export type Externals = (location: string) => Promise<Source>;

/** What the core is to parse. */
export async function skeleton(source: Source, externals: Externals): Promise<Uint8Array> {
  try {
    return await cut(source, externals);
  } catch (error) {
    if (!(error instanceof Malformed)) throw error;
    // What is wrong with a file the core says better, if it can hold it.
    if (source.size < 2 ** 28) return source.read(0, source.size);
    throw new TilewrightError('parse', `${source.name}: damaged ONNX model: ${error.message}`, { cause: error });
  }
}

async function cut(source: Source, externals: Externals): Promise<Uint8Array> {
  const reader = new FieldReader((offset, length) => source.read(offset, length), source.size);
  const model = new Copy(reader);
  for await (const field of reader.fields(0, source.size)) {
    if (field.number === MODEL_GRAPH && field.wire === 2) {
      model.add(delimited(MODEL_GRAPH, await graph(reader, field, externals)));
    } else {
      model.keep(field);
    }
  }
  return joined(await model.parts());
}

async function graph(reader: FieldReader, within: Field, externals: Externals): Promise<Uint8Array[]> {
  const copy = new Copy(reader);
  for await (const field of reader.fields(within.body, within.end)) {
    if (field.number === GRAPH_INITIALIZER && field.wire === 2) {
      copy.add(delimited(GRAPH_INITIALIZER, await tensor(reader, field, externals)));
    } else {
      copy.keep(field);
    }
  }
  return copy.parts();
}

async function tensor(reader: FieldReader, within: Field, externals: Externals): Promise<Uint8Array[]> {
  const fields: Field[] = [];
  for await (const field of reader.fields(within.body, within.end)) fields.push(field);
  const of = (wanted: number) => fields.filter((field) => field.number === wanted);
  const [type] = of(TENSOR_TYPE);
  const isFloat = type !== undefined && varintIn(await reader.bytes(type.body, type.end)) === FLOAT;
  const data = isFloat ? [...of(TENSOR_RAW), ...of(TENSOR_FLOATS)] : of(TENSOR_RAW);
  const [large] = data.filter((field) => field.wire === 2 && field.end - field.body >= LARGE_BYTES);
  const copy = new Copy(reader);
  if (large !== undefined && data.length === 1) {
    for (const field of fields) if (field !== large) copy.keep(field);
    const length = large.end - large.body;
    return [...(await copy.parts()), ...elsewhere(MODEL_FILE, large.body, length)];
  }
  const external = await entries(reader, of(TENSOR_EXTERNAL));
  const location = external.get('location');
  const length = Number(external.get('length') ?? LARGE_BYTES);
  if (location === undefined || length >= LARGE_BYTES) {
    for (const field of fields) copy.keep(field);
    return copy.parts();
  }
  for (const field of fields) {
    if (field.number !== TENSOR_EXTERNAL && field.number !== TENSOR_LOCATION) copy.keep(field);
  }
  const file = await externals(location);
  const offset = Number(external.get('offset') ?? 0);
  const bytes = await file.read(offset, length);
  if (bytes.length !== length) {
    const message = `external data in ${JSON.stringify(location)}: wants ${length} bytes from byte ${offset} on, got a file of ${file.size} bytes`;
    throw new TilewrightError('model', message);
  }
  return [...(await copy.parts()), ...delimited(TENSOR_RAW, [bytes])];
}

async function entries(reader: FieldReader, fields: readonly Field[]): Promise<Map<string, string>> {
  const found = new Map<string, string>();
  const text = new TextDecoder();
  for (const field of fields) {
    let key = '';
    let value = '';
    for await (const part of reader.fields(field.body, field.end)) {
      if (part.number === ENTRY_KEY) key = text.decode(await reader.bytes(part.body, part.end));
      if (part.number === ENTRY_VALUE) value = text.decode(await reader.bytes(part.body, part.end));
    }
    found.set(key, value);
  }
  return found;
}

/** The fields of a tensor whose data is elsewhere. */
function elsewhere(location: string, offset: number, length: number): Uint8Array[] {
  const text = new TextEncoder();
  const entry = (key: string, value: string) =>
    delimited(TENSOR_EXTERNAL, [
      joined([
        ...delimited(ENTRY_KEY, [text.encode(key)]),
        ...delimited(ENTRY_VALUE, [text.encode(value)]),
      ]),
    ]);
  return [
    ...entry('location', location),
    ...entry('offset', String(offset)),
    ...entry('length', String(length)),
    number(TENSOR_LOCATION, 1),
  ];
}

/** A message being copied: runs of fields as they stand, and others in their place. */
class Copy {
  #parts: (Uint8Array | { start: number; end: number })[] = [];

  constructor(private readonly reader: FieldReader) {}

  keep(field: Field): void {
    const last = this.#parts.at(-1);
    if (last !== undefined && !(last instanceof Uint8Array) && last.end === field.start) last.end = field.end;
    else this.#parts.push({ start: field.start, end: field.end });
  }

  add(parts: readonly Uint8Array[]): void {
    this.#parts.push(...parts);
  }

  async parts(): Promise<Uint8Array[]> {
    const out: Uint8Array[] = [];
    for (const part of this.#parts) {
      out.push(part instanceof Uint8Array ? part : await this.reader.bytes(part.start, part.end));
    }
    return out;
  }
}
