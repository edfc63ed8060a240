// out[b, m, n] = mean over keys k, weighted by exp(score(b, m, k)), of V[b, k, n]
// score(b, m, k) is made of the dot product of Q[b, m, .] and K[b, k, .]
//
// As attention_serial.wgsl, with LANES invocations for MICRO_M queries, and ROWS such groups in a workgroup. In a step of
// LANES * MICRO_K keys a lane scores keys of its own, then sums columns of its own over all of them:
//
//            keys ->                       columns ->
//     m  [ 0 1 2 3 | 0 1 2 3 ]         [ 0 0 0 0 1 1 1 1 2 2 2 2 3 3 3 3 ]        numbers are lanes
//     |  [ 0 1 2 3 | 0 1 2 3 ] * V     [ 0 0 0 0 1 1 1 1 2 2 2 2 3 3 3 3 ]
//
// Weights change hands through workgroup memory. Keys and values come from storage or, staged, through it.

//#bindings
@group(0) @binding(0) var<storage, read> t0: array<f32>;
@group(0) @binding(1) var<storage, read> t1: array<f32>;
@group(0) @binding(2) var<storage, read> t2: array<f32>;
@group(0) @binding(3) var<storage, read_write> result: array<f32>;
//#end

//#knobs
const LANES: i32 = 4;
const ROWS: i32 = 8;
const MICRO_M: i32 = 1;
const MICRO_K: i32 = 1;
const m0: i32 = 0;
const k0: i32 = 0;
const n0: i32 = 0;
//#end

const STEP: i32 = LANES * MICRO_K;
var<workgroup> weight: array<f32, ROWS * MICRO_M * (STEP + 1)>;
var<workgroup> partial: array<f32, ROWS * MICRO_M * LANES>;

//#slot
fn batches() -> i32 { return 1; }
fn size_m() -> i32 { return 4; }
fn size_n() -> i32 { return 4; }
fn size_d() -> i32 { return 4; }
// Keys of product b that query m may see, no fewer than those before it.
fn keys(b: i32, m: i32) -> i32 { return 4; }
// Four of Q[b, m, d ..], zero beyond the end of the head.
fn load_query(b: i32, m: i32, d: i32) -> vec4<f32> {
    let i = m * 4 + d;
    return vec4<f32>(t0[i], t0[i + 1], t0[i + 2], t0[i + 3]);
}
// Four of K[b, k, d ..] and of V[b, k, n ..], anything beyond the end of the head and of N.
fn load_key(b: i32, k: i32, d: i32) -> vec4<f32> {
    let i = k * 4 + d;
    return vec4<f32>(t1[i], t1[i + 1], t1[i + 2], t1[i + 3]);
}
fn load_value(b: i32, k: i32, n: i32) -> vec4<f32> {
    let i = k * 4 + n;
    return vec4<f32>(t2[i], t2[i + 1], t2[i + 2], t2[i + 3]);
}
// Staged, these fill workgroup memory for the step from key `first` on, and the reads below come from there.
fn stage_keys(b: i32, first: i32, last: i32, invocation: i32) {}
fn stage_values(b: i32, first: i32, last: i32, invocation: i32) {}
fn step_key(b: i32, k: i32, position: i32, d: i32) -> vec4<f32> { return load_key(b, k, d); }
fn step_value(b: i32, k: i32, position: i32, n: i32) -> vec4<f32> { return load_value(b, k, n); }
fn score(b: i32, m: i32, k: i32, dot: f32) -> f32 { return dot * 0.5; }
fn store(b: i32, m: i32, n: i32, sums: vec4<f32>, weights: f32) {
    result[m * 4 + n] = sums.x / weights;
}
fn store_row(b: i32, m: i32, top: f32, weights: f32) {}
//#end

// Below every score but minus infinity, so that what is hidden weighs nothing even before anything is seen.
const LOWEST: f32 = -3.4028234e38;

@compute @workgroup_size(LANES, ROWS)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_id) local: vec3<u32>,
    @builtin(local_invocation_index) invocation: u32,
) {
    let tiles = (size_m() + ROWS * MICRO_M - 1) / (ROWS * MICRO_M);
    let wanted = i32(group.y * groups.x + group.x);
    // Workgroups beyond the end repeat the last product and store nothing: barriers need everybody.
    let b = min(wanted / tiles, batches() - 1);
    let lane = i32(local.x);
    let row = i32(local.y) * MICRO_M;
    let first_m = (wanted - wanted / tiles * tiles) * ROWS * MICRO_M;
    let m = first_m + row;
    let count = keys(b, min(first_m + ROWS * MICRO_M, size_m()) - 1);
    let last = count - 1;
    // Queries beyond the end repeat the last one and are not stored.
    //#each m MICRO_M
    let row_m0 = min(m + m0, size_m() - 1);
    let weight_m0 = (row + m0) * (STEP + 1);
    let partial_m0 = (row + m0) * LANES;
    var top_m0 = LOWEST;
    var weights_m0 = 0.0;
    //#each n COLUMNS
    var sum_m0_n0 = vec4<f32>();
    //#end
    //#end
    for (var first = 0; first < count; first += STEP) {
        stage_keys(b, first, last, i32(invocation));
        workgroupBarrier();
        // Keys beyond the end repeat the last one and weigh nothing.
        //#each k MICRO_K
        let position_k0 = lane + k0 * LANES;
        let key_k0 = min(first + position_k0, last);
        //#each m MICRO_M
        var dots_m0_k0 = vec4<f32>();
        //#end
        //#end
        for (var d = 0; d < size_d(); d += 4) {
            //#each m MICRO_M
            let query_m0 = load_query(b, row_m0, d);
            //#end
            //#each k MICRO_K
            let x_k0 = step_key(b, key_k0, position_k0, d);
            //#each m MICRO_M
            dots_m0_k0 = fma(query_m0, x_k0, dots_m0_k0);
            //#end
            //#end
        }
        //#each m MICRO_M
        var next_m0 = top_m0;
        //#each k MICRO_K
        let dot_m0_k0 = (dots_m0_k0.x + dots_m0_k0.y) + (dots_m0_k0.z + dots_m0_k0.w);
        let score_m0_k0 = score(b, row_m0, key_k0, dot_m0_k0);
        next_m0 = max(next_m0, score_m0_k0);
        //#end
        partial[partial_m0 + lane] = next_m0;
        //#end
        workgroupBarrier();
        stage_values(b, first, last, i32(invocation));
        //#each m MICRO_M
        for (var other = 0; other < LANES; other++) {
            next_m0 = max(next_m0, partial[partial_m0 + other]);
        }
        let fade_m0 = exp(top_m0 - next_m0);
        top_m0 = next_m0;
        weights_m0 *= fade_m0;
        //#each k MICRO_K
        let p_m0_k0 = select(0.0, exp(score_m0_k0 - top_m0), first + position_k0 <= last);
        weights_m0 += p_m0_k0;
        weight[weight_m0 + position_k0] = p_m0_k0;
        //#end
        //#each n COLUMNS
        sum_m0_n0 *= fade_m0;
        //#end
        //#end
        workgroupBarrier();
        let end = min(STEP, count - first);
        for (var j = 0; j < end; j++) {
            //#each m MICRO_M
            let p_m0 = vec4<f32>(weight[weight_m0 + j]);
            //#end
            //#each n COLUMNS
            let value_n0 = step_value(b, first + j, j, (lane + n0 * LANES) * 4);
            //#each m MICRO_M
            sum_m0_n0 = fma(p_m0, value_n0, sum_m0_n0);
            //#end
            //#end
        }
        workgroupBarrier();
    }
    //#each m MICRO_M
    partial[partial_m0 + lane] = weights_m0;
    //#end
    workgroupBarrier();
    //#each m MICRO_M
    weights_m0 = 0.0;
    for (var other = 0; other < LANES; other++) {
        weights_m0 += partial[partial_m0 + other];
    }
    if (wanted / tiles == b && m + m0 < size_m()) {
        //#each n COLUMNS
        if ((lane + n0 * LANES) * 4 < size_n()) {
            store(b, m + m0, (lane + n0 * LANES) * 4, sum_m0_n0, weights_m0);
        }
        //#end
        if (lane == 0) {
            store_row(b, m + m0, top_m0, weights_m0);
        }
    }
    //#end
}
