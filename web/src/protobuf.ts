/** A field of a protobuf message: where it begins, and where its contents do. */
export interface Field {
  readonly number: number;
  readonly start: number;
  /** Of length-delimited fields, the contents; of others, the value. */
  readonly body: number;
  readonly end: number;
  /** The wire type: 0 varint, 1 eight bytes, 2 length-delimited, 5 four bytes. */
  readonly wire: number;
}

/** A fault of the bytes. */
export class Malformed extends Error {}

const WINDOW = 1 << 16;
/** A tag and a length take no more. */
const HEADER = 20;

/** Walks the fields of messages in a file of which it reads no more than it has to. */
export class FieldReader {
  #window: Uint8Array = new Uint8Array(0);
  #from = 0;

  constructor(
    private readonly read: (offset: number, length: number) => Promise<Uint8Array>,
    private readonly size: number,
  ) {}

  /** The fields of the message at `start`. Their bodies are not read. */
  async *fields(start: number, end: number): AsyncGenerator<Field> {
    let at = start;
    while (at < end) {
      if (!this.#holds(at, Math.min(at + HEADER, this.size))) await this.#fill(at);
      const field = this.#field(at, end);
      yield field;
      at = field.end;
    }
  }

  /** The bytes of a range, which is to be short. */
  async bytes(start: number, end: number): Promise<Uint8Array> {
    if (this.#holds(start, end)) return this.#window.slice(start - this.#from, end - this.#from);
    const bytes = await this.read(start, end - start);
    if (bytes.length !== end - start) throw new Malformed('cut off');
    return bytes;
  }

  #holds(start: number, end: number): boolean {
    return start >= this.#from && end <= this.#from + this.#window.length;
  }

  async #fill(at: number): Promise<void> {
    this.#window = await this.read(at, WINDOW);
    this.#from = at;
  }

  #field(start: number, limit: number): Field {
    let at = start;
    const varint = (): number => {
      let value = 0;
      for (let shift = 0; shift < 70; shift += 7) {
        const byte = this.#window[at - this.#from];
        if (byte === undefined) throw new Malformed('cut off');
        at += 1;
        value += (byte & 0x7f) * 2 ** shift;
        if (byte < 0x80) return value;
      }
      throw new Malformed('a number without end');
    };
    const tag = varint();
    const wire = tag % 8;
    let body = at;
    let end: number;
    if (wire === 0) {
      varint();
      end = at;
    } else if (wire === 1 || wire === 5) {
      end = at + (wire === 1 ? 8 : 4);
    } else if (wire === 2) {
      const length = varint();
      body = at;
      end = at + length;
    } else {
      throw new Malformed(`wire type ${wire}`);
    }
    if (end > limit) throw new Malformed('a field beyond the end');
    return { number: Math.floor(tag / 8), start, body, end, wire };
  }
}

/** The value of a varint that stands at the start of `bytes`. */
export function varintIn(bytes: Uint8Array): number {
  let value = 0;
  for (let i = 0; i < bytes.length; i++) {
    const byte = bytes[i] as number;
    value += (byte & 0x7f) * 2 ** (7 * i);
    if (byte < 0x80) break;
  }
  return value;
}

function varint(value: number): number[] {
  const out: number[] = [];
  for (; value >= 0x80; value = Math.floor(value / 0x80)) out.push((value % 0x80) + 0x80);
  out.push(value);
  return out;
}

/** A length-delimited field with these contents. */
export function delimited(number: number, parts: readonly Uint8Array[]): Uint8Array[] {
  const length = parts.reduce((sum, part) => sum + part.length, 0);
  return [new Uint8Array([...varint(number * 8 + 2), ...varint(length)]), ...parts];
}

/** A field that is a number. */
export function number(field: number, value: number): Uint8Array {
  return new Uint8Array([...varint(field * 8), ...varint(value)]);
}

/** The parts as one. */
export function joined(parts: readonly Uint8Array[]): Uint8Array {
  const out = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}
