// out[i] = value(i), i = 0 .. len-1
//
// Elementwise arithmetic, views, gathers: everything that has no sum in it.
// Workgroup g covers WORKGROUP * PER_INVOCATION consecutive elements; neighbours in a workgroup
// take neighbouring elements, so that loads and stores of a row coalesce:
//
//     element   0 1 2 .. W-1 | W .. 2W-1 | ...
//     lane      0 1 2 .. W-1 | 0 ..  W-1 |
//
// With VECTOR = 4 an element is four neighbours, read and stored as vectors.

//#bindings
@group(0) @binding(0) var<storage, read> t0: array<f32>;
@group(0) @binding(1) var<storage, read_write> result: array<f32>;
//#end

//#knobs
const WORKGROUP: u32 = 64u;
const PER_INVOCATION: u32 = 1u;
const VECTOR: i32 = 1;
//#end

//#slot
fn len() -> i32 { return i32(arrayLength(&result)); }
fn store(i: i32) { result[i] = t0[i]; }
//#end

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let first = (group.y * groups.x + group.x) * WORKGROUP * PER_INVOCATION + lane;
    for (var j = 0u; j < PER_INVOCATION; j++) {
        let i = i32(first + j * WORKGROUP) * VECTOR;
        if (i < len()) {
            store(i);
        }
    }
}
