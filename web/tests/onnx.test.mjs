// ONNX's backend cases and the networks of tests/models: outputs equal to the expected ones.
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { blank, test } from './browser.mjs';

const root = fileURLToPath(new URL('../..', import.meta.url));
const data = path.join(root, 'target/test-data');
const all = process.env.ALL === '1';

/** Cases that a device without 64-bit or 16-bit floats cannot pass, as SwiftShader: why, by name. */
const LACKS = [
  [/^pytorch-operator\/test_operator_add.*broadcast$/, 'float64 sums beyond the range of float32'],
  [/^test_bitcast_int64_to_float64$/, 'the bits of a float64'],
  [/^test_attention_.*_?fp16/, 'float16 that is rounded where the reference rounds it'],
];

/** Every fifth case is run, but for ALL=1, and all whose shapes or conditions depend on computed values. */
const EVERY = 5;
const STAGES = /^test_(nonzero|unique|compress|loop|range|nonmaxsuppression|if)_/;

test('ONNX backend cases', async ({ browser, base }) => {
  const lines = fs.readFileSync(path.join(root, 'tests/onnx_backend/passing.txt'), 'utf8').split('\n');
  const names = lines.filter((line) => line && !line.startsWith('#') && line.includes(process.env.CASE ?? '') && !LACKS.some(([name]) => name.test(line)));
  const cases = names.filter((name, i) => all || process.env.CASE || i % EVERY === 0 || STAGES.test(name)).map((name) => {
    const folder = path.join(data, 'onnx-backend', name);
    const of = (role) => fs.readdirSync(folder).filter((file) => file.startsWith(role));
    return { name, inputs: of('input_'), outputs: of('output_'), ...JSON.parse(fs.readFileSync(path.join(folder, 'case.json'), 'utf8')) };
  });
  const page = await blank(browser, base);
  const outcomes = [];
  for (let i = 0; i < cases.length; i += 25) outcomes.push(...(await page.evaluate(runCases, cases.slice(i, i + 25))));
  await page.close();
  const failures = outcomes.filter(({ fault }) => fault);
  const skipped = outcomes.filter(({ skipped }) => skipped);
  const ran = outcomes.length - skipped.length;
  if (failures.length) {
    throw new Error(`${failures.length} of ${ran} cases fail\n${failures.map(({ name, fault }) => `  ${name}: ${fault}`).join('\n')}`);
  }
  if (ran < 300 && !process.env.CASE) throw new Error(`only ${ran} cases ran`);
  return `${ran} cases, ${skipped.length} left out for types that JavaScript has no arrays for`;
});

/** In the page. */
async function runCases(cases) {
  const outcomes = [];
  for (const { name, inputs, outputs, rtol, atol } of cases) {
    const folder = `/data/onnx-backend/${name}`;
    try {
      const read = (list) => Promise.all(list.map((file) => files.proto(`${folder}/${file}`)));
      const [given, wanted] = [await read(inputs), await read(outputs)];
      if ([...given, ...wanted].some(({ tensor }) => !tensor)) {
        outcomes.push({ name, skipped: true });
        continue;
      }
      const session = await tw.InferenceSession.create(`${folder}/model.onnx`, { allowFloat64AsFloat32: true });
      const got = await session.run(Object.fromEntries(given.map(({ name, tensor }) => [name, tensor])));
      await session.release();
      const faults = wanted.map(({ name, tensor }) => {
        const fault = files.difference(got[name], tensor, rtol, atol);
        return fault && `output ${name}: ${fault}`;
      });
      outcomes.push({ name, fault: faults.find((fault) => fault) });
    } catch (error) {
      outcomes.push({ name, fault: `${error.kind ?? error.name}: ${error.message}`.slice(0, 300) });
    }
  }
  return outcomes;
}

// Networks whose runs take seconds on SwiftShader, and, for ALL=1, the others.
const quick = ['minilm/b1_s16', 'minilm/b3_s16', 't5_small_enc/b1_s16', 'mobilenetv2/b1', 'gpt2_6l/b1_decode_p127'];

test('networks agree with ONNX Runtime', async ({ browser, base }) => {
  const models = path.join(data, 'models');
  const every = fs.readdirSync(models).filter((name) => name.endsWith('.cases')).flatMap((folder) => {
    const model = folder.slice(0, -'.cases'.length);
    return fs.readdirSync(path.join(models, folder)).map((name) => `${model}/${name}`);
  });
  const notes = [];
  for (const chosen of all ? every : quick) {
    const [model, name] = chosen.split('/');
    const folder = path.join(models, `${model}.cases`, name);
    const page = await blank(browser, base);
    const { error, ms } = await page.evaluate(async ({ model, name, list }) => {
      const { feeds, want } = await files.numpyCase(`/data/models/${model}.cases/${name}`, list);
      const session = await tw.InferenceSession.create(`/data/models/${model}.onnx`);
      const start = performance.now();
      const got = await session.run(feeds);
      const ms = performance.now() - start;
      const byFile = Object.fromEntries(Object.entries(got).map(([key, value]) => [key.replaceAll(/[/:]/g, '_'), value]));
      return { ms, error: Math.max(...Object.entries(want).map(([key, value]) => files.relativeError(byFile[key], value))) };
    }, { model, name, list: fs.readdirSync(folder) });
    await page.close();
    notes.push(`${chosen} ${error.toExponential(1)} in ${Math.round(ms)} ms`);
    if (!(error <= 1e-4)) throw new Error(`${chosen}: relative error ${error}`);
  }
  return notes.join(', ');
});
