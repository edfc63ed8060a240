// A page of somebody's: the package by its name.
import { InferenceSession, Tensor } from 'tilewright';

window.embed = async (model, ids) => {
  const session = await InferenceSession.create(model);
  const tensor = (values) => new Tensor('int64', BigInt64Array.from(values, BigInt), [1, values.length]);
  const feeds = { input_ids: tensor(ids), attention_mask: tensor(ids.map(() => 1)), token_type_ids: tensor(ids.map(() => 0)) };
  const { sentence_embedding } = await session.run(feeds);
  return [...sentence_embedding.data];
};
