// The other side of `worker-session.ts`: one session; or of `core-thread.ts`: cores.
import { initSync } from '../dist/core/core.js';
import type { CoreAnswer, CoreMessage, CoreModule } from './core-thread.js';
import { callHere } from './cores.js';
import { env } from './env.js';
import { messageOf, TilewrightError } from './error.js';
import { InferenceSession } from './session.js';
import { Tensor } from './tensor.js';
import type { Answer, Call, Made, Sent } from './worker-session.js';

let session: InferenceSession | undefined;

async function answer(call: Call, tell: (progress: unknown) => void): Promise<unknown> {
  if (call.method === 'create') {
    const { wasm, webgpu, ...rest } = call.env as typeof env;
    Object.assign(env, rest);
    Object.assign(env.wasm, wasm);
    Object.assign(env.webgpu, webgpu);
    session = await InferenceSession.create(call.model, { ...call.options, onProgress: tell });
    const { inputMetadata, outputMetadata } = session;
    return { inputMetadata, outputMetadata } satisfies Made;
  }
  if (session === undefined) throw new TilewrightError('released', 'the session was released');
  if (call.method === 'release') return session.release();
  const feeds = Object.fromEntries(
    Object.entries(call.feeds).map(([name, { type, data, dims }]) => [name, new Tensor(type, data, dims)]),
  );
  const outputs = await (call.fetches === undefined ? session.run(feeds) : session.run(feeds, call.fetches));
  return Object.fromEntries(
    Object.entries(outputs).map(([name, { type, dims, data }]) => [name, { type, dims, data } satisfies Sent]),
  );
}

self.onmessage = ({ data }: MessageEvent<CoreModule | CoreMessage | (Call & { id: number })>) => {
  if ('module' in data) {
    initSync(data);
    self.postMessage({ ready: true });
  } else if ('coreCall' in data) {
    callCore(data);
  } else {
    void callSession(data);
  }
};

function callCore({ id, coreCall }: CoreMessage): void {
  const post = (message: CoreAnswer) => self.postMessage(message);
  try {
    post({ id, result: callHere(coreCall) });
  } catch (thrown) {
    post({ id, thrown: typeof thrown === 'string' ? thrown : messageOf(thrown) });
  }
}

async function callSession({ id, ...call }: Call & { id: number }): Promise<void> {
  const post = (message: Answer) => self.postMessage(message);
  try {
    post({ id, result: await answer(call as Call, (progress) => post({ id, progress })) });
  } catch (error) {
    post({ id, error: { kind: error instanceof TilewrightError ? error.kind : 'internal', message: messageOf(error) } });
  }
}
