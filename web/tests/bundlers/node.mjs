// Under Node: what the package does without a GPU, with Dawn's on SwiftShader, and what Dawn's compiler says of all kernels.
// usage: node node.mjs none | run | tint; the driver is the environment's.
import fs from 'node:fs';
import path from 'node:path';
import { env, InferenceSession, Tensor } from 'tilewright';
import { refusals } from '../page/tint.js';
import { texts } from '../texts.mjs';
import { check, ids, root } from './sentence.mjs';

/** The device must be kept: Dawn ends with the object that `create` gives. */
const dawn = async (backend) => {
  const { create, globals } = await import('webgpu');
  Object.assign(globalThis, globals);
  return create([`backend=${backend}`]);
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
    const device = await adapter.requestDevice({ requiredFeatures: ['shader-f16', 'subgroups'] });
    const all = texts();
    const refused = [];
    for (let at = 0; at < all.length; at += 50) refused.push(...(await refusals(device, all.slice(at, at + 50))));
    if (refused.length) throw new Error(`${refused.length} of ${all.length} texts are refused\n${refused.slice(0, 20).join('\n')}`);
    return `${all.length} texts`;
  },
};

try {
  console.log(await jobs[process.argv[2]]());
  process.exit(0); // Dawn's threads would go on
} catch (error) {
  console.error(error);
  process.exit(1);
}
