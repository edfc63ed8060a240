/** Starts this package's worker. Bundlers know this form and bring the file along. */
export function startWorker(name: string): Worker {
  return new Worker(new URL('./worker.js', import.meta.url), { type: 'module', name });
}
