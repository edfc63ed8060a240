// The kernels that tests/wgsl_valid.rs rendered for browsers, `KIND.DTYPES.HASH.wgsl` each.
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const folder = path.join(fileURLToPath(new URL('../..', import.meta.url)), 'target/web/wgsl');

/** `{ name, code }` of some texts of each kind of schedule and set of dtypes, or of all. */
export function texts(mostOfEach = Infinity) {
  const names = fs.existsSync(folder) ? fs.readdirSync(folder).sort() : [];
  const counts = new Map();
  const chosen = names.filter((name) => {
    const [kind, dtypes] = name.split('.');
    const count = (counts.get(`${kind}.${dtypes}`) ?? 0) + 1;
    counts.set(`${kind}.${dtypes}`, count);
    return count <= mostOfEach;
  });
  const kinds = new Set(names.map((name) => name.split('.')[0]));
  for (const kind of ['Map', 'Transpose', 'Reduce', 'Contract', 'Tiled', 'Subgroup', 'Cooperative', 'Gemv', 'Conv', 'Depthwise', 'Attention']) {
    if (!kinds.has(kind)) throw new Error(`no text of kind ${kind} in ${folder}: make test-web writes them`);
  }
  return chosen.map((name) => ({ name, code: fs.readFileSync(path.join(folder, name), 'utf8') }));
}

/** Whether a text wants the feature `shader-f16`. */
export const wantsF16 = ({ code }) => code.startsWith('enable f16;');

/** Whether a text wants Chromium's experimental feature for subgroup matrices. */
export const wantsMatrices = ({ code }) => code.includes('enable chromium_experimental_subgroup_matrix;');
