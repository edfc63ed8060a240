/** Starts this package's worker. */
export function startWorker(name: string): Worker {
  try {
    // Bundlers know this form and bring the file along.
    return new Worker(new URL('./worker.js', import.meta.url), { type: 'module', name });
  } catch (error) {
    if (!(error instanceof DOMException && error.name === 'SecurityError')) throw error;
    return importingWorker(import.meta.url.replace(/[^/]*$/, 'worker.js'), name);
  }
}

/** A worker must be of the page's own origin; what it imports need not be. */
function importingWorker(url: string, name: string): Worker {
  const own = URL.createObjectURL(new Blob([`import ${JSON.stringify(url)};`], { type: 'text/javascript' }));
  const worker = new Worker(own, { type: 'module', name });
  // Its text is fetched by then.
  setTimeout(() => URL.revokeObjectURL(own), 60_000);
  return worker;
}
