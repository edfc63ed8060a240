// Loading, running, and what is refused.
import { blank, equal, matches, test } from './browser.mjs';

const onPage = (name, run) => test(name, async (context) => {
  const page = await blank(context.browser, context.base);
  try {
    return await run(page, context);
  } finally {
    await page.close();
  }
});

/** What `body` throws in the page. */
const thrown = (page, body) => page.evaluate(async (body) => {
  try {
    await new (Object.getPrototypeOf(async () => {}).constructor)(body)();
    return 'nothing';
  } catch (error) {
    return `${error.name} ${error.kind ?? ''}: ${error.message}`;
  }
}, body);

onPage('a model of the README runs', async (page) => {
  const got = await page.evaluate(async () => {
    const session = await tw.InferenceSession.create('/examples/mlp.onnx');
    const x = new tw.Tensor('float32', [1, 0, -1, 2, 0.5, 0.5, 0.5, 0.5], [2, 4]);
    const { probabilities } = await session.run({ x });
    const sum = probabilities.data.slice(0, 3).reduce((a, b) => a + b);
    const described = [session.inputNames, session.outputNames, session.inputMetadata];
    await session.release();
    return { described, dims: probabilities.dims, sum: sum.toFixed(5), location: probabilities.location };
  });
  equal(got, {
    described: [['x'], ['probabilities'], [{ name: 'x', isTensor: true, type: 'float32', shape: ['batch', 4] }]],
    dims: [2, 3], sum: '1.00000', location: 'cpu',
  });
});

onPage('a model may be a URL, a buffer, a part of one, bytes or a Blob', async (page) => {
  const got = await page.evaluate(async () => {
    const bytes = await files.bytesOf('/examples/mlp.onnx');
    const padded = new Uint8Array(bytes.length + 20);
    padded.set(bytes, 7);
    const x = new tw.Tensor(new Float32Array(4), [1, 4]);
    const sums = [];
    for (const args of [['/examples/mlp.onnx'], [bytes], [bytes.buffer], [new Blob([bytes])], [padded.buffer, 7, bytes.length],
      [new URL('/examples/mlp.onnx', location.href)]]) {
      const session = await tw.InferenceSession.create(...args);
      const { probabilities } = await session.run({ x });
      sums.push(probabilities.data[0]);
    }
    return new Set(sums).size;
  });
  equal(got, 1);
});

onPage('errors say what was found and what was wanted', async (page) => {
  const create = (argument) => `await tw.InferenceSession.create(${argument})`;
  matches(await thrown(page, create("'/nowhere.onnx'")), /TilewrightError io: \/nowhere\.onnx: 404/);
  matches(await thrown(page, create('new TextEncoder().encode("not a model")')), /parse: model: not an ONNX model: this looks like text/);
  matches(await thrown(page, create("'/corpus/bad_cut_off.onnx'")), /parse: model: .*cut off/i);
  matches(await thrown(page, create("'/corpus/bad_cycle.onnx'")), /model: .*cycle/);
  matches(await thrown(page, create('42')), /unsupported: a model given as/);
  for (const options of ['{ executionProviders: ["wasm"] }', '{ preferredOutputLocation: "texture" }', '{ optimizedModelFilePath: "x" }']) {
    matches(await thrown(page, create(`'/examples/mlp.onnx', ${options}`)), /unsupported: .*(executionProviders wasm|preferredOutputLocation texture|optimizedModelFilePath)/);
  }
  const run = (feeds, rest = '') => `const s = ${create("'/examples/mlp.onnx'")}; await s.run(${feeds}${rest})`;
  matches(await thrown(page, run('{}')), /input: input "x": missing; the model wants "x"/);
  matches(await thrown(page, run('{ y: new tw.Tensor([true], [1]) }')), /input "y": the model has no such input; it has "x"/);
  matches(await thrown(page, run('{ x: new tw.Tensor("int32", [1, 2, 3, 4], [1, 4]) }')), /input "x": wants float32, got int32/);
  matches(await thrown(page, run('{ x: new tw.Tensor("float32", [1, 2, 3], [1, 3]) }')), /input "x": wants shape \[batch, 4\], got \[1, 3\]/);
  matches(await thrown(page, run('{ x: 3 }')), /input "x": is no tensor/);
  matches(await thrown(page, run('{ x: new tw.Tensor("float32", [1, 2, 3, 4], [1, 4]) }', ', ["z"]')), /output "z": the model has no such output; it has "probabilities"/);
  matches(await thrown(page, run('{ x: new tw.Tensor("float32", [1, 2, 3, 4], [1, 4]) }', ', { terminate: true }')), /unsupported: run option terminate/);
  matches(await thrown(page, 'new tw.Tensor("float32", [1, 2, 3], [2])'), /tensor: float32 of shape \[2\] wants 2 elements, got 3/);
  matches(await thrown(page, 'tw.Tensor.fromImage()'), /unsupported: Tensor.fromImage/);
  matches(await thrown(page, `const s = ${create("'/examples/mlp.onnx'")}; await s.release(); await s.run({ x: new tw.Tensor("float32", [1, 2, 3, 4], [1, 4]) })`), /released: the session was released/);
});

onPage('a tensor too large for the device is refused by name', async (page) => {
  const got = await thrown(page, `
    const s = await tw.InferenceSession.create('/examples/mlp.onnx', { freeDimensionOverrides: { batch: 500000000 } });
    await s.run({ x: new tw.Tensor(new Float32Array(4), [1, 4]) });`);
  matches(got, /input "x": wants shape \[batch = 500000000, 4\]/);
  const run = await thrown(page, `
    const s = await tw.InferenceSession.create('/examples/mlp.onnx');
    await s.run({ x: { type: 'float32', dims: [500000000, 4], location: 'gpu-buffer', gpuBuffer: {} } });`);
  matches(run, /limit: .*(500000000|2000000000|bytes)/);
});

onPage('an abort ends loading and waiting', async (page) => {
  const got = await page.evaluate(async () => {
    const reason = async (promise) => promise.then(() => 'nothing', (error) => String(error.name ?? error));
    const before = new AbortController();
    before.abort();
    const during = new AbortController();
    const loading = reason(tw.InferenceSession.create('/minilm/minilm.onnx', { signal: during.signal, onProgress: () => during.abort() }));
    const session = await tw.InferenceSession.create('/examples/mlp.onnx');
    const x = new tw.Tensor(new Float32Array(4), [1, 4]);
    const running = new AbortController();
    const run = reason(session.run({ x }, { signal: running.signal }));
    running.abort('enough');
    const aborted = [await reason(tw.InferenceSession.create('/examples/mlp.onnx', { signal: before.signal })), await loading, await run];
    const { probabilities } = await session.run({ x }); // the session goes on
    return [...aborted, probabilities.dims];
  });
  equal(got, ['AbortError', 'AbortError', 'enough', [1, 3]]);
});

onPage('a session takes other libraries\' tensors, and sizes for symbols', async (page) => {
  const got = await page.evaluate(async () => {
    const session = await tw.InferenceSession.create('/examples/mlp.onnx', { freeDimensionOverrides: { batch: 2 } });
    // As onnxruntime-common has them: a class of its own, whose properties are getters.
    class Foreign {
      get type() { return 'float32'; }
      get dims() { return [2, 4]; }
      get location() { return 'cpu'; }
      get data() { return Float32Array.from([1, 0, -1, 2, 1, 0, -1, 2]); }
    }
    const { probabilities } = await session.run({ x: new Foreign() });
    const ours = await session.run({ x: new tw.Tensor('float32', [1, 0, -1, 2, 1, 0, -1, 2], [2, 4]) });
    const other = await session.run({ x: new tw.Tensor(new Float32Array(4), [1, 4]) }).then(() => 'ran', ({ message }) => message);
    return [probabilities instanceof tw.Tensor, probabilities.data.join() === ours.probabilities.data.join(), session.outputMetadata, other];
  });
  equal(got.slice(0, 3), [true, true, [{ name: 'probabilities', isTensor: true, type: 'float32', shape: ['batch', 3] }]]);
  matches(got[3], /input "x": wants shape \[batch = 2, 4\], got \[1, 4\]/);
});

onPage('the core comes from where env.wasm says', async (page) => {
  const binary = await page.evaluate(async () => {
    tw.env.wasm.wasmPaths = '/nowhere/';
    const wrong = await tw.InferenceSession.create('/examples/mlp.onnx').then(() => 'nothing', ({ kind, message }) => `${kind}: ${message}`);
    tw.env.wasm.wasmBinary = await files.bytesOf('/dist/core.wasm');
    const session = await tw.InferenceSession.create('/examples/mlp.onnx');
    return [wrong, session.inputNames];
  });
  matches(binary[0], /io: cannot load the core from http.*\/nowhere\/core\.wasm: 404/);
  equal(binary[1], ['x']);
});

onPage('runs and sessions go side by side', async (page) => {
  const got = await page.evaluate(async () => {
    const sessions = await Promise.all([1, 2, 3].map(() => tw.InferenceSession.create('/examples/mlp.onnx')));
    const x = (batch) => new tw.Tensor(Float32Array.from({ length: batch * 4 }, (_, i) => Math.sin(i)), [batch, 4]);
    const alone = await sessions[0].run({ x: x(8) });
    const runs = [1, 8, 3, 8, 5, 2, 8].map((batch, i) => sessions[i % 3].run({ x: x(batch) }));
    const results = await Promise.all(runs);
    return results.every(({ probabilities }) => probabilities.data.every((v, i) => v === alone.probabilities.data[i]));
  });
  equal(got, true);
});

onPage('tensors stay on the GPU when asked to', async (page) => {
  const got = await page.evaluate(async () => {
    const session = await tw.InferenceSession.create('/examples/mlp.onnx', { preferredOutputLocation: 'gpu-buffer' });
    const values = Float32Array.from([1, 0, -1, 2]);
    const here = await session.run({ x: new tw.Tensor(values, [1, 4]) });
    const { device } = tw.env.webgpu;
    const buffer = device.createBuffer({ size: 16, usage: GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST });
    device.queue.writeBuffer(buffer, 0, values);
    const there = await session.run({ x: tw.Tensor.fromGpuBuffer(buffer, { dims: [1, 4] }) });
    const [a, b] = [await here.probabilities.getData(), await there.probabilities.getData()];
    const into = new tw.Tensor(new Float32Array(3), [1, 3]);
    const filled = await session.run({ x: new tw.Tensor(values, [1, 4]) }, { probabilities: into });
    const reshaped = here.probabilities.reshape([3]).dims;
    here.probabilities.dispose();
    return [a.join() === b.join(), filled.probabilities === into, into.data.join() === a.join(), reshaped, there.probabilities.location, here.probabilities.location];
  });
  equal(got, [true, true, true, [3], 'gpu-buffer', 'none']);
});

onPage('a run whose shapes depend on computed values goes in stages', async (page) => {
  const got = await page.evaluate(async () => {
    // exp of the positive elements of 2 x, twice over: what one stage computes, later ones read.
    const session = await tw.InferenceSession.create(model({
      inputs: [['x', ['n']]],
      constants: [['two', [], [2]], ['zero', [], [0]], ['limit', [], [4]]],
      nodes: [
        ['Mul', 'x two', 'double'], ['Greater', 'double zero', 'wanted'], ['Compress', 'double wanted', 'some', { axis: 0 }],
        ['Less', 'some limit', 'low'], ['Exp', 'some', 'all'], ['Compress', 'all low', 'y', { axis: 0 }],
      ],
      outputs: [['y', ['k']], ['all', ['m']]],
    }));
    let taken = 0; // copies into inputs' memory
    const { copyBufferToBuffer } = GPUCommandEncoder.prototype;
    GPUCommandEncoder.prototype.copyBufferToBuffer = function (...args) {
      if (args[2].label.endsWith('of kind 1')) taken += 1;
      return copyBufferToBuffer.apply(this, args);
    };
    const x = (...values) => ({ x: new tw.Tensor('float32', values, [values.length]) });
    const runs = [x(1, -1, 3, 0.5), x(-1, -1, -1, 1), x(-1, -1, -1, -1), x(1, 2), x(1, -1, 3, 0.5)];
    const results = [];
    for (const { y, all } of await Promise.all(runs.map((feeds) => session.run(feeds)))) results.push([...y.data, ...all.data].map((v) => Math.log(v).toFixed(3)));
    GPUCommandEncoder.prototype.copyBufferToBuffer = copyBufferToBuffer;
    const profile = await session.profile(runs[0]);
    const explained = await session.explain();
    const report = await session.tune({ budgetMs: 500, mostCandidates: 2 });
    const tuned = (await session.run(runs[0])).y.dims;
    return { results, taken: taken > 5, profiled: profile.length > 2, explained: explained.kernels.length > 0, tuned, kernels: report.kernels.length > 0 };
  });
  const first = ['2.000', '1.000', '2.000', '6.000', '1.000'];
  const results = [first, ['2.000', '2.000'], [], ['2.000', '2.000', '4.000'], first];
  equal(got, { results, taken: true, profiled: true, explained: true, tuned: [2], kernels: true });
});

onPage('a lost device is noticed and recovered from', async (page) => {
  const got = await page.evaluate(async () => {
    const x = new tw.Tensor(Float32Array.from([1, 0, -1, 2]), [1, 4]);
    const session = await tw.InferenceSession.create('/examples/mlp.onnx');
    const fixed = await tw.InferenceSession.create('/examples/mlp.onnx', { recover: false });
    const before = await session.run({ x });
    let events = 0;
    session.addEventListener('devicelost', () => { events += 1; });
    const told = session.lost.then((info) => info.reason);
    const { device } = tw.env.webgpu;
    const flying = session.run({ x }).then(() => 'ran', (error) => error.kind);
    device.destroy();
    const flew = await flying;
    await told;
    const after = await session.run({ x });
    const refused = await fixed.run({ x }).then(() => 'ran', (error) => error.kind);
    return [flew === 'ran' || flew === 'lost', await told, events, refused, after.probabilities.data.join() === before.probabilities.data.join()];
  });
  equal(got, [true, 'destroyed', 1, 'lost', true]);
});
