// The engines that are compared, under one interface: `open(model)` gives a function from inputs to outputs, in memory.
// A tensor here is `{ type, dims, data }`.

/** Of a library with the interface of onnxruntime-common. */
const common = ({ InferenceSession, Tensor }, options) => async (model) => {
  const session = await InferenceSession.create(model, options);
  return async (inputs) => {
    const names = session.inputNames;
    const feeds = Object.fromEntries(names.map((name) => [name, new Tensor(inputs[name].type, inputs[name].data, inputs[name].dims)]));
    const outputs = await session.run(feeds);
    return Object.fromEntries(Object.entries(outputs).map(([name, { dims, data }]) => [name, { dims, data }]));
  };
};

const script = (src) => new Promise((loaded, failed) => {
  document.head.append(Object.assign(document.createElement('script'), { src, onload: loaded, onerror: () => failed(new Error(`no ${src}`)) }));
});

const CACHE = 'bench';

/** As transformers.js does it: the file from the Cache API. */
async function cached(url) {
  const cache = await caches.open(CACHE);
  if ((await cache.match(url)) === undefined) await cache.put(url, await fetch(url));
  return new Uint8Array(await (await cache.match(url)).arrayBuffer());
}

export const engines = {
  async tilewright() {
    const library = await import('/dist/index.js');
    return common(library, { cacheModel: true });
  },

  async 'onnxruntime-web'() {
    const library = await import('/npm/onnxruntime-web/dist/ort.webgpu.min.mjs');
    library.env.wasm.wasmPaths = '/npm/onnxruntime-web/dist/';
    const open = common(library, { executionProviders: ['webgpu'] });
    return async (model) => open(typeof model === 'string' ? await cached(model) : model);
  },

  /** Has no ONNX: computes `c = a b`, whatever the model. */
  async 'TensorFlow.js'() {
    for (const part of ['tfjs-core/dist/tf-core', 'tfjs-backend-cpu/dist/tf-backend-cpu', 'tfjs-backend-webgpu/dist/tf-backend-webgpu']) {
      await script(`/npm/@tensorflow/${part}.min.js`);
    }
    const { tf } = globalThis;
    await tf.setBackend('webgpu');
    await tf.ready();
    if (tf.getBackend() !== 'webgpu') throw new Error(`TensorFlow.js runs on ${tf.getBackend()}`);
    return async () => async ({ a, b }) => {
      const [left, right] = [a, b].map(({ data, dims }) => tf.tensor2d(data, dims));
      const product = tf.matMul(left, right);
      const c = { dims: product.shape, data: await product.data() };
      tf.dispose([left, right, product]);
      return { c };
    };
  },
};
