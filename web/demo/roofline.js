// The roofline plot: each kernel at its operations per byte and the speed that it reached, under what the device can do.

/** Height by width. */
const ASPECT = 0.65;
/** Margins of the axes, in pixels. */
const [LEFT, RIGHT, TOP, BOTTOM] = [48, 10, 24, 42];
/** Operations per byte of what does none: such a kernel stands at the left edge. */
const LEAST = 1 / 16;

const NAMESPACE = 'http://www.w3.org/2000/svg';
function shape(name, attributes, text = '') {
  const made = document.createElementNS(NAMESPACE, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.textContent = text;
  return made;
}

const intensity = ({ flops, bytes }) => Math.max(flops / Math.max(bytes, 1), LEAST);

/** The part of the roofline that a kernel reached in `ns`: above 1 where caches served what the probe had to fetch. */
export function share({ flops, bytes }, { copy_bytes_per_ns, f32_flops_per_ns }, ns) {
  return Math.max(flops / f32_flops_per_ns, bytes / copy_bytes_per_ns) / Math.max(ns, 1);
}

/** That part in words. */
export function percent(part) {
  return part < 0.01 ? 'less than 1%' : `${Math.round(100 * part)}%`;
}

/** Steps of an axis, as `[position from 0 to 1, label]`. */
const steps = ([from, to], every, label) =>
  Array.from({ length: Math.floor((to - from) / every) + 1 }, (_, i) => [(i * every) / (to - from), label(from + i * every)]);

/**
 * Draws into `svg`. `kernels` are `{ flops, bytes, defaultNs, bestNs, name }`, those first that take most of a run; `peaks`
 * as a tuning reports them.
 */
export function draw(svg, peaks, kernels) {
  // A unit is a pixel, so that text has its size on every screen.
  const width = Math.max(svg.clientWidth, 240);
  const drawn = Math.round(width * ASPECT);
  const { copy_bytes_per_ns: copied, f32_flops_per_ns: computed } = peaks;
  const roof = (x) => Math.min(x * copied, computed);
  // A kernel stands as far below the roof as its time is above the roofline's.
  const height = (kernel, ns) => roof(intensity(kernel)) * share(kernel, peaks, ns);
  const ridge = computed / copied;
  const points = kernels.map((kernel) => ({ kernel, x: intensity(kernel), ys: [height(kernel, kernel.defaultNs), height(kernel, kernel.bestNs)] }));
  const range = (values, log) => [Math.floor(Math.min(...values.map(log))), Math.ceil(Math.max(...values.map(log)) + 0.1)];
  const xs = range([...points.map(({ x }) => x), ridge / 8, ridge * 8], Math.log2);
  const ys = range([...points.flatMap((point) => point.ys).filter((y) => y > 0), computed, computed / 100], Math.log10);
  const part = (value, [from, to]) => Math.max(0, Math.min(1, (value - from) / (to - from)));
  const across = (t) => LEFT + t * (width - LEFT - RIGHT);
  const up = (t) => drawn - BOTTOM - t * (drawn - TOP - BOTTOM);
  const place = (x, y) => [across(part(Math.log2(x), xs)), up(part(Math.log10(y), ys))];
  const line = (className, [x1, y1], [x2, y2]) => shape('line', { class: className, x1, y1, x2, y2 });

  const vertical = steps(xs, Math.ceil((xs[1] - xs[0]) / 8), (power) => (power < 0 ? `1/${2 ** -power}` : `${2 ** power}`));
  const horizontal = steps(ys, Math.ceil((ys[1] - ys[0]) / 7), (power) => (power < -2 ? `1e${power}` : `${Number((10 ** power).toPrecision(1))}`));
  const most = 2 ** xs[1];
  // The slope may begin below the drawing.
  const start = Math.max(2 ** xs[0], 10 ** ys[0] / copied);
  const [end, top] = place(most, computed);
  const text = (className, x, y, words) => shape('text', { class: className, x, y }, words);
  svg.setAttribute('viewBox', `0 0 ${width} ${drawn}`);
  svg.replaceChildren(
    ...vertical.flatMap(([t, words]) => [line('grid', [across(t), TOP], [across(t), up(0)]), text('middle', across(t), up(0) + 15, words)]),
    ...horizontal.flatMap(([t, words]) => [line('grid', [LEFT, up(t)], [width - RIGHT, up(t)]), text('end', LEFT - 5, up(t) + 4, words)]),
    text('middle', across(0.5), drawn - 6, 'operations per byte'),
    text('start', 2, 12, 'GFLOP/s'),
    line('roof', place(start, roof(start)), place(ridge, computed)),
    line('roof', place(ridge, computed), [end, top]),
    text('end', end, top - 6, `${computed.toFixed(computed < 10 ? 1 : 0)} GFLOP/s, ${copied.toFixed(1)} GB/s`),
    // The first kernels take most of a run: they are drawn last, on top.
    ...points.toReversed().flatMap(({ kernel, x, ys: [before, after] }) => {
      const best = shape('g', {});
      const [cx, cy] = place(x, after);
      best.append(shape('title', {}, `${kernel.name}: ${percent(share(kernel, peaks, kernel.bestNs))} of the roofline`), shape('circle', { class: 'best', cx, cy, r: 5 }));
      const [defaultX, defaultY] = place(x, before);
      return [line('gain', [defaultX, defaultY], [cx, cy]), shape('circle', { class: 'default', cx: defaultX, cy: defaultY, r: 3 }), best];
    }),
  );
}
