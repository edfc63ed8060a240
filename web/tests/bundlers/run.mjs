// The package from its users' side: pages built with Vite and with webpack, in Chromium, and programs under Node, with
// Dawn. `make test-bundlers`; what it installs is large, so `make test` leaves it out.
import fs from 'node:fs';
import path from 'node:path';
import { build } from 'vite';
import webpack from 'webpack';
import { launch, runAll, test } from '../browser.mjs';
import { serve } from '../server.mjs';
import { check, ids, root } from './sentence.mjs';
import './node.test.mjs';

const here = path.join(root, 'web/tests/bundlers');

const bundlers = {
  vite: (outDir) => build({ root: here, base: './', logLevel: 'warn', build: { outDir, emptyOutDir: true, target: 'es2022' } }),
  webpack: async (out) => {
    const config = { context: here, mode: 'production', entry: './page.js', output: { path: out, clean: true }, performance: false };
    const stats = await new Promise((done, fail) => webpack(config, (error, stats) => (error ? fail(error) : done(stats))));
    if (stats.hasErrors() || stats.hasWarnings()) throw new Error(stats.toString({ all: false, errors: true, warnings: true }));
    fs.writeFileSync(path.join(out, 'index.html'), '<!doctype html><link rel="icon" href="data:,"><script src="main.js"></script>');
  },
};

for (const [name, bundle] of Object.entries(bundlers)) {
  test(`a page built with ${name}`, async ({ browser, base }) => {
    const folder = path.join(root, `target/web/bundled-${name}`);
    await bundle(folder);
    const page = await browser.newPage();
    const said = [];
    page.on('pageerror', (error) => said.push(error.message));
    page.on('console', (message) => { if (['warning', 'error'].includes(message.type())) said.push(message.text()); });
    await page.goto(`${base}/built/bundled-${name}/`);
    await page.waitForFunction('window.embed');
    const note = check(await page.evaluate((ids) => window.embed('/minilm/minilm.onnx', ids), ids));
    const workers = page.workers().length;
    await page.close();
    if (said.length > 0 || workers !== 1) throw new Error(`${workers} workers; ${said.join('; ')}`);
    return note;
  });
}

const { server, base } = await serve();
const browser = await launch();
try {
  await runAll({ browser, base });
} finally {
  await browser.close();
  server.close();
}
