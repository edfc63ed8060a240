// Chromium with WebGPU on SwiftShader, a small list of tests, and their report.
import { existsSync } from 'node:fs';
import { chromium } from 'playwright-core';

const FLAGS = ['--no-sandbox', '--enable-unsafe-webgpu', '--disable-background-networking', '--disable-component-update', '--disable-sync',
  '--disable-quic', '--disable-gpu-watchdog'];

/** How Chromium is started: on SwiftShader, unless `WEBGPU_ADAPTER` names another adapter; `default` is the machine's. */
export function options() {
  const found = [process.env.CHROMIUM, '/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome',
    '/Applications/Google Chrome.app/Contents/MacOS/Google Chrome'].find((file) => file && existsSync(file));
  if (!found) throw new Error('no Chromium: install Debian\'s `chromium`, or name one in CHROMIUM');
  const adapter = process.env.WEBGPU_ADAPTER ?? 'swiftshader';
  return { executablePath: found, headless: true, args: adapter === 'default' ? FLAGS : [...FLAGS, `--use-webgpu-adapter=${adapter}`] };
}

export const launch = () => chromium.launch(options());

/** A page with the package as `tw`; what it throws outside of a test ends the run. */
export async function blank(browser, base) {
  const page = await browser.newPage();
  page.on('pageerror', (error) => { console.error('in the page:', error); process.exitCode = 1; });
  page.on('console', (message) => { if (process.env.VERBOSE) console.error(`  page: ${message.text()}`); });
  await page.goto(`${base}/tests/blank.html`);
  await page.waitForFunction('window.ready');
  return page;
}

const tests = [];

/** Adds a test. */
export const test = (name, run) => tests.push({ name, run });

/** Runs all, or those with the text of `ONLY` in their names. */
export async function runAll(context) {
  const chosen = tests.filter(({ name }) => name.includes(process.env.ONLY ?? ''));
  let failed = 0;
  for (const { name, run } of chosen) {
    const start = performance.now();
    try {
      const note = await Promise.race([
        run(context),
        new Promise((_, fail) => setTimeout(() => fail(new Error('no end in 600 s')), 600_000).unref()),
      ]);
      console.log(`ok    ${name} (${Math.round(performance.now() - start)} ms)${note ? `: ${note}` : ''}`);
    } catch (error) {
      failed += 1;
      console.log(`FAIL  ${name}: ${String(error?.stack ?? error).slice(0, 1500)}`);
    }
  }
  console.log(`${chosen.length - failed} of ${chosen.length} browser tests passed`);
  if (failed > 0 || chosen.length === 0) process.exitCode = 1;
}

export function equal(got, want, what = '') {
  const [g, w] = [JSON.stringify(got), JSON.stringify(want)];
  if (g !== w) throw new Error(`${what} got ${g}, want ${w}`);
}

export function matches(text, pattern) {
  if (!pattern.test(String(text))) throw new Error(`got ${JSON.stringify(text)}, want ${pattern}`);
}
