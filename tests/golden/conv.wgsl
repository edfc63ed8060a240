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

struct Params { p0: i32, p1: i32, p2: i32 }
@group(0) @binding(0) var<storage, read> t0v: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> t1: array<f32>;
@group(0) @binding(2) var<storage, read> t2: array<f32>;
@group(0) @binding(3) var<storage, read> t3: array<f32>;
@group(0) @binding(4) var<storage, read_write> result: array<f32>;
@group(0) @binding(5) var<uniform> params: Params;

const GROUP_M: u32 = 16u;
const GROUP_N: u32 = 16u;
const MICRO_M: i32 = 2;
const MICRO_N4: i32 = 1;
const m0: i32 = 0;
const m1: i32 = 1;
const n0: i32 = 0;

alias Sum = f32;
fn batches() -> i32 {
    return params.p0;
}
fn size_m() -> i32 {
    return 8;
}
fn size_n() -> i32 {
    return (params.p1 * params.p2);
}
fn size_k() -> i32 {
    return 72;
}
fn mul_add(a: Sum, b: vec4<Sum>, c: vec4<Sum>) -> vec4<Sum> { return fma(vec4<Sum>(a), b, c); }
fn offset_a(b: i32, m: i32, k: i32) -> i32 {
    return (m * 72 + k);
}
fn load_a(b: i32, m: i32, k: i32) -> vec4<Sum> { return vec4<Sum>(t0v[offset_a(b, m, k) / 4]); }
fn at_b(b: i32, k: i32, n: i32) -> Sum {
    let x1 = n / params.p2;
    let x2 = k / 3;
    let x3 = x2 % 3;
    let x4 = (x1 + x3 - 1);
    let x5 = n % params.p2;
    let x6 = k % 3;
    let x7 = (x5 + x6 - 1);
    let x8 = (((0 <= x4) & (x4 < params.p1)) & ((0 <= x7) & (x7 < params.p2)));
    let x9 = k / 9;
    let x10 = select(0.0f, t1[select(0, (params.p1 * params.p2 * b * 8 + params.p1 * params.p2 * x9 - params.p2 + params.p2 * x3 + n + x6 - 1), x8)], x8);
    return x10;
}
fn row_b(b: i32, k: i32, n: i32) -> vec4<Sum> {
    return vec4<Sum>(at_b(b, k, min(n + 0, size_n() - 1)), at_b(b, k, min(n + 1, size_n() - 1)), at_b(b, k, min(n + 2, size_n() - 1)), at_b(b, k, min(n + 3, size_n() - 1)));
}
fn load_b(b: i32, k: i32, n: i32) -> Tile {
    return Tile(
        row_b(b, k + 0, n),
        row_b(b, k + 1, n),
        row_b(b, k + 2, n),
        row_b(b, k + 3, n),
    );
}
fn epilogue(b: i32, m: i32, n: i32, sum: Sum) -> f32 {
    let x1 = t2[m];
    let x2 = t3[m];
    let x3 = t1[(params.p1 * params.p2 * b * 8 + params.p1 * params.p2 * m + n)];
    return max((((sum * x1) + x2) + x3), 0.0f);
}
fn store(b: i32, m: i32, n: i32, sum: vec4<Sum>) {
    let first = (b * size_m() + m) * size_n() + n;
    result[first + 0] = epilogue(b, m, n + 0, sum.x);
    if (n + 1 < size_n()) { result[first + 1] = epilogue(b, m, n + 1, sum.y); }
    if (n + 2 < size_n()) { result[first + 2] = epilogue(b, m, n + 2, sum.z); }
    if (n + 3 < size_n()) { result[first + 3] = epilogue(b, m, n + 3, sum.w); }
}

// Four rows of B, a vector along n each.
struct Tile {
    k0: vec4<Sum>,
    k1: vec4<Sum>,
    k2: vec4<Sum>,
    k3: vec4<Sum>,
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
