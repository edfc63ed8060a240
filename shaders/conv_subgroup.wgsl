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

//#bindings
@group(0) @binding(0) var<storage, read> t0: array<f32>;
@group(0) @binding(1) var<storage, read> t1: array<f32>;
@group(0) @binding(2) var<storage, read_write> result: array<f32>;
//#end

//#knobs
const GROUP: u32 = 64u;
const MICRO_O4: i32 = 1;
const MICRO_W: i32 = 1;
const TAPS: i32 = 1;
const SUBGROUP: i32 = 4;
const SHARES: i32 = 1;
const REACH: i32 = 1;
const STEP: i32 = 1;
const KERNEL_D: i32 = 1;
const KERNEL_H: i32 = 1;
const KERNEL_W: i32 = 1;
const STRIDE_D: i32 = 1;
const STRIDE_H: i32 = 1;
const STRIDE_W: i32 = 1;
const DILATION_D: i32 = 1;
const DILATION_H: i32 = 1;
const DILATION_W: i32 = 1;
const o0: i32 = 0;
const p0: i32 = 0;
const k0: i32 = 0;
const j0: i32 = 0;
const s0: i32 = 0;
//#end

//#slot
alias Sum = f32;
alias Element = f32;
fn batches() -> i32 { return 1; }
fn groups() -> i32 { return 1; }
fn out_channels() -> i32 { return 4; }
fn in_channels() -> i32 { return 4; }
fn input_d() -> i32 { return 1; }
fn input_h() -> i32 { return 4; }
fn input_w() -> i32 { return 4; }
fn output_d() -> i32 { return 1; }
fn output_h() -> i32 { return 4; }
fn output_w() -> i32 { return 4; }
fn before_d() -> i32 { return 0; }
fn before_h() -> i32 { return 0; }
fn before_w() -> i32 { return 0; }
fn mul_add(a: Element, b: vec4<Element>, c: vec4<Sum>) -> vec4<Sum> { return fma(vec4<Sum>(a), b, c); }
// Where a row of the input begins, and an element of it.
fn row_x(n: i32, g: i32, d: i32, h: i32) -> i32 { return (n * 4 + d) * 4 + h; }
fn load_x(row: i32, n: i32, g: i32, c: i32, d: i32, h: i32, w: i32) -> Element { return t0[row + c * 16 + w]; }
// Where a channel's weights begin, and one tap of a channel.
fn row_w(g: i32, m: i32) -> i32 { return m * 4; }
fn load_w(row: i32, g: i32, c: i32, kd: i32, kh: i32, kw: i32) -> Element { return t1[row + c]; }
// What the epilogue reads by channel alone.
fn channel_b0(g: i32, m: i32) -> f32 { return t1[m]; }
fn store(n: i32, g: i32, m: i32, d: i32, h: i32, w: i32, sum: Sum, term0: f32) {
    result[(m * 4 + h) * 4 + w] = sum + term0;
}
//#end

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
    //#each s SHARES
    let row_s0 = row_w(g, min(first + s0 * SUBGROUP + i32(rank), out_channels() - 1));
    //#end
    //#each p MICRO_W
    //#each o MICRO_O4
    var sum_p0_o0 = vec4<Sum>();
    //#end
    //#end
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
                //#each j REACH
                let at_j0 = left + j0 * STEP;
                let inside_j0 = inside & (at_j0 >= 0) & (at_j0 < input_w());
                let w_j0 = clamp(at_j0, 0, input_w() - 1);
                //#end
                for (var c = 0; c < in_channels(); c++) {
                    //#each j REACH
                    x[j0] = select(Element(), load_x(row, n, g, c, d, h, w_j0), inside_j0);
                    //#end
                    //#each k TAPS
                    //#each s SHARES
                    share[s0] = load_w(row_s0, g, c, kd, kh, kw + k0);
                    //#end
                    //#each o MICRO_O4
                    let w_k0_o0 = vec4<Element>(
                        subgroupBroadcast(share[o0 * 4 / SUBGROUP], u32(o0 * 4 % SUBGROUP)),
                        subgroupBroadcast(share[o0 * 4 / SUBGROUP], u32(o0 * 4 % SUBGROUP + 1)),
                        subgroupBroadcast(share[o0 * 4 / SUBGROUP], u32(o0 * 4 % SUBGROUP + 2)),
                        subgroupBroadcast(share[o0 * 4 / SUBGROUP], u32(o0 * 4 % SUBGROUP + 3)),
                    );
                    //#end
                    //#each p MICRO_W
                    //#each o MICRO_O4
                    sum_p0_o0 = mul_add(x[(p0 * STRIDE_W + k0 * DILATION_W) / STEP], w_k0_o0, sum_p0_o0);
                    //#end
                    //#end
                    //#end
                }
            }
        }
    }
    if (wanted == position) {
        //#each o MICRO_O4
        let end_o0 = min(out_channels() - first - o0 * 4, 4);
        for (var i = 0; i < end_o0; i++) {
            let m = first + o0 * 4 + i;
            //#each b TERMS
            let term_b0 = channel_b0(g, m);
            //#end
            //#each p MICRO_W
            if (out_w + p0 < output_w()) {
                store(n, g, m, out_d, out_h, out_w + p0, sum_p0_o0[i],
                    //#each b TERMS
                    term_b0,
                    //#end
                );
            }
            //#end
        }
        //#end
    }
}
