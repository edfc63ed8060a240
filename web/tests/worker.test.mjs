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

test('nothing holds the page for more than 50 ms', async ({ browser, base }) => {
  const page = await blank(browser, base);
  const longest = await page.evaluate(async () => {
    await new Promise((go) => setTimeout(go, 500));
    longTasks.length = 0;
    const ids = (value) => new tw.Tensor('int64', new BigInt64Array(32).fill(value), [1, 32]);
    const feeds = { input_ids: ids(7n), attention_mask: ids(1n), token_type_ids: ids(0n) };
    const session = await tw.InferenceSession.create('/minilm/minilm.onnx');
    for (const name of Object.keys(feeds)) if (!session.inputNames.includes(name)) delete feeds[name];
    await session.run(feeds);
    await session.tune({ budgetMs: 3000, mostCandidates: 2 });
    await session.run(feeds);
    await new Promise((go) => setTimeout(go, 200));
    return Math.max(0, ...longTasks);
  });
  await page.close();
  if (longest > LONGEST_MS) throw new Error(`a task of ${longest} ms`);
  return longest ? `longest ${longest} ms` : 'no long task at all';
});
