// The package in a real browser. `make test-web` builds it and runs this; ONLY=TEXT picks tests, VERBOSE=1 shows the
// page's console, ALL=1 runs every ONNX case and network.
import fs from 'node:fs';
import { fileURLToPath } from 'node:url';
import { launch, runAll } from './browser.mjs';
import { serve } from './server.mjs';

if (process.env.TILEWRIGHT_SKIP_GPU === '1') {
  console.log('web: skipped, as TILEWRIGHT_SKIP_GPU=1 says');
  process.exit(0);
}
for (const file of fs.readdirSync(fileURLToPath(new URL('.', import.meta.url)))) if (file.endsWith('.test.mjs')) await import(`./${file}`);
const { server, base, requests } = await serve();
const browser = await launch();
try {
  await runAll({ browser, base, requests });
} finally {
  await browser.close();
  server.close();
}
