/** What failed, as in the native library, and what only a page can meet. */
export type ErrorKind =
  /** Bytes that are no valid model file. */
  | 'parse'
  /** A model that is wrong as a graph. */
  | 'model'
  /** The model, or the caller, uses something that this version cannot do; all of it is listed at once. */
  | 'unsupported'
  /** An input of a run that does not fit the model. */
  | 'input'
  /** A tensor that cannot be made or read as asked. */
  | 'tensor'
  /** There is no WebGPU, or no adapter. */
  | 'adapter'
  /** The device cannot do what the model needs: a limit, a value out of range. */
  | 'limit'
  /** The device ran out of memory. */
  | 'memory'
  /** The device or its driver refused a kernel or a command. */
  | 'device'
  /** The device was lost. */
  | 'lost'
  /** A file could not be fetched or read. */
  | 'io'
  /** The session was released. */
  | 'released'
  /** A fault of this package. */
  | 'internal';

/** Every error of this package but an abort, which is the signal's own reason. */
export class TilewrightError extends Error {
  override readonly name = 'TilewrightError';

  constructor(
    /** What failed. */
    readonly kind: ErrorKind,
    message: string,
    options?: ErrorOptions,
  ) {
    super(message, options);
  }
}

/** Throws for an option or call that is not supported, by its name. */
export function unsupported(what: string): never {
  throw new TilewrightError('unsupported', `unsupported: ${what}`);
}

/** Whether an error is none of the candidate's that was being tried, so that tuning ends. */
export function endsTuning(error: unknown): boolean {
  return !(error instanceof TilewrightError) || ['lost', 'internal', 'released'].includes(error.kind);
}

/** The text of whatever was thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
