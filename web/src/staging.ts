// Buffers for reading back, kept between runs: a run that repeats allocates nothing on the device.

/** Unused ones that are kept. */
const KEPT = 8;
const KEPT_BYTES = 2 ** 28;

export class Staging {
  readonly #free: GPUBuffer[] = [];

  constructor(private readonly device: GPUDevice) {}

  /** A buffer of at least this size. */
  take(size: number): GPUBuffer {
    const rounded = Math.min(rounding(size), this.device.limits.maxBufferSize);
    const at = this.#free.findLastIndex((buffer) => buffer.size === rounded);
    const [kept] = at < 0 ? [] : this.#free.splice(at, 1);
    const usage = 0x1 /* MAP_READ */ | 0x8; /* COPY_DST */
    return kept ?? this.device.createBuffer({ label: 'readback', size: rounded, usage });
  }

  /** Keeps a buffer, which must not be mapped. */
  give(buffer: GPUBuffer): void {
    this.#free.push(buffer);
    const bytes = () => this.#free.reduce((sum, { size }) => sum + size, 0);
    while (this.#free.length > KEPT || (this.#free.length > 1 && bytes() > KEPT_BYTES)) this.#free.shift()?.destroy();
  }

  destroy(): void {
    for (const buffer of this.#free.splice(0)) buffer.destroy();
  }
}

/** Powers of two below a megabyte, whole megabytes above. */
function rounding(size: number): number {
  if (size <= 256) return 256;
  return size < 2 ** 20 ? 2 ** Math.ceil(Math.log2(size)) : Math.ceil(size / 2 ** 20) * 2 ** 20;
}
