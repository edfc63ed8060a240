// lanes=1 rows=64 vector=1 kept=0 subgroups=0 parts=1
// stat_s[row] = combine over r of value_s(row, r), for s = 0, 1, ..: each may use the ones before it
// then per row, or per (row, r), a result made from the statistics.
//
// As reduce.wgsl, with one invocation per row: no workgroup memory and no barrier. For short rows, and for
// CPU adapters, where the lanes of a workgroup are SIMD lanes and a barrier costs more than a strided load.

struct Params { p0: i32, p1: i32 }
@group(0) @binding(0) var<storage, read> t0: array<f32>;
@group(0) @binding(1) var<storage, read> t1: array<f32>;
@group(0) @binding(2) var<storage, read> t2: array<f32>;
@group(0) @binding(3) var<storage, read_write> result: array<f32>;
@group(0) @binding(4) var<uniform> params: Params;

const ROWS: u32 = 64u;
const VECTOR: i32 = 1;
const KEPT: i32 = 0;

var<private> stat_s0: Stat_s0;
var<private> stat_s1: Stat_s1;

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

@compute @workgroup_size(ROWS)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = i32((group.y * groups.x + group.x) * ROWS + lane);
    if (row >= rows()) {
        return;
    }
    stat_s0 = identity_s0();
    for (var r = KEPT * VECTOR; r < extent_s0(); r += VECTOR) {
        stat_s0 = combine_s0(stat_s0, value_s0(row, r));
    }
    stat_s1 = identity_s1();
    for (var r = KEPT * VECTOR; r < extent_s1(); r += VECTOR) {
        stat_s1 = combine_s1(stat_s1, value_s1(row, r));
    }
    for (var r = KEPT * VECTOR; r < result_extent(); r += VECTOR) {
        store(row, r);
    }
}
