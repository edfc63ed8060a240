// Tensors that stay on the GPU: kernels read and write them where they lie, and a cache costs its new rows.
import { blank, equal, matches, test } from './browser.mjs';

/** In the page: counts copies between buffers and bytes of those there are, and makes tensors on the GPU. */
function watch() {
  const { copyBufferToBuffer } = GPUCommandEncoder.prototype;
  const { createBuffer } = GPUDevice.prototype;
  const { destroy } = GPUBuffer.prototype;
  const alive = new Set();
  window.counted = { copies: 0, largest: 0 };
  window.held = () => [...alive].reduce((sum, { size }) => sum + size, 0);
  GPUCommandEncoder.prototype.copyBufferToBuffer = function (from, at, to, ...rest) {
    if ((to.usage & GPUBufferUsage.MAP_READ) === 0) counted.copies += 1;
    return copyBufferToBuffer.call(this, from, at, to, ...rest);
  };
  GPUDevice.prototype.createBuffer = function (descriptor) {
    if ((descriptor.usage & GPUBufferUsage.STORAGE) !== 0) counted.largest = Math.max(counted.largest, descriptor.size);
    const buffer = createBuffer.call(this, descriptor);
    alive.add(buffer);
    return buffer;
  };
  GPUBuffer.prototype.destroy = function () {
    alive.delete(this);
    destroy.call(this);
  };
  /** What `work` gives, and what it cost. */
  window.counting = async (work) => {
    Object.assign(counted, { copies: 0, largest: 0 });
    return { result: await work(), ...counted };
  };
  window.upload = ({ data, dims }, usage = 0x80) => {
    const { device } = tw.env.webgpu;
    const size = Math.max(16, Math.ceil(data.byteLength / 16) * 16);
    const buffer = device.createBuffer({ size, usage: usage | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST });
    device.queue.writeBuffer(buffer, 0, data);
    return tw.Tensor.fromGpuBuffer(buffer, { dims, download: () => download(buffer, data.byteLength) });
  };
  window.download = async (buffer, size) => {
    const { device } = tw.env.webgpu;
    const mappable = device.createBuffer({ size, usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST });
    const encoder = device.createCommandEncoder();
    encoder.copyBufferToBuffer(buffer, 0, mappable, 0, size);
    device.queue.submit([encoder.finish()]);
    await mappable.mapAsync(GPUMapMode.READ);
    return new Float32Array(mappable.getMappedRange().slice());
  };
  window.floats = (...values) => new tw.Tensor('float32', values, [values.length]);
  window.onGpu = { preferredOutputLocation: 'gpu-buffer' };
}

const onPage = (name, run) => test(name, async (context) => {
  const page = await blank(context.browser, context.base);
  try {
    await page.evaluate(watch);
    return await run(page, context);
  } finally {
    await page.close();
  }
});

// ONNX Runtime's decoder with one buffer for past and present (`tools/decode_cache.py`): what no step writes stays, so that it
// is known that nothing else is written.
onPage('a cache on the GPU is updated in place', async (page) => {
  const got = await page.evaluate(async () => {
    const read = (name) => files.npy(`/data/decode_cache/${name}.npy`);
    const session = await tw.InferenceSession.create('/data/decode_cache/model.onnx');
    const key = upload(await read('first_key'));
    const value = upload(await read('first_value'));
    const worst = { y: 0, key: 0, value: 0 };
    const compare = (name, got, want, to = want.length) => {
      for (let i = 0; i < to; i++) worst[name] = Math.max(worst[name], Math.abs(got[i] - want[i]));
    };
    const costs = [];
    for (let step = 0; step < 25; step++) {
      const feeds = { past_key: key, past_value: value };
      for (const name of ['query', 'key', 'value', 'mask', 'lengths']) feeds[name] = await read(`${step}_${name}`);
      const { result, copies, largest } = await counting(() => session.run(feeds, { y: null, present_key: key, present_value: value }));
      if (result.present_key !== key) throw new Error('the tensor given is not the one that comes back');
      costs.push([copies, largest, held()]);
      // Of a prompt's outputs, those behind a sequence's own length mean nothing.
      const [{ data: y }, want] = [result.y, (await read(`${step}_y`)).data];
      const row = y.length / 2;
      feeds.lengths.data.forEach((last, i) => compare('y', y.subarray(i * row), want.subarray(i * row), Math.min(row, (last + 1) * 64)));
    }
    compare('key', await key.getData(), (await read('cache_key')).data);
    compare('value', await value.getData(), (await read('cache_value')).data);
    const [[, , early], [, , late]] = [costs[8], costs.at(-1)];
    return { worst, copies: costs.map(([copies]) => copies), largest: costs.slice(2).map(([, largest]) => largest), grown: late - early };
  });
  const { y, key, value } = got.worst;
  if (!(Math.max(y, key, value) < 1e-5)) throw new Error(`differs from ONNX Runtime's: ${JSON.stringify(got.worst)}`);
  equal(Math.max(...got.copies), 0, 'copies:');
  // The mask grows; a cache has 16 KiB.
  if (Math.max(...got.largest) > 1024) throw new Error(`a step makes a buffer of ${Math.max(...got.largest)} bytes`);
  if (got.grown > 2048) throw new Error(`after 16 more steps, ${got.grown} bytes more are held`);
  return `25 steps, worst difference ${Math.max(y, key, value).toExponential(1)}, ${got.grown} bytes more held after 16 of them`;
});

onPage('a cache that grows is read and written without copies', async (page) => {
  const got = await page.evaluate(async () => {
    const session = await tw.InferenceSession.create(model({
      inputs: [['past', ['n']], ['x', ['m']]],
      nodes: [['Concat', 'past x', 'present', { axis: 0 }], ['ReduceSum', 'present', 'sum', { keepdims: 1 }]],
      outputs: [['present', ['k']], ['sum', [1]]],
    }), { preferredOutputLocation: { present: 'gpu-buffer' } });
    let past = new tw.Tensor('float32', [], [0]);
    const { result, copies } = await counting(async () => {
      const sums = [];
      for (let step = 1; step <= 6; step++) {
        const { present, sum } = await session.run({ past, x: floats(step, 0.5) });
        past.dispose();
        past = present;
        sums.push(sum.data[0]);
      }
      return sums;
    });
    return { sums: result, copies, dims: past.dims, last: [...(await past.getData())] };
  });
  equal(got, { sums: [1.5, 4, 7.5, 12, 17.5, 24], copies: 0, dims: [12], last: [1, 0.5, 2, 0.5, 3, 0.5, 4, 0.5, 5, 0.5, 6, 0.5] });
});

onPage('a buffer may be anything that a run reads and writes', async (page) => {
  const got = await page.evaluate(async () => {
    // `same` is the input itself, `half` is constant, `twice` and `again` are one tensor.
    const session = await tw.InferenceSession.create(model({
      inputs: [['a', ['n']], ['b', ['n']]],
      constants: [['half', [1], [0.5]]],
      nodes: [['Sub', 'a b', 'less'], ['Identity', 'a', 'same'], ['Add', 'a a', 'twice'], ['Identity', 'twice', 'again']],
      outputs: [['less', ['n']], ['same', ['n']], ['half', [1]], ['twice', ['n']], ['again', ['n']]],
    }), onGpu);
    const [p, q] = [floats(5, 7, 9), floats(1, 2, 4)];
    const small = (x) => upload(x, 0); // which kernels cannot bind
    const cases = {
      'all stay': () => [upload(p), upload(q)],
      'one buffer twice': (a = upload(p)) => [a, a, { less: null }],
      'over an input': (a = upload(p)) => [a, upload(q), { less: a }],
      'over the other': (b = upload(q)) => [upload(p), b, { less: b, twice: null }],
      'over both': (a = upload(p)) => [a, a, { twice: a }],
      'each over the other': (a = upload(p), b = upload(q)) => [a, b, { less: b, twice: a }],
      'an input over itself': (a = upload(p)) => [a, upload(q), { same: a }],
      'an input over the other': (b = upload(q)) => [upload(p), b, { same: b, less: null }],
      'one tensor twice': (a = upload(p)) => [a, q, { again: a, twice: upload(q) }],
      'a constant into a buffer': () => [p, q, { half: upload(floats(0)), less: upload(q) }],
      'from memory, into a buffer': () => [p, q, { twice: upload(q), again: null }],
      'buffers that are not for storage': () => [small(p), upload(q), { less: small(q), same: small(q) }],
    };
    const results = {};
    for (const [name, make] of Object.entries(cases)) {
      const [a, b, fetches] = make();
      const { result, copies } = await counting(() => session.run({ a, b }, fetches));
      const values = await Promise.all(Object.entries(result).map(async ([name, tensor]) => [name, ...(await tensor.getData()).slice(0, 3)].join(' ')));
      results[name] = [values.join(', '), copies];
    }
    return results;
  });
  const [less, same, twice] = ['less 4 5 5', 'same 5 7 9', 'twice 10 14 18'];
  equal(got, {
    'all stay': [`${less}, ${same}, half 0.5, ${twice}, again 10 14 18`, 2], // the input, and a tensor under its other name
    'one buffer twice': ['less 0 0 0', 0],
    'over an input': [less, 1],
    'over the other': [`${less}, ${twice}`, 1],
    'over both': [twice, 1],
    'each over the other': [`${less}, ${twice}`, 2],
    'an input over itself': [same, 0],
    'an input over the other': [`${same}, ${less}`, 1],
    'one tensor twice': [`again 10 14 18, ${twice}`, 1],
    'a constant into a buffer': ['half 0.5, ' + less, 0],
    'from memory, into a buffer': [`${twice}, again 10 14 18`, 1],
    'buffers that are not for storage': [`${less}, ${same}`, 3],
  });
});

onPage('stages, tuning and profiles leave tensors on the GPU alone', async (page) => {
  const got = await page.evaluate(async () => {
    // The positive elements of 2 x: how many there are is read back.
    const session = await tw.InferenceSession.create(model({
      inputs: [['x', ['n']]],
      constants: [['two', [], [2]], ['zero', [], [0]]],
      nodes: [['Mul', 'x two', 'double'], ['Greater', 'double zero', 'wanted'], ['Compress', 'double wanted', 'y', { axis: 0 }]],
      outputs: [['y', ['k']]],
    }), onGpu);
    const x = upload(floats(1, -1, 3, 0.5, -2));
    const y = async () => [...(await (await session.run({ x })).y.getData())].join();
    const before = await y();
    const { kernels } = await session.tune({ budgetMs: 300, mostCandidates: 2 });
    const profile = await session.profile({ x });
    return [before, await y(), [...(await x.getData())].join(), kernels.length > 0, profile.length > 0];
  });
  equal(got, ['2,6,1', '2,6,1', '1,-1,3,0.5,-2', true, true]);
});

onPage('what does not fit a buffer is refused', async (page) => {
  const got = await page.evaluate(async () => {
    const refused = (promise) => promise.then(() => 'nothing', ({ kind, message }) => `${kind}: ${message}`);
    const session = await tw.InferenceSession.create('/examples/mlp.onnx');
    const buffer = tw.env.webgpu.device.createBuffer({ size: 8, usage: GPUBufferUsage.STORAGE });
    const over = (dims) => tw.Tensor.fromGpuBuffer(buffer, { dims });
    const x = new tw.Tensor('float32', [1, 0, -1, 2], [1, 4]);
    const there = await tw.createWorkerSession('/examples/mlp.onnx');
    const all = [
      session.run({ x: over([1, 4]) }), session.run({ x }, { probabilities: over([1, 3]) }), session.run({ x }, { probabilities: over([1, 2]) }),
      there.run({ x: over([1, 4]) }), there.run({ x }, { probabilities: over([1, 3]) }),
    ];
    return Promise.all(all.map(refused));
  });
  matches(got[0], /input: input "x": its buffer has 8 bytes, float32 of shape \[1, 4\] wants 16/);
  matches(got[1], /input: output "probabilities": its buffer has 8 bytes, float32 of shape \[1, 3\] wants 12/);
  matches(got[2], /tensor: output "probabilities": is float32 \[1, 3\], the tensor given for it float32 \[1, 2\]/);
  matches(got[3], /unsupported: tensors on the GPU, of a session in a worker/);
  matches(got[4], /unsupported: tensors to fill, of a session in a worker/);
});
