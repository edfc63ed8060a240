// lanes=16 rows=4 vector=4 kept=1 subgroups=1 parts=1
enable subgroups;
// stat_s[row] = combine over r of value_s(row, r), for s = 0, 1, ..: each may use the ones before it
// then per row, or per (row, r), a result made from the statistics.
//
// As reduce.wgsl, the partials of a subgroup meeting in registers and those of a row's subgroups in workgroup memory:
//
//     r     0 1 2 3 | 4 5 6 7 | ..      subgroups of two: 0+1 and 2+3 in registers, then both
//
// LANES is a multiple of the device's largest subgroup, whose size is known only here, when the kernel runs.

struct Params { p0: i32, p1: i32 }
@group(0) @binding(0) var<storage, read> t0v: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> t1v: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> t2v: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> result: array<vec4<f32>>;
@group(0) @binding(4) var<uniform> params: Params;

const LANES: u32 = 16u;
const ROWS: u32 = 4u;
const VECTOR: i32 = 4;
const KEPT: i32 = 1;
const j0: i32 = 0;

// WebGPU's subgroups have four invocations at the least.
var<private> stat_s0: Stat_s0;
var<workgroup> partial_s0: array<Stat_s0, LANES * ROWS / 4u>;
var<private> stat_s1: Stat_s1;
var<workgroup> partial_s1: array<Stat_s1, LANES * ROWS / 4u>;

fn rows() -> i32 {
    return (params.p0 * params.p1);
}
fn offset0(row: i32, r: i32) -> i32 {
    return (row * 64 + r);
}
fn offset1(row: i32, r: i32) -> i32 {
    return r;
}
fn offset2(row: i32, r: i32) -> i32 {
    return r;
}
fn positions() -> i32 {
    return 64;
}
struct Here { v0: vec4<f32> }
fn look(row: i32, r: i32) -> Here { return Here(t0v[offset0(row, r) / 4]); }
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
fn value_s0_element(row: i32, r: i32, v0: f32) -> f32 {
    return v0;
}
fn value_s0(row: i32, r: i32) -> Stat_s0 {
    let v0 = t0v[offset0(row, r) / 4];
    return combine_s0(combine_s0(value_s0_element(row, r + 0, v0.x), value_s0_element(row, r + 1, v0.y)), combine_s0(value_s0_element(row, r + 2, v0.z), value_s0_element(row, r + 3, v0.w)));
}
fn kept_s0(row: i32, r: i32, here: Here) -> Stat_s0 {
    let v0 = here.v0;
    return combine_s0(combine_s0(value_s0_element(row, r + 0, v0.x), value_s0_element(row, r + 1, v0.y)), combine_s0(value_s0_element(row, r + 2, v0.z), value_s0_element(row, r + 3, v0.w)));
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
fn value_s1_element(row: i32, r: i32, v0: f32) -> f32 {
    return ((v0 - (stat_s0 / 64.0f)) * (v0 - (stat_s0 / 64.0f)));
}
fn value_s1(row: i32, r: i32) -> Stat_s1 {
    let v0 = t0v[offset0(row, r) / 4];
    return combine_s1(combine_s1(value_s1_element(row, r + 0, v0.x), value_s1_element(row, r + 1, v0.y)), combine_s1(value_s1_element(row, r + 2, v0.z), value_s1_element(row, r + 3, v0.w)));
}
fn kept_s1(row: i32, r: i32, here: Here) -> Stat_s1 {
    let v0 = here.v0;
    return combine_s1(combine_s1(value_s1_element(row, r + 0, v0.x), value_s1_element(row, r + 1, v0.y)), combine_s1(value_s1_element(row, r + 2, v0.z), value_s1_element(row, r + 3, v0.w)));
}
fn result_extent() -> i32 {
    return 64;
}
fn place(row: i32, r: i32) -> i32 {
    return (row * 64 + r);
}
fn result_element(row: i32, r: i32, v0: f32, v1: f32, v2: f32) -> f32 {
    let x1 = ((v0 - (stat_s0 / 64.0f)) / sqrt(((stat_s1 / 64.0f) + 1e-5f)));
    return ((x1 * v1) + v2);
}
fn store(row: i32, r: i32) {
    let v0 = t0v[offset0(row, r) / 4];
    let v1 = t1v[offset1(row, r) / 4];
    let v2 = t2v[offset2(row, r) / 4];
    result[place(row, r) / 4] = vec4<f32>(result_element(row, r + 0, v0.x, v1.x, v2.x), result_element(row, r + 1, v0.y, v1.y, v2.y), result_element(row, r + 2, v0.z, v1.z, v2.z), result_element(row, r + 3, v0.w, v1.w, v2.w));
}
fn kept_store(row: i32, r: i32, here: Here) {
    let v0 = here.v0;
    let v1 = t1v[offset1(row, r) / 4];
    let v2 = t2v[offset2(row, r) / 4];
    result[place(row, r) / 4] = vec4<f32>(result_element(row, r + 0, v0.x, v1.x, v2.x), result_element(row, r + 1, v0.y, v1.y, v2.y), result_element(row, r + 2, v0.z, v1.z, v2.z), result_element(row, r + 3, v0.w, v1.w, v2.w));
}

@compute @workgroup_size(LANES * ROWS)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
    @builtin(subgroup_size) subgroup_size: u32,
    @builtin(subgroup_invocation_id) within: u32,
) {
    let place = index / LANES;
    let wanted = i32((group.y * groups.x + group.x) * ROWS + place);
    // Rows beyond the end repeat the last one and store nothing: barriers need everybody.
    let row = min(wanted, rows() - 1);
    let lane = i32(index % LANES) * VECTOR;
    let stride = i32(LANES) * VECTOR;
    let r_j0 = lane + j0 * stride;
    let at_j0 = max(min(r_j0, positions() - VECTOR), 0);
    let here_j0 = look(row, at_j0);
    stat_s0 = identity_s0();
    stat_s0 = select(stat_s0, combine_s0(stat_s0, kept_s0(row, at_j0, here_j0)), r_j0 < extent_s0());
    for (var r = lane + KEPT * stride; r < extent_s0(); r += stride) {
        stat_s0 = combine_s0(stat_s0, value_s0(row, r));
    }
    stat_s0 = subgroupAdd(stat_s0);
    if (within == 0u) {
        partial_s0[index / subgroup_size] = stat_s0;
    }
    workgroupBarrier();
    let count_s0 = LANES / subgroup_size;
    stat_s0 = partial_s0[place * count_s0];
    for (var other = 1u; other < count_s0; other++) {
        stat_s0 = combine_s0(stat_s0, partial_s0[place * count_s0 + other]);
    }
    stat_s1 = identity_s1();
    stat_s1 = select(stat_s1, combine_s1(stat_s1, kept_s1(row, at_j0, here_j0)), r_j0 < extent_s1());
    for (var r = lane + KEPT * stride; r < extent_s1(); r += stride) {
        stat_s1 = combine_s1(stat_s1, value_s1(row, r));
    }
    stat_s1 = subgroupAdd(stat_s1);
    if (within == 0u) {
        partial_s1[index / subgroup_size] = stat_s1;
    }
    workgroupBarrier();
    let count_s1 = LANES / subgroup_size;
    stat_s1 = partial_s1[place * count_s1];
    for (var other = 1u; other < count_s1; other++) {
        stat_s1 = combine_s1(stat_s1, partial_s1[place * count_s1 + other]);
    }
    if (wanted == row) {
        if (r_j0 < result_extent()) {
            kept_store(row, r_j0, here_j0);
        }
        for (var r = lane + KEPT * stride; r < result_extent(); r += stride) {
            store(row, r);
        }
    }
}
