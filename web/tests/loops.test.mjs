// Loops that are repeats of a plan, and a plan that does not hold for a run.
import { blank, equal, matches, test } from './browser.mjs';

const onPage = (name, run) => test(name, async ({ browser, base }) => {
  const page = await blank(browser, base);
  try {
    return await run(page);
  } finally {
    await page.close();
  }
});

onPage('a Scan in a Loop agrees with the formula', async (page) => {
  const got = await page.evaluate(async () => {
    // In each round s goes through the rows r of x: s = s / 2 + r.
    const step = {
      inputs: [['before', [2]], ['row', [2]]], nodes: [['Mul', 'before half', 'less'], ['Add', 'less row', 'after'], ['Identity', 'after', 'seen']],
      outputs: [['after', [2]], ['seen', [2]]],
    };
    const round = {
      inputs: [['i', [], 'int64'], ['go', [], 'bool'], ['s', [2]]],
      nodes: [['Scan', 's x', 'last all', { body: step, num_scan_inputs: 1 }], ['Identity', 'go', 'on']],
      outputs: [['on', [], 'bool'], ['last', [2]], ['all', ['n', 2]]],
    };
    const session = await tw.InferenceSession.create(model({
      inputs: [['x', ['n', 2]], ['start', [2]], ['rounds', [], 'int64']], constants: [['half', [], [0.5]]],
      nodes: [['Loop', 'rounds  start', 'end every', { body: round }]], outputs: [['end', [2]], ['every', ['m', 'n', 2]]],
    }));
    const errors = [];
    for (const [n, rounds] of [[3, 4], [5, 2], [3, 4]]) {
      const [x, start] = [Float32Array.from({ length: n * 2 }, (_, i) => Math.sin(i)), [1, -2]];
      const { end, every } = await session.run({
        x: new tw.Tensor('float32', x, [n, 2]), start: new tw.Tensor('float32', start, [2]), rounds: new tw.Tensor('int64', [BigInt(rounds)], []),
      });
      const [s, want] = [[...start], []];
      for (let step = 0; step < rounds * n; step++) want.push(...s.map((v, c) => (s[c] = v / 2 + x[(step % n) * 2 + c])));
      errors.push(every.dims.join() === `${rounds},${n},2` && Math.max(...want.map((v, i) => Math.abs(v - every.data[i])), ...s.map((v, i) => Math.abs(v - end.data[i]))));
    }
    return errors.map((error) => error !== false && error < 1e-6);
  });
  equal(got, [true, true, true]);
});

onPage('a Loop goes ten thousand rounds', async (page) => {
  const { sum, ms } = await page.evaluate(async () => {
    const round = {
      inputs: [['i', [], 'int64'], ['go', [], 'bool'], ['s', [4]]], nodes: [['Add', 's x', 't'], ['Identity', 'go', 'on']],
      outputs: [['on', [], 'bool'], ['t', [4]]],
    };
    const session = await tw.InferenceSession.create(model({
      inputs: [['x', [4]], ['start', [4]]], constants: [['rounds', [], [10000n], 'int64']],
      nodes: [['Loop', 'rounds  start', 'end', { body: round }]], outputs: [['end', [4]]],
    }));
    const begin = performance.now();
    const { end } = await session.run({ x: new tw.Tensor('float32', [1, 2, 3, 4], [4]), start: new tw.Tensor('float32', [0, 0, 0, 1], [4]) });
    return { sum: [...end.data], ms: performance.now() - begin };
  });
  equal(sum, [10000, 20000, 30000, 40001]);
  return `${Math.round(ms)} ms`;
});

onPage('TopK of more than its axis has is refused, and the session goes on', async (page) => {
  const got = await page.evaluate(async () => {
    const session = await tw.InferenceSession.create(model({
      inputs: [['x', ['n']]], constants: [['k', [1], [3n], 'int64']], nodes: [['TopK', 'x k', 'y at']], outputs: [['y', [3]], ['at', [3], 'int64']],
    }));
    const run = (...values) => session.run({ x: new tw.Tensor('float32', values, [values.length]) });
    const why = await run(5, 6).then(() => 'ran', ({ message }) => message);
    const { y, at } = await run(5, 9, 7, 8);
    return [why, [...y.data], [...at.data].map(Number)];
  });
  matches(got[0], /TopK "TopK_0": .*3 must be at most .*2/);
  equal(got.slice(1), [[9, 8, 7], [1, 3, 2]]);
});
