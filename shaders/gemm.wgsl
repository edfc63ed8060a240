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

//#bindings
@group(0) @binding(0) var<storage, read> t0: array<f32>;
@group(0) @binding(1) var<storage, read> t1: array<f32>;
@group(0) @binding(2) var<storage, read_write> result: array<f32>;
//#end

//#knobs
const GROUP_M: u32 = 8u;
const GROUP_N: u32 = 8u;
const MICRO_M: i32 = 1;
const MICRO_N4: i32 = 1;
const m0: i32 = 0;
const n0: i32 = 0;
//#end

//#slot
alias Sum = f32;
alias Element = f32;
fn batches() -> i32 { return 1; }
fn size_m() -> i32 { return 4; }
fn size_n() -> i32 { return 4; }
fn size_k() -> i32 { return 4; }
fn mul_add(a: Element, b: vec4<Element>, c: vec4<Sum>) -> vec4<Sum> { return fma(vec4<Sum>(a), b, c); }
// A[b, m, k .. k+3], zero beyond the end of K.
fn load_a(b: i32, m: i32, k: i32) -> vec4<Element> {
    let i = m * 4 + k;
    return vec4<Element>(t0[i], t0[i + 1], t0[i + 2], t0[i + 3]);
}
// B[b, k .. k+3, n .. n+3], zero beyond the end of K; beyond the end of N, anything.
fn load_b(b: i32, k: i32, n: i32) -> Tile {
    let i = k * 4 + n;
    let row = vec4<Element>(t1[i], t1[i + 1], t1[i + 2], t1[i + 3]);
    return Tile(row, row, row, row);
}
fn store(b: i32, m: i32, n: i32, sum: vec4<Sum>) {
    result[m * 4 + n] = sum.x;
}
//#end

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
    //#each m MICRO_M
    let row_m0 = min(m + m0, size_m() - 1);
    //#end
    //#each n MICRO_N4
    let column_n0 = min(n + n0 * 4, (size_n() - 1) & ~3);
    //#end
    for (var b = i32(id.z); b < batches(); b += i32(groups.z)) {
        //#each m MICRO_M
        //#each n MICRO_N4
        var sum_m0_n0 = vec4<Sum>();
        //#end
        //#end
        for (var k = 0; k < size_k(); k += 4) {
            //#each m MICRO_M
            let a_m0 = load_a(b, row_m0, k);
            //#end
            //#each n MICRO_N4
            let b_n0 = load_b(b, k, column_n0);
            //#end
            //#each m MICRO_M
            //#each n MICRO_N4
            sum_m0_n0 = mul_add(a_m0.x, b_n0.k0, sum_m0_n0);
            sum_m0_n0 = mul_add(a_m0.y, b_n0.k1, sum_m0_n0);
            sum_m0_n0 = mul_add(a_m0.z, b_n0.k2, sum_m0_n0);
            sum_m0_n0 = mul_add(a_m0.w, b_n0.k3, sum_m0_n0);
            //#end
            //#end
        }
        //#each m MICRO_M
        if (m + m0 < size_m()) {
            //#each n MICRO_N4
            if (n + n0 * 4 < size_n()) {
                store(b, m + m0, n + n0 * 4, sum_m0_n0);
            }
            //#end
        }
        //#end
    }
}
