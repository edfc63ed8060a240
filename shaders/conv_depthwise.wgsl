// out[n, g, m, o] = epilogue(sum over k of W[g, m, k] * X[n, g, o * STRIDE + k * DILATION - before])
//
// Each output channel reads one input channel (depthwise). X is zero outside of the input. Axes are depth, height and
// width; what a convolution lacks has size 1. Each invocation computes a block of MICRO_H x MICRO_W neighbouring
// outputs of one channel from the window that they read together, and from the channel's weights, all in registers:
//
//     x  . . . . . .     REACH_H x REACH_W elements, read once
//        . . . . . .
//        . . . . . .     out  q0 p0 .. p3
//        . . . . . .          q1 p0 .. p3
//
// Conditions are joined by `&`, not `&&`: that is a branch, and some drivers' compilers take minutes over many.

//#bindings
@group(0) @binding(0) var<storage, read> t0: array<f32>;
@group(0) @binding(1) var<storage, read> t1: array<f32>;
@group(0) @binding(2) var<storage, read_write> result: array<f32>;
//#end

//#knobs
const GROUP: u32 = 64u;
const MICRO_H: i32 = 1;
const MICRO_W: i32 = 1;
const REACH_H: i32 = 1;
const REACH_W: i32 = 1;
const STEP_H: i32 = 1;
const STEP_W: i32 = 1;
const KERNEL_D: i32 = 1;
const KERNEL_H: i32 = 1;
const KERNEL_W: i32 = 1;
const STRIDE_D: i32 = 1;
const STRIDE_H: i32 = 1;
const STRIDE_W: i32 = 1;
const DILATION_D: i32 = 1;
const DILATION_H: i32 = 1;
const DILATION_W: i32 = 1;
const q0: i32 = 0;
const p0: i32 = 0;
const r0: i32 = 0;
const k0: i32 = 0;
const i0: i32 = 0;
const j0: i32 = 0;
//#end

//#slot
alias Sum = f32;
alias Element = f32;
fn batches() -> i32 { return 1; }
fn groups() -> i32 { return 4; }
fn out_channels() -> i32 { return 1; }
fn in_channels() -> i32 { return 1; }
fn input_d() -> i32 { return 1; }
fn input_h() -> i32 { return 4; }
fn input_w() -> i32 { return 4; }
fn output_d() -> i32 { return 1; }
fn output_h() -> i32 { return 4; }
fn output_w() -> i32 { return 4; }
fn before_d() -> i32 { return 0; }
fn before_h() -> i32 { return 0; }
fn before_w() -> i32 { return 0; }
fn mul_add(a: Element, b: Element, c: Sum) -> Sum { return fma(a, b, c); }
// Where a row of the input begins, and an element of it.
fn row_x(n: i32, g: i32, d: i32, h: i32) -> i32 { return (n * 4 + g) * 16 + h * 4; }
fn load_x(row: i32, n: i32, g: i32, c: i32, d: i32, h: i32, w: i32) -> Element { return t0[row + w]; }
// Where a channel's weights begin, and one tap.
fn row_w(g: i32, m: i32) -> i32 { return g; }
fn load_w(row: i32, g: i32, c: i32, kd: i32, kh: i32, kw: i32) -> Element { return t1[row]; }
// What the epilogue reads by channel alone.
fn channel_b0(g: i32, m: i32) -> f32 { return t1[g]; }
fn store(n: i32, g: i32, m: i32, d: i32, h: i32, w: i32, sum: Sum, term0: f32) {
    result[(g * 4 + h) * 4 + w] = sum + term0;
}
//#end

@compute @workgroup_size(GROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) counts: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let blocks_w = (output_w() + MICRO_W - 1) / MICRO_W;
    let blocks_h = (output_h() + MICRO_H - 1) / MICRO_H;
    let block = i32((group.y * counts.x + group.x) * GROUP + lane);
    let plane = block / blocks_w / blocks_h;
    let channel = plane / output_d();
    let n = channel / out_channels() / groups();
    if (n >= batches()) {
        return;
    }
    let m = channel % out_channels();
    let g = channel / out_channels() % groups();
    let out_d = plane % output_d();
    let out_h = block / blocks_w % blocks_h * MICRO_H;
    let out_w = block % blocks_w * MICRO_W;
    let top = out_h * STRIDE_H - before_h();
    let left = out_w * STRIDE_W - before_w();
    //#each j REACH_W
    let at_j0 = left + j0 * STEP_W;
    let inside_j0 = (at_j0 >= 0) & (at_j0 < input_w());
    let w_j0 = clamp(at_j0, 0, input_w() - 1);
    //#end
    let weights = row_w(g, m);
    //#each q MICRO_H
    //#each p MICRO_W
    var sum_q0_p0 = Sum();
    //#end
    //#end
    var x: array<Element, REACH_H * REACH_W>;
    for (var kd = 0; kd < KERNEL_D; kd++) {
        let at_d = out_d * STRIDE_D + kd * DILATION_D - before_d();
        let inside = (at_d >= 0) & (at_d < input_d());
        let d = clamp(at_d, 0, input_d() - 1);
        //#each i REACH_H
        let at_i0 = top + i0 * STEP_H;
        let inside_i0 = inside & (at_i0 >= 0) & (at_i0 < input_h());
        let h_i0 = clamp(at_i0, 0, input_h() - 1);
        let row_i0 = row_x(n, g, d, h_i0);
        //#each j REACH_W
        x[i0 * REACH_W + j0] = select(Element(), load_x(row_i0, n, g, 0, d, h_i0, w_j0), inside_i0 & inside_j0);
        //#end
        //#end
        //#each r KERNEL_H
        //#each k KERNEL_W
        let w_r0_k0 = load_w(weights, g, 0, kd, r0, k0);
        //#each q MICRO_H
        //#each p MICRO_W
        sum_q0_p0 = mul_add(
            x[(q0 * STRIDE_H + r0 * DILATION_H) / STEP_H * REACH_W + (p0 * STRIDE_W + k0 * DILATION_W) / STEP_W],
            w_r0_k0,
            sum_q0_p0,
        );
        //#end
        //#end
        //#end
        //#end
    }
    //#each b TERMS
    let term_b0 = channel_b0(g, m);
    //#end
    //#each q MICRO_H
    //#each p MICRO_W
    if ((out_h + q0 < output_h()) & (out_w + p0 < output_w())) {
        store(n, g, m, out_d, out_h + q0, out_w + p0, sum_q0_p0,
            //#each b TERMS
            term_b0,
            //#end
        );
    }
    //#end
    //#end
}
