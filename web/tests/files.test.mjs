// Where weights come from: files beside the model, files given, the cache; and what is said when they do not fit.
import { blank, equal, matches, test } from './browser.mjs';

const onPage = (name, run) => test(name, async (context) => {
  const page = await blank(context.browser, context.base);
  try {
    return await run(page, context);
  } finally {
    await page.close();
  }
});

// y = x W, whose W of 300 x 300 is in a file of its own: large enough that the core never sees it.
const SIZE = 300;
const external = `
  const values = Float32Array.from({ length: ${SIZE * SIZE} }, (_, i) => (i % ${SIZE} === Math.floor(i / ${SIZE}) ? 3 : 0));
  const bytes = model({
    inputs: [['x', [1, ${SIZE}]]], outputs: [['y', [1, ${SIZE}]]],
    constants: [['w', [${SIZE}, ${SIZE}], { location: 'weights.bin', offset: 64, length: ${4 * SIZE * SIZE} }]],
    nodes: [['MatMul', 'x w', 'y']],
  });
  const weights = new Blob([new Uint8Array(64), values]);
  const x = new tw.Tensor('float32', Float32Array.from({ length: ${SIZE} }, (_, i) => i), [1, ${SIZE}]);
  const tripled = async (session) => (await session.run({ x })).y.data.every((v, i) => v === 3 * i);
  const refused = (...args) => tw.InferenceSession.create(...args).then(() => 'nothing', ({ kind, message }) => kind + ': ' + message);
`;
const inPage = (page, body) => page.evaluate((body) => new (Object.getPrototypeOf(async () => {}).constructor)(body)(), external + body);

onPage('external data is found beside the URL, or as given', async (page, { base }) => {
  await inPage(page, 'Object.assign(window, { bytes, weights });');
  const [model, weights] = await page.evaluate(async () => [[...bytes], [...new Uint8Array(await weights.arrayBuffer())]]);
  const fulfil = (body) => (route) => route.fulfill({ body: Buffer.from(body), contentType: 'application/octet-stream' });
  await page.route(`${base}/made/model.onnx`, fulfil(model));
  await page.route(`${base}/made/weights.bin`, fulfil(weights));
  const got = await inPage(page, `
    const found = [await tw.InferenceSession.create('/made/model.onnx')];
    for (const data of [weights, await weights.arrayBuffer(), '/made/weights.bin']) {
      found.push(await tw.InferenceSession.create(bytes, { externalData: [{ path: './weights.bin', data }] }));
    }
    const right = await Promise.all(found.map(tripled));
    const short = { path: 'weights.bin', data: weights.slice(0, 1000) };
    return [right, await refused(bytes), await refused(bytes, { externalData: [short] })];`);
  equal(got[0], [true, true, true, true]);
  matches(got[1], /model: external data in "weights\.bin": not among externalData/);
  matches(got[2], /model: .*w: data in weights\.bin: wants 360000 bytes from byte 64 on, got a file of 1000 bytes/);
});

onPage('a cached model is fetched again only when it has changed', async (page, { base }) => {
  await inPage(page, 'Object.assign(window, { bytes, weights });');
  const [model, weights] = await page.evaluate(async () => [[...bytes], [...new Uint8Array(await weights.arrayBuffer())]]);
  const requests = [];
  const etags = { 'model.onnx': '"1"', 'weights.bin': '"1"' };
  await page.route(`${base}/made/*`, (route) => {
    const name = new URL(route.request().url()).pathname.split('/').at(-1);
    requests.push(`${route.request().method()} ${name}`);
    const body = route.request().method() === 'HEAD' ? '' : Buffer.from(name === 'model.onnx' ? model : weights);
    return route.fulfill({ body, headers: { etag: etags[name], 'content-type': 'application/octet-stream' } });
  });
  const load = async () => {
    requests.length = 0;
    const right = await inPage(page, "return tripled(await tw.InferenceSession.create('/made/model.onnx', { cacheModel: true }));");
    if (!right) throw new Error('the outputs are wrong');
    return [...new Set(requests)].sort();
  };
  const first = await load();
  const second = await load();
  etags['weights.bin'] = '"2"';
  const third = await load();
  await page.route(`${base}/made/*`, (route) => route.abort());
  equal(first, ['GET model.onnx', 'GET weights.bin'], 'first load:');
  equal(second, ['HEAD model.onnx', 'HEAD weights.bin'], 'second load:');
  equal(third, ['GET weights.bin', 'HEAD model.onnx', 'HEAD weights.bin'], 'after a change:');
  equal(await load(), [], 'offline:');
});

onPage('after the loss of a device, weights come from their file again', async (page) => {
  const got = await inPage(page, `
    const session = await tw.InferenceSession.create(bytes, { externalData: [{ path: 'weights.bin', data: weights }] });
    const before = await tripled(session);
    const lost = session.lost;
    tw.env.webgpu.device.destroy();
    await lost;
    return [before, await tripled(session)];`);
  equal(got, [true, true]);
});

onPage('errors of the device name what they are about', async (page) => {
  const got = await inPage(page, `
    const said = async (change, restore) => {
      change();
      try {
        const session = await tw.InferenceSession.create(bytes, { externalData: [{ path: 'weights.bin', data: weights }] });
        await session.run({ x });
        return 'nothing';
      } catch ({ kind, message }) {
        return kind + ': ' + message;
      } finally {
        restore();
      }
    };
    const { createBuffer, createShaderModule, pushErrorScope, popErrorScope } = GPUDevice.prototype;
    const memory = await said(() => {
      // A device that is full says so of weights, in the scope for it.
      const scopes = [];
      let full = false;
      GPUDevice.prototype.createBuffer = function (descriptor) {
        full ||= descriptor.label === 'weights';
        return createBuffer.call(this, descriptor);
      };
      GPUDevice.prototype.pushErrorScope = function (filter) {
        scopes.push(filter);
        return pushErrorScope.call(this, filter);
      };
      GPUDevice.prototype.popErrorScope = function () {
        const reports = scopes.pop() === 'out-of-memory' && full;
        if (reports) full = false;
        const popped = popErrorScope.call(this);
        return reports ? popped.then(() => new GPUOutOfMemoryError('full')) : popped;
      };
    }, () => { Object.assign(GPUDevice.prototype, { createBuffer, pushErrorScope, popErrorScope }); });
    const validation = await said(() => {
      GPUDevice.prototype.createShaderModule = function ({ label, code }) {
        return createShaderModule.call(this, { label, code: code.replace('fn main(', 'fn main(nothing: i32, ') });
      };
    }, () => { GPUDevice.prototype.createShaderModule = createShaderModule; });
    return [memory, validation];`);
  matches(got[0], /^memory: out of device memory: .*weights of \d+ bytes.*: full$/);
  matches(got[1], /^device: device error in kernel ".+": .+/);
});
