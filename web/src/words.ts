// Commands as the core writes them: 32-bit words, documented in `src/commands/words.rs`.
import { TilewrightError } from './error.js';

/** A range of memory, in bytes. Memory is a number: `kind + 8 * number`. */
export interface Range {
  readonly memory: number;
  readonly offset: number;
  readonly size: number;
}

/** The kinds of memory. */
export const CONSTANT = 0;
export const INPUT = 1;
export const ARENA = 2;
export const PARAMETERS = 3;
export const OUTPUT = 4;

/** The memory of that kind and number. */
export function memory(kind: number, number: number): number {
  return kind + 8 * number;
}

export interface DispatchCommand {
  readonly kernel: number;
  readonly step: number;
  readonly workgroups: readonly [number, number, number];
  readonly bindings: readonly Range[];
}

/** What a run does, in this order. */
export interface Commands {
  /** Memory that must be there, and at least of this size. */
  readonly buffers: { readonly memory: number; readonly size: number }[];
  /** The contents of the parameters' memory. */
  parameters: Uint32Array;
  readonly dispatches: DispatchCommand[];
  readonly readbacks: Range[];
  /** What stays on the device for the next stage of the run. */
  readonly left: Range[];
  /** Where the outputs are that stay on the device, in the plan's order. */
  readonly kept: Kept[];
}

/** An output that stays on the device. */
export interface Kept {
  readonly range: Range;
  /** Whether this is memory of its own or of the input that it updates; else it is to be copied. */
  readonly isOwn: boolean;
}

const VERSION = 0x7457_0003;
const BUFFER = 1;
const PARAMETER_WORDS = 2;
const DISPATCH = 3;
const READBACK = 4;
const LEFT = 5;
const KEPT = 6;

/** The commands that `words` are. */
export function decode(words: Uint32Array): Commands {
  if (words[0] !== VERSION) throw new TilewrightError('internal', 'the core and this package are of different versions');
  const commands: Commands = { buffers: [], parameters: new Uint32Array(0), dispatches: [], readbacks: [], left: [], kept: [] };
  const word = (at: number): number => words[at] as number;
  const range = (at: number): Range => ({ memory: word(at), offset: word(at + 1) * 4, size: word(at + 2) * 4 });
  for (let at = 1; at < words.length; ) {
    const code = word(at) & 0xff;
    const body = at + 1;
    const end = body + (word(at) >>> 8);
    if (end > words.length) throw new TilewrightError('internal', `word ${at} of the commands is cut off`);
    if (code === BUFFER) {
      commands.buffers.push({ memory: word(body), size: word(body + 1) * 4 });
    } else if (code === PARAMETER_WORDS) {
      commands.parameters = words.slice(body, end);
    } else if (code === DISPATCH) {
      const bindings: Range[] = [];
      for (let binding = body + 5; binding < end; binding += 3) bindings.push(range(binding));
      const workgroups = [word(body + 2), word(body + 3), word(body + 4)] as const;
      commands.dispatches.push({ kernel: word(body), step: word(body + 1), workgroups, bindings });
    } else if (code === READBACK) {
      commands.readbacks.push(range(body));
    } else if (code === LEFT) {
      commands.left.push(range(body));
    } else if (code === KEPT) {
      commands.kept.push({ isOwn: word(body) === 1, range: range(body + 1) });
    } else {
      throw new TilewrightError('internal', `word ${at} of the commands: there is no command ${code}`);
    }
    at = end;
  }
  return commands;
}
