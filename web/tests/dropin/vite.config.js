// Twice: with `onnxruntime-web/webgpu` as it is, and with this package in its place.
import { fileURLToPath } from 'node:url';
const web = fileURLToPath(new URL('../..', import.meta.url));
const ours = process.env.VITE_ENGINE === 'tilewright';

export default {
  base: './',
  resolve: { alias: ours ? { 'onnxruntime-web/webgpu': `${web}/dist/index.js` } : {} },
  build: { outDir: fileURLToPath(new URL(`../../../target/web/dropin-${ours ? 'tilewright' : 'ort'}`, import.meta.url)), emptyOutDir: true, target: 'es2022' },
  logLevel: 'warn',
};
