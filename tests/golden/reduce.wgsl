// lanes=64 rows=1 vector=1 kept=0 subgroups=0 parts=1
// stat_s[row] = combine over r of value_s(row, r), for s = 0, 1, ..: each may use the ones before it
// then per row, or per (row, r), a result made from the statistics.
//
// Softmax (max, sum), LayerNormalization (mean, variance), plain reductions.
// LANES invocations share a row: each combines every LANES-th position (or, with VECTOR = 4, four of them, read as
// vectors), then halves meet in workgroup memory:
//
//     r     0 1 2 3 | 4 5 6 7 | ..      lane 0..3 keep partials, then 0+2, 1+3, then 0+1
//
// ROWS rows stand side by side in a workgroup. The first KEPT positions of a lane are read once, what several passes
// read of them staying in registers.

struct Params { p0: i32, p1: i32 }
@group(0) @binding(0) var<storage, read> t0: array<f32>;
@group(0) @binding(1) var<storage, read> t1: array<f32>;
@group(0) @binding(2) var<storage, read> t2: array<f32>;
@group(0) @binding(3) var<storage, read_write> result: array<f32>;
@group(0) @binding(4) var<uniform> params: Params;

const LANES: u32 = 64u;
const ROWS: u32 = 1u;
const VECTOR: i32 = 1;
const KEPT: i32 = 0;

var<private> stat_s0: Stat_s0;
var<workgroup> partial_s0: array<Stat_s0, LANES * ROWS>;
var<private> stat_s1: Stat_s1;
var<workgroup> partial_s1: array<Stat_s1, LANES * ROWS>;

fn rows() -> i32 {
    return (params.p0 * params.p1);
}
alias Stat_s0 = f32;
fn extent_s0() -> i32 {
    return 64;
}
fn identity_s0() -> f32 {
    return 0.0f;
}
fn combine_s0(a: Stat_s0, b: Stat_s0) -> Stat_s0 {
    return (a + b);
}
fn value_s0(row: i32, r: i32) -> f32 {
    let x1 = t0[(row * 64 + r)];
    return x1;
}
alias Stat_s1 = f32;
fn extent_s1() -> i32 {
    return 64;
}
fn identity_s1() -> f32 {
    return 0.0f;
}
fn combine_s1(a: Stat_s1, b: Stat_s1) -> Stat_s1 {
    return (a + b);
}
fn value_s1(row: i32, r: i32) -> f32 {
    let x1 = t0[(row * 64 + r)];
    return ((x1 - (stat_s0 / 64.0f)) * (x1 - (stat_s0 / 64.0f)));
}
fn result_extent() -> i32 {
    return 64;
}
fn result_value(row: i32, r: i32) -> f32 {
    let x1 = t0[(row * 64 + r)];
    let x2 = ((x1 - (stat_s0 / 64.0f)) / sqrt(((stat_s1 / 64.0f) + 1e-5f)));
    let x3 = t1[r];
    let x4 = t2[r];
    return ((x2 * x3) + x4);
}
fn store(row: i32, r: i32) {
    result[(row * 64 + r)] = result_value(row, r);
}

@compute @workgroup_size(LANES, ROWS)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_id) local: vec3<u32>,
) {
    let wanted = i32((group.y * groups.x + group.x) * ROWS + local.y);
    // Rows beyond the end repeat the last one and store nothing: barriers need everybody.
    let row = min(wanted, rows() - 1);
    let lane = i32(local.x) * VECTOR;
    let stride = i32(LANES) * VECTOR;
    let first = local.y * LANES;
    stat_s0 = identity_s0();
    for (var r = lane + KEPT * stride; r < extent_s0(); r += stride) {
        stat_s0 = combine_s0(stat_s0, value_s0(row, r));
    }
    partial_s0[first + local.x] = stat_s0;
    workgroupBarrier();
    for (var half = LANES / 2u; half > 0u; half /= 2u) {
        if (local.x < half) {
            let a = partial_s0[first + local.x];
            partial_s0[first + local.x] = combine_s0(a, partial_s0[first + local.x + half]);
        }
        workgroupBarrier();
    }
    stat_s0 = partial_s0[first];
    stat_s1 = identity_s1();
    for (var r = lane + KEPT * stride; r < extent_s1(); r += stride) {
        stat_s1 = combine_s1(stat_s1, value_s1(row, r));
    }
    partial_s1[first + local.x] = stat_s1;
    workgroupBarrier();
    for (var half = LANES / 2u; half > 0u; half /= 2u) {
        if (local.x < half) {
            let a = partial_s1[first + local.x];
            partial_s1[first + local.x] = combine_s1(a, partial_s1[first + local.x + half]);
        }
        workgroupBarrier();
    }
    stat_s1 = partial_s1[first];
    if (wanted == row) {
        for (var r = lane + KEPT * stride; r < result_extent(); r += stride) {
            store(row, r);
        }
    }
}
