// group_m=16 group_n=16 micro_m=2 micro_n=4 split_k=1
// out[b, m, n] = epilogue(sum over k of A[b, m, k] * B[b, k, n])
//
// Matrix products and convolutions (an implicit gemm: load_b does the windowing), straight from storage.
// Each invocation keeps MICRO_M x 4*MICRO_N4 sums in named registers and walks K in fours:
//
//            n ->  4*MICRO_N4                A: MICRO_M vectors along k
//     m  [ s s s s | s s s s ]               B: per four k, a 4 x 4 tile for each four columns
//     |  [ s s s s | s s s s ]               sums += A[., k+j] * B[k+j, .]  for j = 0..3
//
// No workgroup memory and no barrier: caches do the sharing, which is what CPU adapters want.

struct Params { p0: i32, p1: i32 }
@group(0) @binding(0) var<storage, read> t0v: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> t1v: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> t2: array<f32>;
@group(0) @binding(3) var<storage, read_write> result: array<vec4<f32>>;
@group(0) @binding(4) var<uniform> params: Params;

const GROUP_M: u32 = 16u;
const GROUP_N: u32 = 16u;
const MICRO_M: i32 = 2;
const MICRO_N4: i32 = 1;
const m0: i32 = 0;
const m1: i32 = 1;
const n0: i32 = 0;

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
alias Sum = f32;
alias Element = f32;
fn mul_add(a: Element, b: vec4<Element>, c: vec4<Sum>) -> vec4<Sum> { return fma(vec4<Sum>(a), b, c); }
fn batches() -> i32 {
    return 1;
}
fn size_m() -> i32 {
    return (params.p0 * params.p1);
}
fn size_n() -> i32 {
    return 256;
}
fn size_k() -> i32 {
    return 64;
}
fn offset_a(b: i32, m: i32, k: i32) -> i32 {
    return (m * 64 + k);
}
fn load_a(b: i32, m: i32, k: i32) -> vec4<Element> { return vec4<Element>(t0v[offset_a(b, m, k) / 4]); }
fn offset_b(b: i32, k: i32, n: i32) -> i32 {
    return (n + k * 256);
}
fn load_b(b: i32, k: i32, n: i32) -> Tile {
    return Tile(
        vec4<Element>(t1v[offset_b(b, k + 0, n) / 4]),
        vec4<Element>(t1v[offset_b(b, k + 1, n) / 4]),
        vec4<Element>(t1v[offset_b(b, k + 2, n) / 4]),
        vec4<Element>(t1v[offset_b(b, k + 3, n) / 4]),
    );
}
fn epilogue(b: i32, m: i32, n: i32, sum: Sum) -> f32 {
    let x1 = t2[n];
    let x2 = (sum + x1);
    return ((x2 * (tw_erf((x2 * 0.70710677f)) + 1.0f)) * 0.5f);
}
fn store(b: i32, m: i32, n: i32, sum: vec4<Sum>) {
    let first = (b * size_m() + m) * size_n() + n;
    result[first / 4] = vec4<f32>(epilogue(b, m, n + 0, sum.x), epilogue(b, m, n + 1, sum.y), epilogue(b, m, n + 2, sum.z), epilogue(b, m, n + 3, sum.w));
}

// Four rows of B, a vector along n each.
struct Tile {
    k0: vec4<Element>,
    k1: vec4<Element>,
    k2: vec4<Element>,
    k3: vec4<Element>,
}

@compute @workgroup_size(GROUP_N, GROUP_M)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let m = i32(id.y) * MICRO_M;
    let n = i32(id.x) * MICRO_N4 * 4;
    if (m >= size_m() || n >= size_n()) {
        return;
    }
    // Rows and columns beyond the end repeat the last ones and are not stored.
    let row_m0 = min(m + m0, size_m() - 1);
    let row_m1 = min(m + m1, size_m() - 1);
    let column_n0 = min(n + n0 * 4, (size_n() - 1) & ~3);
    for (var b = i32(id.z); b < batches(); b += i32(groups.z)) {
        var sum_m0_n0 = vec4<Sum>();
        var sum_m1_n0 = vec4<Sum>();
        for (var k = 0; k < size_k(); k += 4) {
            let a_m0 = load_a(b, row_m0, k);
            let a_m1 = load_a(b, row_m1, k);
            let b_n0 = load_b(b, k, column_n0);
            sum_m0_n0 = mul_add(a_m0.x, b_n0.k0, sum_m0_n0);
            sum_m0_n0 = mul_add(a_m0.y, b_n0.k1, sum_m0_n0);
            sum_m0_n0 = mul_add(a_m0.z, b_n0.k2, sum_m0_n0);
            sum_m0_n0 = mul_add(a_m0.w, b_n0.k3, sum_m0_n0);
            sum_m1_n0 = mul_add(a_m1.x, b_n0.k0, sum_m1_n0);
            sum_m1_n0 = mul_add(a_m1.y, b_n0.k1, sum_m1_n0);
            sum_m1_n0 = mul_add(a_m1.z, b_n0.k2, sum_m1_n0);
            sum_m1_n0 = mul_add(a_m1.w, b_n0.k3, sum_m1_n0);
        }
        if (m + m0 < size_m()) {
            if (n + n0 * 4 < size_n()) {
                store(b, m + m0, n + n0 * 4, sum_m0_n0);
            }
        }
        if (m + m1 < size_m()) {
            if (n + n0 * 4 < size_n()) {
                store(b, m + m1, n + n0 * 4, sum_m1_n0);
            }
        }
    }
}
