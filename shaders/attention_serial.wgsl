// out[b, m, n] = mean over keys k, weighted by exp(score(b, m, k)), of V[b, k, n]
// score(b, m, k) is made of the dot product of Q[b, m, .] and K[b, k, .]
//
// One pass over keys and values (the scheme of FlashAttention-2): the largest score so far and the sums relative to it
// are kept, and faded when a larger score comes. An invocation walks MICRO_M queries for itself, MICRO_K keys a step:
//
//            keys ->  MICRO_K                  per step: dots = Q * K^T over the head size, four at a time
//     m  [ p p p p ] * V [ n n n n | n n n n ]           top, p = exp(score - top), fade = exp(old top - top)
//     |  [ p p p p ]     [ n n n n | n n n n ]           sums = sums * fade + p * V, 4 * COLUMNS of them
//
// No workgroup memory and no barrier: caches do the sharing, which is what CPU adapters want.

//#bindings
@group(0) @binding(0) var<storage, read> t0: array<f32>;
@group(0) @binding(1) var<storage, read> t1: array<f32>;
@group(0) @binding(2) var<storage, read> t2: array<f32>;
@group(0) @binding(3) var<storage, read_write> result: array<f32>;
//#end

//#knobs
const ROWS: u32 = 32u;
const MICRO_M: i32 = 1;
const MICRO_K: i32 = 1;
const m0: i32 = 0;
const k0: i32 = 0;
const n0: i32 = 0;
//#end

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
// Four of K[b, k, d ..], anything beyond the end of the head.
fn load_key(b: i32, k: i32, d: i32) -> vec4<f32> {
    let i = k * 4 + d;
    return vec4<f32>(t1[i], t1[i + 1], t1[i + 2], t1[i + 3]);
}
// Four of V[b, k, n ..], anything beyond the end of N.
fn load_value(b: i32, k: i32, n: i32) -> vec4<f32> {
    let i = k * 4 + n;
    return vec4<f32>(t2[i], t2[i + 1], t2[i + 2], t2[i + 3]);
}
fn score(b: i32, m: i32, k: i32, dot: f32) -> f32 { return dot * 0.5; }
fn store(b: i32, m: i32, n: i32, sums: vec4<f32>, weights: f32) {
    result[m * 4 + n] = sums.x / weights;
}
fn store_row(b: i32, m: i32, top: f32, weights: f32) {}
//#end

// Below every score but minus infinity, so that what is hidden weighs nothing even before anything is seen.
const LOWEST: f32 = -3.4028234e38;

@compute @workgroup_size(ROWS)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = i32((group.y * groups.x + group.x) * ROWS + lane);
    let tiles = (size_m() + MICRO_M - 1) / MICRO_M;
    let b = row / tiles;
    if (b >= batches()) {
        return;
    }
    let m = (row - b * tiles) * MICRO_M;
    let last = keys(b, min(m + MICRO_M, size_m()) - 1) - 1;
    // Queries beyond the end repeat the last one and are not stored.
    //#each m MICRO_M
    let row_m0 = min(m + m0, size_m() - 1);
    var top_m0 = LOWEST;
    var weights_m0 = 0.0;
    //#each n COLUMNS
    var sum_m0_n0 = vec4<f32>();
    //#end
    //#end
    for (var k = 0; k <= last; k += MICRO_K) {
        // Keys beyond the end repeat the last one and weigh nothing.
        //#each k MICRO_K
        let key_k0 = min(k + k0, last);
        //#each m MICRO_M
        var dots_m0_k0 = vec4<f32>();
        //#end
        //#end
        for (var d = 0; d < size_d(); d += 4) {
            //#each m MICRO_M
            let query_m0 = load_query(b, row_m0, d);
            //#end
            //#each k MICRO_K
            let x_k0 = load_key(b, key_k0, d);
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
        let fade_m0 = exp(top_m0 - next_m0);
        top_m0 = next_m0;
        weights_m0 *= fade_m0;
        //#each k MICRO_K
        let p_m0_k0 = select(0.0, exp(score_m0_k0 - top_m0), k + k0 <= last);
        weights_m0 += p_m0_k0;
        //#end
        //#end
        //#each n COLUMNS
        //#each m MICRO_M
        sum_m0_n0 *= fade_m0;
        //#end
        //#each k MICRO_K
        let value_n0_k0 = select(vec4<f32>(), load_value(b, key_k0, n0 * 4), k + k0 <= last);
        //#each m MICRO_M
        sum_m0_n0 = fma(vec4<f32>(p_m0_k0), value_n0_k0, sum_m0_n0);
        //#end
        //#end
        //#end
    }
    //#each m MICRO_M
    if (m + m0 < size_m()) {
        //#each n COLUMNS
        store(b, m + m0, n0 * 4, sum_m0_n0, weights_m0);
        //#end
        store_row(b, m + m0, top_m0, weights_m0);
    }
    //#end
}
