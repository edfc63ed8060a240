// Makes benches/results/web.json of the rounds that run.mjs left, and of it the table in benches/README.md.
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parts, roundsFile } from './parts.mjs';

const benches = fileURLToPath(new URL('../../benches', import.meta.url));
/** Fewer rounds say nothing. */
const LEAST_ROUNDS = 5;

const lines = fs.readFileSync(roundsFile, 'utf8').trim().split('\n').map((line) => JSON.parse(line));
const settings = new Set(lines.map(({ setting }) => JSON.stringify(setting)));
if (settings.size > 1) throw new Error(`${roundsFile}: rounds of different settings, delete it and begin again\n${[...settings].join('\n')}`);

const median = (values) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)];
const rounded = (value) => Number(value.toPrecision(4));
const measured = Object.fromEntries(Object.entries(parts).map(([name, { engines, title, wanted }]) => {
  const rounds = lines.filter(({ part }) => part === name);
  if (rounds.length < LEAST_ROUNDS) throw new Error(`${name}: ${rounds.length} rounds, wanted at least ${LEAST_ROUNDS}`);
  const byEngine = Object.fromEntries(engines.map((engine) => {
    const of = (key) => rounds.map(({ times }) => times[engine][key]);
    const [ms, threadMs] = [of('ms').map(rounded), of('threadMs')];
    const thread = threadMs.every((value) => value !== undefined) && { thread_ms: rounded(median(threadMs)) };
    return [engine, { min_ms: Math.min(...ms), median_ms: median(ms), ...thread, largest_error: rounded(Math.max(...of('error'))), rounds_ms: ms }];
  }));
  return [name, { title, wanted, engines: byEngine }];
}));
const { setting, date } = lines.at(-1);
const result = { command: 'make bench-web', date, ...setting, parts: measured };
fs.mkdirSync(path.join(benches, 'results'), { recursive: true });
fs.writeFileSync(path.join(benches, 'results/web.json'), `${JSON.stringify(result, null, 1)}\n`);

const rows = Object.values(measured).flatMap(({ title, wanted, engines: { tilewright: ours, ...others } }) =>
  Object.entries({ tilewright: ours, ...others }).map(([engine, { min_ms, median_ms, thread_ms }]) => {
    const factor = engine === 'tilewright' ? '' : `${(min_ms / ours.min_ms).toFixed(1)} (wanted ${wanted})`;
    return `| ${engine === 'tilewright' ? title : ''} | ${engine} | ${Math.round(min_ms)} | ${Math.round(median_ms)} | ${factor} | ${thread_ms?.toFixed(1) ?? ''} |`;
  }));
const text = [
  '<!-- web -->', '| | | min, ms | median, ms | times Tilewright | page\'s thread, ms |', '|---|---|---|---|---|---|', ...rows, '',
  `${result.adapter}; ${result.browser}; ${result.cpu}; onnxruntime-web ${result['onnxruntime-web']} (WebGPU),`,
  `TensorFlow.js ${result['TensorFlow.js']} (WebGPU), Tilewright ${result.tilewright}, untuned; ${date.slice(0, 10)}.`, '<!-- /web -->',
].join('\n');
const readme = path.join(benches, 'README.md');
fs.writeFileSync(readme, fs.readFileSync(readme, 'utf8').replace(/<!-- web -->[^]*<!-- \/web -->/, () => text));
console.log(text);
