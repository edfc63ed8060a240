// stat_s[row] = combine over r of value_s(row, r), for s = 0, 1, ..: each may use the ones before it
// then per row, or per (row, r), a result made from the statistics.
//
// As reduce.wgsl, with one invocation per row: no workgroup memory and no barrier. For short rows, and for
// CPU adapters, where the lanes of a workgroup are SIMD lanes and a barrier costs more than a strided load.

//#bindings
@group(0) @binding(0) var<storage, read> t0: array<f32>;
@group(0) @binding(1) var<storage, read_write> result: array<f32>;
//#end

//#knobs
const ROWS: u32 = 64u;
//#end

//#each s STAGES
var<private> stat_s0: Stat_s0;
//#end

//#slot
alias Stat_s0 = f32;
fn rows() -> i32 { return 1; }
fn extent_s0() -> i32 { return i32(arrayLength(&t0)); }
fn identity_s0() -> Stat_s0 { return 0.0; }
fn value_s0(row: i32, r: i32) -> Stat_s0 { return t0[r]; }
fn combine_s0(a: Stat_s0, b: Stat_s0) -> Stat_s0 { return a + b; }
fn result_extent() -> i32 { return 1; }
fn store(row: i32, r: i32) { result[row] = stat_s0; }
//#end

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
    //#each s STAGES
    stat_s0 = identity_s0();
    for (var r = 0; r < extent_s0(); r++) {
        stat_s0 = combine_s0(stat_s0, value_s0(row, r));
    }
    //#end
    for (var r = 0; r < result_extent(); r++) {
        store(row, r);
    }
}
