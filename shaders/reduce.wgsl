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

//#bindings
@group(0) @binding(0) var<storage, read> t0: array<f32>;
@group(0) @binding(1) var<storage, read_write> result: array<f32>;
//#end

//#knobs
const LANES: u32 = 64u;
const ROWS: u32 = 1u;
const VECTOR: i32 = 1;
const KEPT: i32 = 1;
const j0: i32 = 0;
//#end

//#each s STAGES
var<private> stat_s0: Stat_s0;
var<workgroup> partial_s0: array<Stat_s0, LANES * ROWS>;
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
    //#each j KEPT
    let r_j0 = lane + j0 * stride;
    let at_j0 = max(min(r_j0, positions() - VECTOR), 0);
    let here_j0 = look(row, at_j0);
    //#end
    //#each s STAGES
    stat_s0 = identity_s0();
    //#each j KEPT
    stat_s0 = select(stat_s0, combine_s0(stat_s0, kept_s0(row, at_j0, here_j0)), r_j0 < extent_s0());
    //#end
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
    //#end
    if (wanted == row) {
        //#each j KEPT
        if (r_j0 < result_extent()) {
            kept_store(row, r_j0, here_j0);
        }
        //#end
        for (var r = lane + KEPT * stride; r < result_extent(); r += stride) {
            store(row, r);
        }
    }
}
