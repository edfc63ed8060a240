// Over many runs no memory grows: of the GPU, of the page, and of the worker where the core is.
import { blank, equal, test } from './browser.mjs';

/** Runs over which nothing may grow: untuned, and tuned. With ALL=1, minutes of them. */
const [UNTUNED, TUNED] = process.env.ALL === '1' ? [500, 500] : [100, 40];

/** Garbage collection leaves this much or that. */
const HEAP_BYTES = 300_000;

/** Sends a command to the page's thread, or to its one worker. */
async function threads(page) {
  const client = await page.context().newCDPSession(page);
  const workers = [];
  client.on('Target.attachedToTarget', ({ sessionId, targetInfo }) => { if (targetInfo.type === 'worker') workers.push(sessionId); });
  await client.send('Target.setAutoAttach', { autoAttach: true, waitForDebuggerOnStart: false, flatten: false });
  equal(workers.length, 1, 'workers:');
  const waiting = new Map();
  client.on('Target.receivedMessageFromTarget', ({ message }) => {
    const { id, result, error } = JSON.parse(message);
    const { answer, fail } = waiting.get(id) ?? {};
    waiting.delete(id);
    if (error) fail?.(new Error(error.message));
    else answer?.(result);
  });
  let last = 0;
  const toWorker = (method, params = {}) => new Promise((answer, fail) => {
    waiting.set(++last, { answer, fail });
    const message = JSON.stringify({ id: last, method, params });
    client.send('Target.sendMessageToTarget', { sessionId: workers[0], message }).catch(fail);
  });
  return { page: (method, params) => client.send(method, params), worker: toWorker };
}

/** Bytes of JavaScript's heap and of WASM's memories on a thread. */
async function held(send) {
  await send('HeapProfiler.collectGarbage');
  const { usedSize } = await send('Runtime.getHeapUsage');
  const evaluated = (expression) => send('Runtime.evaluate', { expression }).then(({ result }) => result.objectId);
  const { objects } = await send('Runtime.queryObjects', { prototypeObjectId: await evaluated('WebAssembly.Memory.prototype') });
  const functionDeclaration = 'function () { return this.reduce((sum, { buffer }) => sum + buffer.byteLength, 0); }';
  const { result } = await send('Runtime.callFunctionOn', { objectId: objects.objectId, functionDeclaration, returnByValue: true });
  await send('Runtime.releaseObject', { objectId: objects.objectId });
  return { heap: usedSize, wasm: result.value };
}

/** In the page: counts buffers, and runs shapes in turn, more of them than recorded commands are kept. */
function watch() {
  const labels = new Map(); // of the buffers that are not destroyed, with their sizes
  const { createBuffer } = GPUDevice.prototype;
  const { destroy } = GPUBuffer.prototype;
  let made = 0;
  GPUDevice.prototype.createBuffer = function (descriptor) {
    const buffer = createBuffer.call(this, descriptor);
    buffer.number = made++;
    labels.set(buffer.number, `${buffer.label}, ${buffer.size} bytes`);
    return buffer;
  };
  GPUBuffer.prototype.destroy = function () {
    labels.delete(this.number);
    destroy.call(this);
  };
  window.buffers = () => [...labels.values()].sort();
  window.open = async (options) => { window.session = await tw.InferenceSession.create('/minilm/minilm.onnx', options); };
  window.runs = async (count) => {
    for (let i = 0; i < count; i++) {
      const length = 1 + (i % 20);
      const ids = (value) => new tw.Tensor('int64', new BigInt64Array(length).fill(value), [1, length]);
      const feeds = { input_ids: ids(7n), attention_mask: ids(1n), token_type_ids: ids(0n) };
      await session.run(feeds, ['sentence_embedding']);
    }
    return buffers();
  };
}

/** Runs on, `count` times; throws where something has grown. */
async function steady(page, send, count) {
  const state = async (count) => ({
    buffers: await page.evaluate((count) => runs(count), count), page: await held(send.page), worker: await held(send.worker),
  });
  const before = await state(40);
  const after = await state(count);
  equal(after.buffers, before.buffers, 'buffers:');
  const notes = ['page', 'worker'].map((thread) => {
    const [from, to] = [before[thread], after[thread]];
    equal(to.wasm, from.wasm, `bytes of WASM in the ${thread}:`);
    const grown = to.heap - from.heap;
    if (grown > HEAP_BYTES) throw new Error(`the ${thread}'s heap has grown by ${grown} bytes`);
    return `${thread}: heap ${to.heap} bytes (${grown < 0 ? '' : '+'}${grown}), WASM ${to.wasm}`;
  });
  return { buffers: after.buffers, note: `${after.buffers.length} buffers; ${notes.join('; ')}` };
}

test(`over ${UNTUNED} runs, and ${TUNED} tuned in the background, no memory grows`, async ({ browser, base }) => {
  const context = await browser.newContext();
  const page = await blank(context, base);
  await page.evaluate(watch);
  const opened = async (options) => page.evaluate((options) => open(options), options);
  const released = async () => equal(await page.evaluate(async () => { await session.release(); return buffers(); }), [], 'buffers after a release:');
  await opened({});
  const send = await threads(page);
  const untuned = await steady(page, send, UNTUNED);
  await released();
  await opened({ tuning: 'background', tuningBudgetMs: 3000 });
  await page.evaluate(async () => {
    do await runs(1); while ((await tw.exportRecords()) === '');
  });
  const tuned = await steady(page, send, TUNED);
  // Candidates may have wanted more memory for intermediate results, and winners may; nothing else of them is left.
  const others = ({ buffers }) => buffers.filter((label) => !label.startsWith('memory '));
  equal(others(tuned), others(untuned), 'buffers beside intermediate results, tuned:');
  await released();
  await context.close();
  return `${untuned.note}; tuned: ${tuned.note}`;
});
