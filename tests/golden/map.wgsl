// workgroup=64 per_invocation=1 vector=1
enable f16;
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

struct Params { p0: i32 }
@group(0) @binding(0) var<storage, read> t0: array<u32>;
@group(0) @binding(1) var<storage, read> t1: array<f16>;
@group(0) @binding(2) var<storage, read_write> result: array<f16>;
@group(0) @binding(3) var<uniform> params: Params;

const WORKGROUP: u32 = 64u;
const PER_INVOCATION: u32 = 1u;
const VECTOR: i32 = 1;

fn tw_erf(x: f32) -> f32 {
    let z = abs(x);
    if (z < 0.5) {
        let s = x * x;
        let p = fma(fma(fma(-3.5609843701815385e-2, s, 6.9963834886191355), s, 21.979261618294152), s, 242.66795523053175);
        let q = fma(fma(s + 15.08279763040779, s, 91.1649054045149), s, 215.0588758698612);
        return x * p / q;
    }
    if (z > 4.0) {
        return sign(x);
    }
    let p = fma(fma(fma(fma(fma(fma(fma(-1.3686485738271670e-7, z, 5.6419551747897394e-1), z, 7.2117582508830937),
        z, 43.162227222056735), z, 152.9892850469404), z, 339.3208167343437), z, 451.9189537118729), z, 300.4592610201616);
    let q = fma(fma(fma(fma(fma(fma(z + 12.782727319629424, z, 77.00015293522947), z, 277.5854447439876),
        z, 638.9802644656312), z, 931.3540948506096), z, 790.9509253278980), z, 300.4592609569833);
    return sign(x) * (1.0 - exp(-z * z) * p / q);
}
fn len() -> i32 {
    return (params.p0 * 6);
}
fn value(i: i32) -> f32 {
    let x1 = i / params.p0;
    let x2 = (t0[x1] != 0u);
    var x3: f32;
    if (x2) {
        let x4 = i % params.p0;
        let x5 = f32(t1[(x1 + x4 * 6)]);
        x3 = tw_erf(x5);
    } else {
        let x6 = i % params.p0;
        let x7 = f32(t1[(x1 + x6 * 6)]);
        x3 = x7;
    }
    return x3;
}
fn store(i: i32) { result[i] = f16(value(i)); }

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
