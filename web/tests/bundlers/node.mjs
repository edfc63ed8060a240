// Under Node: what the package does without a GPU, with Dawn's on SwiftShader, and what Dawn's compiler says of all kernels.
// usage: node node.mjs none | run | tint | matrices; the driver is the environment's.
import fs from 'node:fs';
import path from 'node:path';
import { env, importRecords, InferenceSession, Tensor } from 'tilewright';
import { model } from '../page/model.js';
import { refusals } from '../page/tint.js';
import { texts } from '../texts.mjs';
import { check, ids, root } from './sentence.mjs';

/** The device must be kept: Dawn ends with the object that `create` gives. */
const dawn = async (backend) => {
  const { create, globals } = await import('webgpu');
  Object.assign(globalThis, globals);
  return create([`backend=${backend}`, 'enable-dawn-features=allow_unsafe_apis']);
};

/** y = a * b in float16, from and to float32. The elements are such that only the last rounding, to float16, is inexact. */
const [M, N, K] = [72, 88, 104];
const product = () => model({
  inputs: [['a', [M, K]], ['b', [K, N]]], outputs: [['y', [M, N]]],
  nodes: [['Cast', 'a', 'a16', { to: 10 }], ['Cast', 'b', 'b16', { to: 10 }], ['MatMul', 'a16 b16', 'y16'], ['Cast', 'y16', 'y', { to: 1 }]],
});
const [a, b] = [M * K, K * N].map((count, which) => Float32Array.from({ length: count }, (_, i) => (((i * (7 + 4 * which)) % 31) - 15) / 8));

/** Runs the product in a session with these options: its schedules, and the largest error in units of float16's precision. */
const multiplied = async (options) => {
  const session = await InferenceSession.create(product(), options);
  const { y } = await session.run({ a: new Tensor('float32', a, [M, K]), b: new Tensor('float32', b, [K, N]) });
  let error = 0;
  y.data.forEach((got, i) => {
    let want = 0;
    for (let k = 0; k < K; k += 1) want += a[Math.floor(i / N) * K + k] * b[k * N + (i % N)];
    error = Math.max(error, Math.abs(got - want) / Math.max(Math.abs(want), 1) / 2 ** -11);
  });
  const schedules = (await session.explain()).kernels.map(({ schedule }) => schedule).join('; ');
  return { session, schedules, error };
};

const minilm = () => InferenceSession.create(fs.readFileSync(path.join(root, 'target/demo/minilm.onnx')));

const jobs = {
  none: async () => {
    const error = await minilm().then(() => new Error('a session without a GPU'), (error) => error);
    if (error.kind !== 'adapter' || !/no WebGPU: .*under Node give env.webgpu.gpu/.test(error.message)) throw error;
    return error.message;
  },
  run: async () => {
    env.webgpu.gpu = await dawn('vulkan');
    const session = await minilm();
    const tensor = (values) => new Tensor('int64', BigInt64Array.from(values, BigInt), [1, values.length]);
    const feeds = { input_ids: tensor(ids), attention_mask: tensor(ids.map(() => 1)), token_type_ids: tensor(ids.map(() => 0)) };
    const { sentence_embedding } = await session.run(feeds);
    const { description } = env.webgpu.device.adapterInfo;
    await session.release();
    return `${description}, ${check([...sentence_embedding.data])}`;
  },
  tint: async () => {
    const gpu = await dawn('null'); // it computes nothing, and has every feature
    const adapter = await gpu.requestAdapter();
    const device = await adapter.requestDevice({ requiredFeatures: ['shader-f16', 'subgroups', 'chromium-experimental-subgroup-matrix'] });
    const all = texts();
    const refused = [];
    for (let at = 0; at < all.length; at += 50) refused.push(...(await refusals(device, all.slice(at, at + 50))));
    if (refused.length) throw new Error(`${refused.length} of ${all.length} texts are refused\n${refused.slice(0, 20).join('\n')}`);
    return `${all.length} texts`;
  },
  // Candidates by subgroup matrices are recorded as winners, one after another, and their runs compared with float64.
  matrices: async () => {
    env.webgpu.gpu = await dawn('vulkan');
    const options = { experimental: { subgroupMatrices: true } };
    const { session } = await multiplied(options);
    const { records } = await session.tune({ budgetMs: 0, mostCandidates: 64 });
    const record = records.trim().split('\n').map((line) => JSON.parse(line)).find(({ trials }) => trials?.some(({ schedule }) => schedule.Cooperative));
    const candidates = record?.trials.flatMap(({ schedule }) => (schedule.Cooperative ? [schedule] : [])) ?? [];
    const chosen = candidates.filter((_, i) => i % Math.ceil(candidates.length / 4) === 0);
    if (chosen.length < 3) throw new Error(`${candidates.length} candidates by subgroup matrices`);
    for (const schedule of chosen) {
      const trials = record.trials.map((trial) => (trial.schedule === schedule ? { ...trial, status: 'Measured', samples_ns: [1] } : trial));
      await importRecords(JSON.stringify({ ...record, trials }));
      const { session, schedules, error } = await multiplied(options);
      if (!schedules.includes('matrix=') || error > 1) throw new Error(`${schedules}: error ${error}`);
      await session.release();
    }
    const { schedules, error } = await multiplied({});
    if (schedules.includes('matrix=') || error > 1) throw new Error(`without the option: ${schedules}: error ${error}`);
    return `${chosen.length} of ${candidates.length} candidates by subgroup matrices`;
  },
};

try {
  console.log(await jobs[process.argv[2]]());
  process.exit(0); // Dawn's threads would go on
} catch (error) {
  console.error(error);
  process.exit(1);
}
