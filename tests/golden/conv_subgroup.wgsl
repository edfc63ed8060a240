// group=64 micro_o=4 micro_w=2 unroll=true subgroup=8
enable subgroups;
// out[n, g, m, o] = epilogue(sum over c, k of W[g, m, c, k] * X[n, g, c, o * STRIDE + k * DILATION - before])
//
// X is zero outside of the input. Axes are depth, height and width; what a convolution lacks has size 1.
// Each invocation keeps MICRO_W neighbouring outputs of a row, of 4 * MICRO_O4 channels, in named registers. Offsets
// and bounds are worked out once per row of taps; the loop over input channels reads and multiplies:
//
//     x  . . . . . .          REACH elements, STEP apart, read once and used by all taps and outputs
//        |-k-|                TAPS weights for each channel
//          |-k-|
//     out  p0 p1 ..           sum_p_o += W[o, t] * x[p * STRIDE_W + t * DILATION_W]
//
// All invocations of a workgroup want the same weights. Each reads those of one channel, and a subgroup's broadcasts
// hand them round: SHARES reads per tap instead of 4 * MICRO_O4. Nobody leaves early: broadcasts need everybody.
//
// Conditions are joined by `&`, not `&&`: that is a branch, and some drivers' compilers take minutes over many.

struct Params { p0: i32, p1: i32, p2: i32 }
@group(0) @binding(0) var<storage, read> t0: array<f32>;
@group(0) @binding(1) var<storage, read> t1: array<f32>;
@group(0) @binding(2) var<storage, read> t2: array<f32>;
@group(0) @binding(3) var<storage, read> t3: array<f32>;
@group(0) @binding(4) var<storage, read_write> result: array<f32>;
@group(0) @binding(5) var<uniform> params: Params;

const KERNEL_D: i32 = 1;
const STRIDE_D: i32 = 1;
const DILATION_D: i32 = 1;
const KERNEL_H: i32 = 3;
const STRIDE_H: i32 = 1;
const DILATION_H: i32 = 1;
const KERNEL_W: i32 = 3;
const STRIDE_W: i32 = 1;
const DILATION_W: i32 = 1;
const GROUP: u32 = 64u;
const MICRO_O4: i32 = 1;
const MICRO_W: i32 = 2;
const TAPS: i32 = 3;
const REACH: i32 = 4;
const STEP: i32 = 1;
const o0: i32 = 0;
const p0: i32 = 0;
const p1: i32 = 1;
const k0: i32 = 0;
const k1: i32 = 1;
const k2: i32 = 2;
const j0: i32 = 0;
const j1: i32 = 1;
const j2: i32 = 2;
const j3: i32 = 3;
const SUBGROUP: i32 = 8;
const SHARES: i32 = 1;
const s0: i32 = 0;

alias Sum = f32;
alias Element = f32;
fn mul_add(a: Element, b: vec4<Element>, c: vec4<Sum>) -> vec4<Sum> { return fma(vec4<Sum>(a), b, c); }
fn batches() -> i32 {
    return params.p0;
}
fn groups() -> i32 {
    return 1;
}
fn out_channels() -> i32 {
    return 8;
}
fn in_channels() -> i32 {
    return 8;
}
fn input_d() -> i32 {
    return 1;
}
fn output_d() -> i32 {
    return 1;
}
fn before_d() -> i32 {
    return 0;
}
fn input_h() -> i32 {
    return params.p1;
}
fn output_h() -> i32 {
    return params.p1;
}
fn before_h() -> i32 {
    return 1;
}
fn input_w() -> i32 {
    return params.p2;
}
fn output_w() -> i32 {
    return params.p2;
}
fn before_w() -> i32 {
    return 1;
}
fn row_x(n: i32, g: i32, d: i32, h: i32) -> i32 {
    return (params.p1 * params.p2 * n * 8 + params.p2 * h);
}
fn load_x(row: i32, n: i32, g: i32, c: i32, d: i32, h: i32, w: i32) -> Element {
    let at = row + c * ((params.p1 * params.p2)) + w * (1);
    return Element(t1[at]);
}
fn row_w(g: i32, m: i32) -> i32 {
    return (m * 72);
}
fn tap(row: i32, g: i32, c: i32, kd: i32, kh: i32, kw: i32) -> Element {
    let at = row + c * (9) + kh * (3) + kw * (1);
    return Element(t0[at]);
}
fn load_w(row: i32, g: i32, c: i32, kd: i32, kh: i32, kw: i32) -> Element {
    return tap(row, g, c, kd, kh, kw);
}
fn channel_b0(g: i32, m: i32) -> f32 {
    let x1 = t2[m];
    return x1;
}
fn channel_b1(g: i32, m: i32) -> f32 {
    let x1 = t3[m];
    return x1;
}
fn epilogue(n: i32, g: i32, m: i32, d: i32, h: i32, w: i32, sum: Sum, term0: f32, term1: f32) -> f32 {
    let x1 = t1[(params.p1 * params.p2 * n * 8 + params.p1 * params.p2 * m + params.p2 * h + w)];
    return max((((sum * term0) + term1) + x1), 0.0f);
}
fn store(n: i32, g: i32, m: i32, d: i32, h: i32, w: i32, sum: Sum, term0: f32, term1: f32) {
    let plane = ((n * groups() + g) * out_channels() + m) * output_d() + d;
    result[(plane * output_h() + h) * output_w() + w] = epilogue(n, g, m, d, h, w, sum, term0, term1);
}

@compute @workgroup_size(GROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) counts: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
    @builtin(subgroup_invocation_id) rank: u32,
) {
    let blocks_m = (out_channels() + 4 * MICRO_O4 - 1) / (4 * MICRO_O4);
    let g = i32(group.y) / blocks_m;
    let first = i32(group.y) % blocks_m * 4 * MICRO_O4;
    let blocks_w = (output_w() + MICRO_W - 1) / MICRO_W;
    let wanted = i32((group.z * counts.x + group.x) * GROUP + lane);
    // Positions beyond the end repeat the last one and are not stored.
    let position = min(wanted, batches() * output_d() * output_h() * blocks_w - 1);
    let out_w = position % blocks_w * MICRO_W;
    let out_h = position / blocks_w % output_h();
    let out_d = position / blocks_w / output_h() % output_d();
    let n = position / blocks_w / output_h() / output_d();
    let row_s0 = row_w(g, min(first + s0 * SUBGROUP + i32(rank), out_channels() - 1));
    var sum_p0_o0 = vec4<Sum>();
    var sum_p1_o0 = vec4<Sum>();
    var x: array<Element, REACH>;
    var share: array<Element, SHARES>;
    for (var kd = 0; kd < KERNEL_D; kd++) {
        for (var kh = 0; kh < KERNEL_H; kh++) {
            let at_d = out_d * STRIDE_D + kd * DILATION_D - before_d();
            let at_h = out_h * STRIDE_H + kh * DILATION_H - before_h();
            let inside = (at_d >= 0) & (at_d < input_d()) & (at_h >= 0) & (at_h < input_h());
            let d = clamp(at_d, 0, input_d() - 1);
            let h = clamp(at_h, 0, input_h() - 1);
            let row = row_x(n, g, d, h);
            for (var kw = 0; kw < KERNEL_W; kw += TAPS) {
                let left = out_w * STRIDE_W + kw * DILATION_W - before_w();
                let at_j0 = left + j0 * STEP;
                let inside_j0 = inside & (at_j0 >= 0) & (at_j0 < input_w());
                let w_j0 = clamp(at_j0, 0, input_w() - 1);
                let at_j1 = left + j1 * STEP;
                let inside_j1 = inside & (at_j1 >= 0) & (at_j1 < input_w());
                let w_j1 = clamp(at_j1, 0, input_w() - 1);
                let at_j2 = left + j2 * STEP;
                let inside_j2 = inside & (at_j2 >= 0) & (at_j2 < input_w());
                let w_j2 = clamp(at_j2, 0, input_w() - 1);
                let at_j3 = left + j3 * STEP;
                let inside_j3 = inside & (at_j3 >= 0) & (at_j3 < input_w());
                let w_j3 = clamp(at_j3, 0, input_w() - 1);
                for (var c = 0; c < in_channels(); c++) {
                    x[j0] = select(Element(), load_x(row, n, g, c, d, h, w_j0), inside_j0);
                    x[j1] = select(Element(), load_x(row, n, g, c, d, h, w_j1), inside_j1);
                    x[j2] = select(Element(), load_x(row, n, g, c, d, h, w_j2), inside_j2);
                    x[j3] = select(Element(), load_x(row, n, g, c, d, h, w_j3), inside_j3);
                    share[s0] = load_w(row_s0, g, c, kd, kh, kw + k0);
                    let w_k0_o0 = vec4<Element>(
                        subgroupBroadcast(share[o0 * 4 / SUBGROUP], u32(o0 * 4 % SUBGROUP)),
                        subgroupBroadcast(share[o0 * 4 / SUBGROUP], u32(o0 * 4 % SUBGROUP + 1)),
                        subgroupBroadcast(share[o0 * 4 / SUBGROUP], u32(o0 * 4 % SUBGROUP + 2)),
                        subgroupBroadcast(share[o0 * 4 / SUBGROUP], u32(o0 * 4 % SUBGROUP + 3)),
                    );
                    sum_p0_o0 = mul_add(x[(p0 * STRIDE_W + k0 * DILATION_W) / STEP], w_k0_o0, sum_p0_o0);
                    sum_p1_o0 = mul_add(x[(p1 * STRIDE_W + k0 * DILATION_W) / STEP], w_k0_o0, sum_p1_o0);
                    share[s0] = load_w(row_s0, g, c, kd, kh, kw + k1);
                    let w_k1_o0 = vec4<Element>(
                        subgroupBroadcast(share[o0 * 4 / SUBGROUP], u32(o0 * 4 % SUBGROUP)),
                        subgroupBroadcast(share[o0 * 4 / SUBGROUP], u32(o0 * 4 % SUBGROUP + 1)),
                        subgroupBroadcast(share[o0 * 4 / SUBGROUP], u32(o0 * 4 % SUBGROUP + 2)),
                        subgroupBroadcast(share[o0 * 4 / SUBGROUP], u32(o0 * 4 % SUBGROUP + 3)),
                    );
                    sum_p0_o0 = mul_add(x[(p0 * STRIDE_W + k1 * DILATION_W) / STEP], w_k1_o0, sum_p0_o0);
                    sum_p1_o0 = mul_add(x[(p1 * STRIDE_W + k1 * DILATION_W) / STEP], w_k1_o0, sum_p1_o0);
                    share[s0] = load_w(row_s0, g, c, kd, kh, kw + k2);
                    let w_k2_o0 = vec4<Element>(
                        subgroupBroadcast(share[o0 * 4 / SUBGROUP], u32(o0 * 4 % SUBGROUP)),
                        subgroupBroadcast(share[o0 * 4 / SUBGROUP], u32(o0 * 4 % SUBGROUP + 1)),
                        subgroupBroadcast(share[o0 * 4 / SUBGROUP], u32(o0 * 4 % SUBGROUP + 2)),
                        subgroupBroadcast(share[o0 * 4 / SUBGROUP], u32(o0 * 4 % SUBGROUP + 3)),
                    );
                    sum_p0_o0 = mul_add(x[(p0 * STRIDE_W + k2 * DILATION_W) / STEP], w_k2_o0, sum_p0_o0);
                    sum_p1_o0 = mul_add(x[(p1 * STRIDE_W + k2 * DILATION_W) / STEP], w_k2_o0, sum_p1_o0);
                }
            }
        }
    }
    if (wanted == position) {
        let end_o0 = min(out_channels() - first - o0 * 4, 4);
        for (var i = 0; i < end_o0; i++) {
            let m = first + o0 * 4 + i;
            let term_b0 = channel_b0(g, m);
            let term_b1 = channel_b1(g, m);
            if (out_w + p0 < output_w()) {
                store(n, g, m, out_d, out_h, out_w + p0, sum_p0_o0[i],
                    term_b0,
                    term_b1,
                );
            }
            if (out_w + p1 < output_w()) {
                store(n, g, m, out_d, out_h, out_w + p1, sum_p1_o0[i],
                    term_b0,
                    term_b1,
                );
            }
        }
    }
}
