// The demo page, clicked through; its screenshots go to target/web/screenshots.
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { matches, test } from './browser.mjs';

const shots = path.join(fileURLToPath(new URL('../..', import.meta.url)), 'target/web/screenshots');

const looks = [
  { name: 'desktop', viewport: { width: 1280, height: 900 } },
  { name: 'phone', viewport: { width: 390, height: 844 } },
];

test('the demo page shows the device, runs, tunes, searches and says what is wrong', async ({ browser, base }) => {
  fs.mkdirSync(shots, { recursive: true });
  for (const { name, ...look } of looks) {
    const context = await browser.newContext(look);
    const page = await context.newPage();
    const errors = [];
    page.on('pageerror', (error) => errors.push(String(error)));
    await page.goto(`${base}/demo/`);
    await page.waitForSelector('html[data-ready]');
    await page.waitForFunction(() => document.querySelectorAll('#gpu dd').length > 1);
    const enabled = () => page.waitForFunction(() => !document.querySelector('#run').disabled, null, { timeout: 300_000 });
    await page.click('#small');
    await page.waitForSelector('#loaded:not([hidden])');
    await enabled();
    await page.click('#run');
    await page.waitForFunction(() => document.querySelector('#ran').textContent);
    await enabled();
    matches(await page.textContent('#ran'), /First .* ms, then .* ms\. probabilities: float32 \[1, 3\]/);
    await page.click('#tune');
    await page.waitForFunction(() => document.querySelector('#gain').textContent, null, { timeout: 120_000 });
    await enabled();
    matches(await page.textContent('#kernels'), /default: .*=/);
    const points = await page.evaluate(() => [...document.querySelectorAll('#roofline .best')].map((circle) => [circle.cx, circle.cy].map(({ baseVal }) => baseVal.value)));
    if (points.length !== 3 || !points.flat().every(Number.isFinite)) throw new Error(`${name}: the roofline has points at ${JSON.stringify(points)}`);
    matches(await page.textContent('#roofline'), /[\d.]+ GFLOP\/s, [\d.]+ GB\/s/);
    if (name === looks[0].name) {
      await page.fill('#sentences', ['Plants turn light into sugar.', 'The train was late again.', 'She plays the violin.'].join('\n'));
      await page.click('#search button');
      await page.waitForFunction(() => document.querySelectorAll('#results li').length === 3, null, { timeout: 300_000 });
      matches(await page.textContent('#results li'), /Plants turn light into sugar/);
    }
    await page.fill('#url', `${base}/nowhere.onnx`);
    await page.click('#by-url button');
    await page.waitForSelector('#error:not([hidden])');
    matches(await page.textContent('#error'), /nowhere\.onnx: 404/);
    for (const colorScheme of ['light', 'dark']) {
      await page.emulateMedia({ colorScheme });
      await page.screenshot({ path: path.join(shots, `${name}-${colorScheme}.png`), fullPage: true });
    }
    const wide = await page.evaluate(() => document.documentElement.scrollWidth > document.documentElement.clientWidth);
    if (wide) throw new Error(`${name}: the page is wider than the screen`);
    if (errors.length) throw new Error(errors.join('; '));
    await context.close();
  }
});
