// Builds dist/: the WASM core, the package as ES modules, and its declarations. Prints sizes and fails above the
// bound. `node build.mjs` from anywhere; `make web` installs what it needs first.
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { gzipSync } from 'node:zlib';
import { fileURLToPath } from 'node:url';

/** WASM and JavaScript together, compressed with gzip. */
const MOST_BYTES = 700_000;

const here = fileURLToPath(new URL('.', import.meta.url));
const root = path.dirname(here);
const dist = path.join(here, 'dist');
const locked = process.env.CI ? ['--locked'] : [];
const run = (program, args, cwd = root, env = {}) =>
  execFileSync(program, args, { cwd, stdio: ['ignore', 'inherit', 'inherit'], env: { ...process.env, ...env } });
const bin = (name) => path.join(here, 'node_modules/.bin', name);

const target = 'wasm32-unknown-unknown';
run('cargo', ['rustc', ...locked, '--quiet', '--profile', 'web', '--lib', '--crate-type', 'cdylib', '--target', target]);
run('cargo', ['build', ...locked, '--quiet', '--manifest-path', 'tools/bindgen/Cargo.toml', '--target-dir', 'target/bindgen']);
fs.rmSync(dist, { recursive: true, force: true });
fs.mkdirSync(path.join(dist, 'core'), { recursive: true });
run('target/bindgen/debug/tilewright-bindgen', [`target/${target}/web/tilewright.wasm`, path.join(dist, 'core')]);
const features = ['--enable-bulk-memory', '--enable-nontrapping-float-to-int', '--enable-sign-ext', '--enable-mutable-globals',
  '--enable-reference-types', '--enable-multivalue'];
run(bin('wasm-opt'), ['-Oz', ...features, path.join(dist, 'core/core_bg.wasm'), '-o', path.join(dist, 'core.wasm')]);
fs.rmSync(path.join(dist, 'core/core_bg.wasm'));

const entries = ['index', 'worker'].filter((name) => fs.existsSync(path.join(here, `src/${name}.ts`)));
run(bin('esbuild'), [...entries.map((name) => `src/${name}.ts`), '--bundle', '--splitting', '--chunk-names=shared', '--format=esm',
  '--target=es2022', '--minify', '--sourcemap', '--log-level=warning', '--outdir=dist'], here);
run(bin('tsc'), [], here);
fs.writeFileSync(path.join(dist, 'index.d.ts'), "export * from './types/index.js';\n");

// What both entries use is in a module of its own.
const sizes = ['core.wasm', 'shared.js', ...entries.map((name) => `${name}.js`)].map((name) => {
  const bytes = fs.readFileSync(path.join(dist, name));
  return { name, bytes: bytes.length, gzip: gzipSync(bytes, { level: 9 }).length };
});
for (const { name, bytes, gzip } of sizes) console.log(`${name.padEnd(10)} ${String(bytes).padStart(8)} bytes ${String(gzip).padStart(7)} gzip`);
const counted = sizes.reduce((sum, { gzip }) => sum + gzip, 0);
console.log(`together: ${counted} bytes gzip, at most ${MOST_BYTES}`);
if (counted > MOST_BYTES) process.exit(1);
