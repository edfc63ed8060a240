/** Waits until the page is seen and has nothing to do. */
export async function idleAndSeen(): Promise<void> {
  const { document, requestIdleCallback } = globalThis as { document?: Document; requestIdleCallback?: (go: () => void) => void };
  while (document?.hidden === true) {
    await new Promise<void>((seen) => document.addEventListener('visibilitychange', () => seen(), { once: true }));
  }
  await new Promise<void>((go) => (requestIdleCallback ?? setTimeout)(go));
}
