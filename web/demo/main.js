import { createWorkerSession, env, InferenceSession, Tensor, TilewrightError } from '/dist/index.js';
import { draw as drawRoofline, percent, share } from './roofline.js';
import { WordPiece } from './wordpiece.js';

const $ = (id) => document.getElementById(id);
const element = (tag, text, attributes = {}) => Object.assign(document.createElement(tag), { textContent: text, ...attributes });
const ms = (ns) => (ns < 1e6 ? `${Math.round(ns / 1e3)} µs` : `${(ns / 1e6).toFixed(ns < 1e7 ? 2 : 1)} ms`);
const bytes = (n) => {
  const [unit, size] = [['GiB', 2 ** 30], ['MiB', 2 ** 20], ['KiB', 2 ** 10]].find(([, size]) => n >= size) ?? ['bytes', 1];
  return `${Number((n / size).toPrecision(3))} ${unit}`;
};

function show(error) {
  $('error').textContent = error instanceof TilewrightError || error instanceof Error ? error.message : String(error);
  $('error').hidden = false;
  $('error').scrollIntoView({ block: 'center' });
}

/** Does `work` with the buttons off, and puts what it throws on the page. */
async function busy(work) {
  $('error').hidden = true;
  const buttons = [...document.querySelectorAll('button, #file')];
  buttons.forEach((button) => { button.disabled = true; });
  try {
    await work();
  } catch (error) {
    $('status').textContent = '';
    show(error);
  } finally {
    buttons.forEach((button) => { button.disabled = false; });
    $('progress').hidden = true;
    if (!$('loaded').hidden && /^Compiling/.test($('status').textContent)) $('status').textContent = '';
  }
}

function onProgress({ stage, done, total }) {
  $('progress').hidden = false;
  if (total > 0) $('progress').value = done / total;
  else $('progress').removeAttribute('value');
  const words = { download: 'Fetching', upload: 'To the GPU:', compile: 'Compiling kernel' };
  $('status').textContent = stage === 'compile' ? `${words[stage]} ${done} of ${total}` : `${words[stage]} ${bytes(done)}${total ? ` of ${bytes(total)}` : ''}`;
}

// --- The device ---

async function describeGpu() {
  const adapter = await navigator.gpu?.requestAdapter();
  const rows = [];
  if (!adapter) {
    rows.push(['Adapter', 'none: this browser has no WebGPU, or has it turned off']);
  } else {
    const { info, limits, features } = adapter;
    rows.push(['Adapter', [info.vendor, info.architecture, info.description].filter(Boolean).join(' ') || 'unnamed']);
    rows.push(['Features', ['shader-f16', 'subgroups', 'timestamp-query'].filter((name) => features.has(name)).join(', ') || 'none beyond the core']);
    rows.push(['Largest buffer', bytes(limits.maxBufferSize)], ['Largest binding', bytes(limits.maxStorageBufferBindingSize)]);
    rows.push(['Workgroups', `${limits.maxComputeInvocationsPerWorkgroup} invocations, ${bytes(limits.maxComputeWorkgroupStorageSize)} of memory`]);
  }
  $('gpu').replaceChildren(...rows.flatMap(([name, value]) => [element('dt', name), element('dd', value)]));
}

// --- A model ---

let session;

async function load(model, name) {
  const start = performance.now();
  const loaded = await InferenceSession.create(model, { onProgress });
  await session?.release();
  session = loaded;
  for (const id of ['tuning', 'profile']) $(id).hidden = true;
  $('status').textContent = `${name} is ready after ${Math.round(performance.now() - start)} ms`;
  $('inputs').replaceChildren(...sizes(session).map(([name, value]) => {
    const label = element('label', name);
    label.append(Object.assign(document.createElement('input'), { type: 'number', min: 1, value, name }));
    return label;
  }));
  $('ran').textContent = '';
  $('loaded').hidden = false;
}

/** The symbols of the inputs, each once, with a size to begin with. */
function sizes({ inputMetadata }) {
  const found = new Map();
  for (const { name, shape } of inputMetadata) {
    shape.forEach((dim, axis) => {
      const symbol = dim === '' ? `${name}, axis ${axis}` : dim;
      if (typeof dim === 'string' && !found.has(symbol)) found.set(symbol, /batch/i.test(symbol) ? 1 : 16);
    });
  }
  return [...found];
}

function madeUp() {
  const chosen = new Map([...$('inputs').querySelectorAll('input')].map(({ name, value }) => [name, Math.max(1, Number(value) || 1)]));
  return Object.fromEntries(session.inputMetadata.map(({ name, type, shape }) => {
    const dims = shape.map((dim, axis) => (typeof dim === 'number' ? dim : chosen.get(dim === '' ? `${name}, axis ${axis}` : dim)));
    const count = dims.reduce((a, b) => a * b, 1);
    const values = Array.from({ length: count }, (_, i) => (type.startsWith('float') ? Math.sin(i) : type === 'bool' || /mask/.test(name) ? 1 : i % 7));
    return [name, new Tensor(type, values, dims)];
  }));
}

async function run() {
  const feeds = madeUp();
  const times = [];
  for (let i = 0; i < 3; i++) {
    const start = performance.now();
    var outputs = await session.run(feeds);
    times.push(performance.now() - start);
  }
  const shapes = Object.entries(outputs).map(([name, { type, dims }]) => `${name}: ${type} [${dims.join(', ')}]`).join('; ');
  $('ran').textContent = `First ${times[0].toFixed(1)} ms, then ${Math.min(...times.slice(1)).toFixed(1)} ms. ${shapes}`;
  await profile(feeds);
}

async function profile(feeds) {
  const byKernel = new Map();
  for (const { kernel, ns } of await session.profile(feeds)) {
    const { total, uses } = byKernel.get(kernel) ?? { total: 0, uses: 0 };
    byKernel.set(kernel, { total: total + ns, uses: uses + 1 });
  }
  const rows = [...byKernel].sort((a, b) => b[1].total - a[1].total).slice(0, 12);
  const most = rows[0]?.[1].total ?? 1;
  $('bars').replaceChildren(...rows.map(([kernel, { total, uses }]) => bar(`${kernel}  ${ms(total)} in ${uses}`, total / most)));
  $('profile').hidden = rows.length === 0;
}

function bar(text, part, kind = '') {
  const row = element('div', text, { className: `bar ${kind}`, title: text });
  const fill = document.createElement('i');
  fill.style.setProperty('--part', Math.max(0, Math.min(1, part)));
  row.prepend(fill);
  return row;
}

// --- Tuning ---

async function tune() {
  const feeds = madeUp();
  await session.run(feeds);
  $('progress').hidden = true;
  $('status').textContent = '';
  $('tuning').hidden = false;
  $('kernels').replaceChildren();
  $('gain').textContent = '';
  const history = [];
  const kernels = [];
  const report = await session.tune({
    budgetMs: 20_000,
    onProgress: (progress) => {
      showTrials(progress);
      showHistory(history, progress.runNs);
      showRoofline(kernels, progress);
    },
  });
  const gain = report.beforeNs / report.afterNs;
  $('run-time').textContent = ms(report.afterNs);
  $('gain').textContent = gain > 1.02 ? `${gain.toFixed(2)} times as fast as before` : 'as fast as before: the defaults are good here';
  await profile(feeds);
}

function showHistory(history, runNs) {
  $('run-time').textContent = ms(runNs);
  history.push(runNs);
  const most = Math.max(...history);
  const points = history.map((ns, i) => `${(300 * i) / Math.max(history.length - 1, 1)},${58 - (54 * ns) / most}`);
  $('history').innerHTML = `<polyline points="${points.join(' ')}"/>`;
}

const timesOf = (trials) => trials.map(({ best_ns }) => best_ns).filter((ns) => ns !== null);

/** The trials of the kernel at work; those of the ones before it are folded away. */
function showTrials({ kernel, kernels, label, output, trials }) {
  const id = `kernel-${kernel}`;
  if (!$(id)) {
    for (const card of $('kernels').children) card.open = false;
    $('kernels').prepend(element('details', '', { id, className: 'kernel', open: true }));
  }
  const times = timesOf(trials);
  const [slowest, best] = [Math.max(...times), Math.min(...times)];
  const gain = times.length > 0 && trials[0].best_ns !== null ? `: ${ms(trials[0].best_ns)} → ${ms(best)}` : '';
  $(id).replaceChildren(element('summary', `${kernel + 1} of ${kernels}, ${label}, ${output}${gain}`), ...trials.flatMap(({ schedule, status, best_ns }, i) => {
    const name = i === 0 ? `default: ${schedule}` : schedule;
    if (typeof status === 'object') return [bar(`${name}  ${Object.keys(status)[0].toLowerCase()}: ${Object.values(status)[0]}`, 0, 'bad')];
    return best_ns === null ? [] : [bar(`${ms(best_ns)}  ${name}`, best_ns / slowest, best_ns === best ? 'best' : '')];
  }));
}

function showRoofline(kernels, { kernel, label, trials, flops, bytes, peaks }) {
  if (trials[0]?.best_ns == null) return;
  const known = { name: label, flops, bytes, defaultNs: trials[0].best_ns, bestNs: Math.min(...timesOf(trials)) };
  kernels[kernel] = known;
  drawRoofline($('roofline'), peaks, kernels.filter((kernel) => kernel !== undefined));
  $('roofline-now').textContent = `${label}: ${percent(share(known, peaks, known.bestNs))} of what the device could do at best`;
}

// --- Search ---

let encoder;

async function search() {
  encoder ??= Promise.all([createWorkerSession('/minilm/minilm.onnx', { onProgress, cacheModel: true }), WordPiece.load('/minilm/tokenizer.json')])
    .catch((error) => { encoder = undefined; throw error; });
  const [session, tokenizer] = await encoder;
  const sentences = $('sentences').value.split('\n').map((line) => line.trim()).filter(Boolean).slice(0, 64);
  const start = performance.now();
  const vectors = await embed(session, tokenizer, [$('query').value, ...sentences]);
  const [question, ...others] = vectors;
  const scored = others.map((vector, i) => [vector.reduce((sum, v, k) => sum + v * question[k], 0), sentences[i]]);
  scored.sort((a, b) => b[0] - a[0]);
  $('status').textContent = '';
  $('searched').textContent = `${vectors.length} sentences in ${Math.round(performance.now() - start)} ms`;
  $('results').replaceChildren(...scored.slice(0, 8).map(([score, text]) => {
    const item = element('li', text);
    item.prepend(element('b', score.toFixed(2)));
    return item;
  }));
}

/** Unit vectors of the sentences. */
async function embed(session, tokenizer, sentences) {
  const ids = sentences.map((sentence) => tokenizer.encode(sentence));
  const length = Math.ceil(Math.max(...ids.map((row) => row.length)) / 8) * 8;
  const dims = [ids.length, length];
  const filled = (of) => new Tensor('int64', BigInt64Array.from(ids.flatMap((row) => Array.from({ length }, (_, i) => BigInt(of(row, i))))), dims);
  const all = { input_ids: filled((row, i) => row[i] ?? 0), attention_mask: filled((row, i) => (i < row.length ? 1 : 0)), token_type_ids: filled(() => 0) };
  const outputs = await session.run(Object.fromEntries(session.inputNames.map((name) => [name, all[name]])));
  const { data, dims: [, size] } = outputs.sentence_embedding;
  return ids.map((_, i) => {
    const vector = [...data.slice(i * size, (i + 1) * size)];
    const norm = Math.hypot(...vector);
    return vector.map((v) => v / norm);
  });
}

// --- Wiring ---

$('small').onclick = () => busy(() => load('/examples/mlp.onnx', 'The small example'));
$('minilm').onclick = () => busy(() => load('/minilm/minilm.onnx', 'MiniLM'));
$('file').onchange = ({ target }) => target.files[0] && busy(() => load(target.files[0], target.files[0].name));
$('by-url').onsubmit = (event) => { event.preventDefault(); void busy(() => load($('url').value, $('url').value)); };
$('run').onclick = () => busy(run);
$('tune').onclick = () => busy(tune);
$('search').onsubmit = (event) => { event.preventDefault(); void busy(search); };
document.ondragover = (event) => event.preventDefault();
document.ondrop = (event) => {
  event.preventDefault();
  const [file] = event.dataTransfer.files;
  if (file) void busy(() => load(file, file.name));
};
window.onunhandledrejection = ({ reason }) => show(reason);
env.logLevel = 'warning';
void describeGpu().catch(show);
fetch('/examples/sentences.txt').then(async (response) => {
  if (response.ok) $('sentences').value = (await response.text()).split('\n').filter((line) => line && !line.startsWith('#')).slice(0, 24).join('\n');
}, () => {});
document.documentElement.dataset.ready = 'yes';
