// Tilewright and its peers in one Chromium, on one adapter, in turns. `node web/bench/run.mjs PART ROUNDS` adds rounds of
// a part (parts.mjs) to target/web/bench/rounds.jsonl, so that what takes long can be measured in pieces; report.mjs reads
// it. `make bench-web` does all.
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { chromium } from 'playwright-core';
import { options } from '../tests/browser.mjs';
import { serve } from '../tests/server.mjs';
import { parts, roundsFile } from './parts.mjs';

const here = fileURLToPath(new URL('.', import.meta.url));
const root = path.join(here, '../..');

const [name, rounds] = [process.argv[2], Number(process.argv[3] ?? 5)];
if (!Object.hasOwn(parts, name)) throw new Error(`no part ${name}; there are ${Object.keys(parts).join(', ')}`);
const { job, engines, navigates } = parts[name];
const files = job.kind === 'network' ? fs.readdirSync(path.join(root, `target/test-data/models/${job.model}.cases/${job.name}`)) : [];

const { server, base } = await serve(0, { cacheControl: 'max-age=86400', more: { bench: path.join(here, 'page'), npm: path.join(here, 'node_modules') } });
// A profile on disk, whose caches keep large files.
const profile = fs.mkdtempSync(path.join(os.tmpdir(), 'tilewright-bench-'));
const context = await chromium.launchPersistentContext(profile, options());

/** A page with an engine once it has its first result. */
async function open(engine) {
  const page = await context.newPage();
  page.on('pageerror', (error) => console.error(`${engine}: ${error.message}`));
  await page.goto(`${base}/bench/?job=${encodeURIComponent(JSON.stringify({ engine, files, ...job }))}`);
  await page.waitForFunction('window.result', null, { timeout: 600_000 });
  const { failed, ...result } = await page.evaluate('result');
  if (failed !== undefined) throw new Error(`${engine}: ${failed}`);
  if (!(result.error <= 1e-4)) throw new Error(`${engine}: the result is off by ${result.error} of the largest value`);
  const client = await context.newCDPSession(page);
  await client.send('Performance.enable', { timeDomain: 'threadTicks' });
  return { page, client, ...result };
}

/** Milliseconds of a run, and for how long of them the page's thread was at work, beyond what being asked takes. */
async function once({ page, client }) {
  await page.bringToFront();
  const worked = async () => (await client.send('Performance.getMetrics')).metrics.find((metric) => metric.name === 'TaskDuration').value * 1e3;
  const start = await worked();
  await page.evaluate('Promise.resolve(0)');
  const asked = await worked();
  const ms = await page.evaluate('once()');
  return { ms, threadMs: (await worked()) - asked - (asked - start) };
}

async function navigation(engine) {
  const { page, firstMs, error } = await open(engine);
  await page.close();
  return { ms: firstMs, error };
}

async function about() {
  const page = await context.newPage();
  await page.goto(`${base}/tests/blank.html`);
  const adapter = await page.evaluate(async () => {
    const { vendor, architecture, device, description } = (await navigator.gpu.requestAdapter()).info;
    return [vendor, architecture, device, description].filter(Boolean).join(' ');
  });
  const browser = /Chrome\/[\d.]+/.exec(await page.evaluate('navigator.userAgent'))[0];
  await page.close();
  const version = (library) => JSON.parse(fs.readFileSync(path.join(here, 'node_modules', library, 'package.json'), 'utf8')).version;
  return {
    adapter, browser, cpu: `${os.cpus()[0].model}, ${os.cpus().length} cores`,
    tilewright: execFileSync('git', ['describe', '--always', '--dirty'], { cwd: root, encoding: 'utf8' }).trim(),
    'onnxruntime-web': version('onnxruntime-web'), 'TensorFlow.js': version('@tensorflow/tfjs-core'),
  };
}

try {
  const setting = await about();
  // Opening fills the caches, compiles, and is not counted.
  const opened = {};
  for (const engine of engines) opened[engine] = await open(engine);
  if (navigates) for (const { page } of Object.values(opened)) await page.close();
  fs.mkdirSync(path.dirname(roundsFile), { recursive: true });
  for (let round = 0; round < rounds; round++) {
    const times = {};
    for (const engine of engines) {
      times[engine] = navigates ? await navigation(engine) : { ...(await once(opened[engine])), error: opened[engine].error };
    }
    fs.appendFileSync(roundsFile, `${JSON.stringify({ part: name, date: new Date().toISOString(), setting, times })}\n`);
    console.log(engines.map((engine) => `${engine} ${times[engine].ms.toFixed(1)} ms`).join(', '));
  }
} finally {
  await context.close();
  server.close();
  fs.rmSync(profile, { recursive: true, force: true });
}
