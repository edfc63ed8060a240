// Builds the page twice with Vite, with onnxruntime-web and with this package in its place, and compares what
// @huggingface/transformers computes with them. `make test-dropin`; its packages are large, so `make test` leaves it out.
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { launch } from '../browser.mjs';
import { serve } from '../server.mjs';

const here = fileURLToPath(new URL('.', import.meta.url));
const root = path.join(here, '../../..');
const models = path.join(root, 'target/web/models/minilm');
const sentences = ['A cat sleeps on the windowsill.', 'How do plants make food?', 'The train to the coast was late again this morning.'];

fs.mkdirSync(path.join(models, 'onnx'), { recursive: true });
const link = (from, to) => fs.existsSync(path.join(models, to)) || fs.symlinkSync(path.join(root, 'target/demo', from), path.join(models, to));
link('minilm.onnx', 'onnx/model.onnx');
link('tokenizer.json', 'tokenizer.json');
fs.writeFileSync(path.join(models, 'config.json'), JSON.stringify({ model_type: 'bert', architectures: ['BertModel'], hidden_size: 384 }));
fs.writeFileSync(path.join(models, 'tokenizer_config.json'), JSON.stringify({
  tokenizer_class: 'BertTokenizer', model_max_length: 128,
  cls_token: '[CLS]', sep_token: '[SEP]', pad_token: '[PAD]', unk_token: '[UNK]', mask_token: '[MASK]',
}));

for (const engine of ['tilewright', 'ort']) {
  const vite = path.join(here, 'node_modules/vite/bin/vite.js');
  execFileSync('node', [vite, 'build'], { cwd: here, stdio: ['ignore', 'ignore', 'inherit'], env: { ...process.env, VITE_ENGINE: engine } });
}
const { server, base } = await serve();
const found = {};
for (const engine of ['tilewright', 'ort']) {
  const browser = await launch();
  const page = await browser.newPage();
  page.on('pageerror', (error) => console.error(engine, error.message));
  if (process.env.VERBOSE) page.on('console', (message) => console.error(engine, message.text()));
  page.on('requestfailed', (request) => console.error(engine, 'request failed:', request.url()));
  await page.goto(`${base}/built/dropin-${engine}/`);
  await page.waitForFunction('window.embed');
  found[engine] = await page.evaluate((sentences) => window.embed(sentences), sentences);
  await browser.close();
  const { dims, createMs, firstMs } = found[engine];
  console.log(`${engine}: [${dims}], pipeline in ${Math.round(createMs)} ms, first run ${Math.round(firstMs)} ms`);
}
server.close();

const [ours, theirs] = [found.tilewright, found.ort];
const [count, width] = ours.dims;
for (let i = 0; i < count; i++) {
  const row = ({ data }) => data.slice(i * width, (i + 1) * width);
  const dot = (a, b) => a.reduce((sum, v, k) => sum + v * b[k], 0);
  const [a, b] = [row(ours), row(theirs)];
  const cosine = dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b));
  console.log(`cosine ${cosine.toFixed(8)}: ${sentences[i]}`);
  if (!(cosine >= 0.99999)) process.exitCode = 1;
}
