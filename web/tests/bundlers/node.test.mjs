// Programs under Node, each a process of its own: Dawn's device is the process's.
import { execFile } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { promisify } from 'node:util';
import { test } from '../browser.mjs';
import { root } from './sentence.mjs';

const SWIFTSHADER = '/usr/lib/chromium/vk_swiftshader_icd.json';

const program = async (job, driver = {}) => {
  const env = { ...process.env, ...driver };
  const { stdout } = await promisify(execFile)('node', [path.join(root, 'web/tests/bundlers/node.mjs'), job], { env, timeout: 300_000 });
  return stdout.trim();
};

test('under Node without a GPU, the package loads and a session says what is missing', () => program('none'));
test('under Node with Dawn, a model runs', () =>
  program('run', fs.existsSync(SWIFTSHADER) ? { VK_DRIVER_FILES: SWIFTSHADER, VK_ICD_FILENAMES: SWIFTSHADER } : {}));
test('Dawn takes every kernel of the corpus, those with f16 too', () => program('tint'));
