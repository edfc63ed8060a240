// The kernels of the corpus through Chromium's own compiler. SwiftShader has neither f16 nor subgroup matrices: what wants
// them goes through Dawn under Node (`make test-bundlers`).
import { blank, test } from './browser.mjs';
import { texts, wantsF16, wantsMatrices } from './texts.mjs';

/** Texts of each kind and set of dtypes; all with ALL=1. */
const MOST_OF_EACH = process.env.ALL === '1' ? Infinity : 24;

test('Tint takes the kernels of the corpus', async ({ browser, base }) => {
  const page = await blank(browser, base);
  const hasF16 = await page.evaluate(async () => (await navigator.gpu.requestAdapter()).features.has('shader-f16'));
  const chosen = texts(MOST_OF_EACH).filter((text) => (hasF16 || !wantsF16(text)) && !wantsMatrices(text));
  const refused = [];
  for (let at = 0; at < chosen.length; at += 200) {
    refused.push(...(await page.evaluate(async (texts) => {
      const { refusals } = await import('/tests/tint.js');
      const adapter = await navigator.gpu.requestAdapter();
      const requiredFeatures = ['shader-f16', 'subgroups'].filter((name) => adapter.features.has(name));
      const device = await adapter.requestDevice({ requiredFeatures });
      const found = await refusals(device, texts);
      device.destroy();
      return found;
    }, chosen.slice(at, at + 200))));
  }
  await page.close();
  if (refused.length) throw new Error(`${refused.length} of ${chosen.length} texts are refused\n${refused.slice(0, 20).join('\n')}`);
  return `${chosen.length} texts`;
});
