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
const VECTOR: i32 = 1;
const KEPT: i32 = 1;
const j0: i32 = 0;
//#end

//#each s STAGES
var<private> stat_s0: Stat_s0;
//#end

//#slot
alias Stat_s0 = f32;
// What is kept of one position.
struct Here { v0: f32 }
fn positions() -> i32 { return i32(arrayLength(&t0)); }
fn rows() -> i32 { return 1; }
fn extent_s0() -> i32 { return i32(arrayLength(&t0)); }
fn identity_s0() -> Stat_s0 { return 0.0; }
fn look(row: i32, r: i32) -> Here { return Here(t0[r]); }
fn kept_s0(row: i32, r: i32, here: Here) -> Stat_s0 { return here.v0; }
fn value_s0(row: i32, r: i32) -> Stat_s0 { return t0[r]; }
fn combine_s0(a: Stat_s0, b: Stat_s0) -> Stat_s0 { return a + b; }
fn result_extent() -> i32 { return 1; }
fn kept_store(row: i32, r: i32, here: Here) { result[row] = stat_s0; }
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
    //#each j KEPT
    let r_j0 = j0 * VECTOR;
    let at_j0 = max(min(r_j0, positions() - VECTOR), 0);
    let here_j0 = look(row, at_j0);
    //#end
    //#each s STAGES
    stat_s0 = identity_s0();
    //#each j KEPT
    stat_s0 = select(stat_s0, combine_s0(stat_s0, kept_s0(row, at_j0, here_j0)), r_j0 < extent_s0());
    //#end
    for (var r = KEPT * VECTOR; r < extent_s0(); r += VECTOR) {
        stat_s0 = combine_s0(stat_s0, value_s0(row, r));
    }
    //#end
    //#each j KEPT
    if (r_j0 < result_extent()) {
        kept_store(row, r_j0, here_j0);
    }
    //#end
    for (var r = KEPT * VECTOR; r < result_extent(); r += VECTOR) {
        store(row, r);
    }
}
