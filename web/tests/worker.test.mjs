// Sessions in workers, and what the page's main thread is held by.
import { blank, equal, matches, test } from './browser.mjs';

/** A task of more than this holds up the page. */
const LONGEST_MS = 50;

test('a session in a worker gives what one in the page gives', async ({ browser, base }) => {
  const page = await blank(browser, base);
  const got = await page.evaluate(async () => {
    const x = new tw.Tensor('float32', [1, 0, -1, 2], [1, 4]);
    const here = await tw.InferenceSession.create('/examples/mlp.onnx');
    const stages = new Set();
    const there = await tw.createWorkerSession('/examples/mlp.onnx', { onProgress: ({ stage }) => stages.add(stage) });
    const [a, b] = [await here.run({ x }), await there.run({ x })];
    const wrong = await there.run({}).then(() => 'nothing', ({ kind, message }) => `${kind}: ${message}`);
    const nowhere = await tw.createWorkerSession('/nowhere.onnx').then(() => 'nothing', ({ kind }) => kind);
    const names = [there.inputNames, there.outputNames];
    await there.release();
    const after = await there.run({ x }).then(() => 'nothing', ({ kind }) => kind);
    return [a.probabilities.data.join() === b.probabilities.data.join(), b.probabilities instanceof tw.Tensor, [...stages].sort(), wrong, nowhere, names, after];
  });
  await page.close();
  equal(got.filter((_, i) => i !== 3), [true, true, ['compile', 'download', 'upload'], 'io', [['x'], ['probabilities']], 'released']);
  matches(got[3], /input: input "x": missing/);
});

for (const [where, create] of [['a worker', 'createWorkerSession'], ['the page', 'create']]) {
  test(`with a session in ${where}, nothing holds the page for more than 50 ms`, async ({ browser, base }) => {
    const page = await blank(browser, base);
    const { longest, tuned } = await page.evaluate(async (create) => {
      const pause = () => new Promise((go) => setTimeout(go, 500));
      await pause();
      for (const start = performance.now(); performance.now() - start < 80; );
      await pause();
      if (longTasks.length === 0) throw new Error('the browser does not count long tasks');
      longTasks.length = 0;
      const ids = (value) => new tw.Tensor('int64', new BigInt64Array(32).fill(value), [1, 32]);
      const feeds = { input_ids: ids(7n), attention_mask: ids(1n), token_type_ids: ids(0n) };
      const session = create === 'create' ? await tw.InferenceSession.create('/minilm/minilm.onnx') : await tw[create]('/minilm/minilm.onnx');
      for (const name of Object.keys(feeds)) if (!session.inputNames.includes(name)) delete feeds[name];
      await session.run(feeds);
      await session.run(feeds);
      const report = await session.tune?.({ budgetMs: 3000, mostCandidates: 3 });
      await session.run(feeds);
      await pause();
      return { longest: Math.max(0, ...longTasks), tuned: report?.kernels.length };
    }, create);
    await page.close();
    if (longest > LONGEST_MS) throw new Error(`a task of ${longest} ms`);
    return `${longest ? `longest ${longest} ms` : 'no long task at all'}${tuned ? `, ${tuned} kernels tuned` : ''}`;
  });
}

test('a package on another origin works in a worker, too', async ({ browser, base }) => {
  const page = await blank(browser, base);
  const said = [];
  page.on('console', (message) => { if (message.type() === 'warning') said.push(message.text()); });
  const got = await page.evaluate(async (other) => {
    const { InferenceSession, Tensor, createWorkerSession } = await import(`${other}/dist/index.js`);
    const sums = [];
    for (const create of [(url) => InferenceSession.create(url), createWorkerSession]) {
      const session = await create('/examples/mlp.onnx');
      const { probabilities } = await session.run({ x: new Tensor('float32', [1, 0, -1, 2], [1, 4]) });
      sums.push(probabilities.data.reduce((a, b) => a + b).toFixed(5));
    }
    return sums;
  }, base.replace('127.0.0.1', 'localhost'));
  const workers = page.workers().length;
  await page.close();
  equal([got, workers, said], [['1.00000', '1.00000'], 2, []]);
});

test('where no worker starts, the core works in the page and says so', async ({ browser, base }) => {
  const page = await blank(browser, base);
  const warnings = [];
  page.on('console', (message) => { if (message.type() === 'warning') warnings.push(message.text()); });
  const sum = await page.evaluate(async () => {
    globalThis.Worker = class { constructor() { throw new Error('not here'); } };
    const session = await tw.InferenceSession.create('/examples/mlp.onnx');
    const { probabilities } = await session.run({ x: new tw.Tensor('float32', [1, 0, -1, 2], [1, 4]) });
    return probabilities.data.reduce((a, b) => a + b).toFixed(5);
  });
  await page.close();
  equal([sum, warnings.length], ['1.00000', 1]);
  matches(warnings[0], /the core runs in the page and may hold it, as its worker does not start: not here/);
});
