// Tuning, its records, and what a reload finds of them.
import { blank, equal, test } from './browser.mjs';

test('tuning measures, keeps records across a reload, and agrees with the untuned run', async ({ browser, base }) => {
  const context = await browser.newContext();
  const page = await blank(context, base);
  const tuned = await page.evaluate(async () => {
    const session = await tw.InferenceSession.create('/examples/mlp.onnx');
    const x = new tw.Tensor('float32', Array.from({ length: 256 }, (_, i) => Math.sin(i)), [64, 4]);
    const before = await session.run({ x });
    const seen = [];
    const report = await session.tune({ budgetMs: 2000, mostCandidates: 3, onProgress: ({ kernel, trials }) => seen.push(`${kernel}:${trials.length}`) });
    const after = await session.run({ x });
    const same = after.probabilities.data.every((v, i) => Math.abs(v - before.probabilities.data[i]) < 1e-5);
    const explained = await session.explain();
    const profile = await session.profile({ x });
    return {
      same, progress: seen.length > 0, kernels: report.kernels.length, trials: report.kernels.every(({ trials }) => trials[0].samples_ns.length > 0),
      wrong: report.kernels.flatMap(({ trials }) => trials).filter(({ status }) => typeof status === 'object' && !status.Rejected),
      positive: report.beforeNs > 0 && report.afterNs > 0, noSlower: report.afterNs < report.beforeNs * 1.03, exported: (await tw.exportRecords()).split('\n').length - 1,
      profiled: profile.length > 0 && profile.every(({ kernel, output }) => kernel && output), explained: explained.kernels.every(({ wgsl }) => wgsl.includes('@compute')),
    };
  });
  const { kernels } = tuned;
  equal(tuned, { same: true, progress: true, kernels, trials: true, wrong: [], positive: true, noSlower: true, exported: kernels, profiled: true, explained: true });
  await page.reload();
  await page.waitForFunction('window.ready');
  const kept = await page.evaluate(async () => {
    const text = await tw.exportRecords();
    const first = JSON.parse(text.split('\n')[0]);
    const count = await tw.importRecords(text);
    const broken = await tw.importRecords('{"format":1}').then(() => 'nothing', ({ message }) => message);
    return [count, first.format, first.key.backend, broken];
  });
  equal(kept, [kernels, 1, 'webgpu', 'tuning records, line 1: it has neither key nor platform']);
  await context.close();
  return `${kernels} kernels`;
});

for (const [inRuns, together, want] of [['slower', 15, 'rejected'], ['faster', 8, 'kept']]) {
  test(`winners that are ${inRuns} in whole runs are ${want}`, async ({ browser, base }) => {
    const context = await browser.newContext();
    const page = await blank(context, base);
    const got = await page.evaluate(async (together) => {
      // A device without timestamps and a clock of the test's: a dispatch takes 10 ms by default, others 5 ms alone and
      // `together` in a run with other kernels.
      tw.env.webgpu.device = await (await navigator.gpu.requestAdapter()).requestDevice();
      let now = 0;
      let pass = [];
      const defaults = new Set();
      let tuning = false;
      performance.now = () => now;
      const { setPipeline, dispatchWorkgroups } = GPUComputePassEncoder.prototype;
      let pipeline;
      GPUComputePassEncoder.prototype.setPipeline = function (next) { pipeline = next; setPipeline.call(this, next); };
      GPUComputePassEncoder.prototype.dispatchWorkgroups = function (...counts) { pass.push(pipeline); dispatchWorkgroups.apply(this, counts); };
      const { submit } = GPUQueue.prototype;
      GPUQueue.prototype.submit = function (buffers) {
        if (!tuning) pass.forEach((pipeline) => defaults.add(pipeline));
        const other = new Set(pass).size > 1 ? together : 5;
        now += pass.length * (pass.every((pipeline) => defaults.has(pipeline)) ? 10 : other);
        pass = [];
        submit.call(this, buffers);
      };
      const session = await tw.InferenceSession.create('/examples/mlp.onnx');
      await session.run({ x: new tw.Tensor('float32', new Float32Array(256).fill(1), [64, 4]) });
      const schedules = async () => (await session.explain()).kernels.map(({ label, schedule }) => `${label}: ${schedule}`).join('\n');
      const before = await schedules();
      tuning = true;
      const { kernels, beforeNs, afterNs } = await session.tune({ budgetMs: 100_000, mostCandidates: 3 });
      const reasons = kernels.flatMap(({ trials }) => trials).flatMap(({ status }) => status.Rejected ?? []);
      const records = (await tw.exportRecords()).trim().split('\n').map(JSON.parse);
      return {
        ratio: afterNs / beforeNs, changed: (await schedules()) !== before, reasons: [...new Set(reasons)],
        recorded: records.flatMap(({ trials }) => trials).filter(({ status }) => status.Rejected).length === reasons.length,
      };
    }, together);
    await context.close();
    const reasons = inRuns === 'slower' ? ['with it among the winners whole runs take 1.50x the time'] : [];
    equal(got, { ratio: inRuns === 'slower' ? 1 : 0.8, changed: inRuns === 'faster', reasons, recorded: true });
  });
}

test('a session may tune in the background while it runs', async ({ browser, base }) => {
  const context = await browser.newContext();
  const page = await blank(context, base);
  const got = await page.evaluate(async () => {
    const session = await tw.InferenceSession.create('/examples/mlp.onnx', { tuning: 'background', tuningBudgetMs: 500 });
    const x = (n) => new tw.Tensor('float32', Array.from({ length: n * 4 }, (_, i) => Math.sin(i)), [n, 4]);
    const first = await session.run({ x: x(16) });
    let runs = 0;
    const start = performance.now();
    while ((await tw.exportRecords()) === '' && performance.now() - start < 60000) {
      await session.run({ x: x(16 + (runs % 3)) });
      runs += 1;
    }
    const last = await session.run({ x: x(16) });
    return [(await tw.exportRecords()) !== '', runs > 0, last.probabilities.data.every((v, i) => Math.abs(v - first.probabilities.data[i]) < 1e-5)];
  });
  equal(got, [true, true, true]);
  await context.close();
});
