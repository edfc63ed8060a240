// out[b, m, n] = epilogue(sum over k of A[b, m, k] * B[b, k, n])     for few rows or few columns
//
// A: [b, M, K], B: [b, K, N], read through load_a and load_b, so in any layout. Such a product is as fast as it reads
// its large operand, once. LANES_K invocations share the sums of MICRO_M rows and 4*MICRO_N4 columns: each adds up
// every LANES_K-th four of K, then halves meet in workgroup memory:
//
//     k       0..3  4..7  8..11  12..15 | 16..19 ..        lane 0..3 keep partial sums, then 0+2 and 1+3, then 0+1
//
// LANES_M by LANES_N such groups stand side by side in a workgroup. Neighbouring invocations are neighbours along K
// where the large operand's elements are (weights as [N, K]), else along N (weights as [K, N]).

//#bindings
@group(0) @binding(0) var<storage, read> t0: array<f32>;
@group(0) @binding(1) var<storage, read> t1: array<f32>;
@group(0) @binding(2) var<storage, read_write> result: array<f32>;
//#end

//#knobs
const LANES_K: u32 = 8u;
const LANES_M: u32 = 1u;
const LANES_N: u32 = 8u;
const MICRO_M: i32 = 1;
const MICRO_N4: i32 = 1;
// Whether neighbouring invocations are neighbours along K.
const K_FIRST: bool = false;
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

const GROUPS: u32 = LANES_M * LANES_N;

//#each m MICRO_M
//#each n MICRO_N4
var<workgroup> partial_m0_n0: array<vec4<Sum>, LANES_K * GROUPS>;
//#end
//#end

@compute @workgroup_size(LANES_K * GROUPS)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    let lane = select(index / GROUPS, index % LANES_K, K_FIRST);
    let place = select(index % GROUPS, index / LANES_K, K_FIRST);
    let m = i32(group.y * LANES_M + place / LANES_N) * MICRO_M;
    let n = i32(group.x * LANES_N + place % LANES_N) * MICRO_N4 * 4;
    // Rows and columns beyond the end repeat the last ones and are not stored: barriers need everybody.
    //#each m MICRO_M
    let row_m0 = min(m + m0, size_m() - 1);
    //#end
    //#each n MICRO_N4
    let column_n0 = min(n + n0 * 4, (size_n() - 1) & ~3);
    //#end
    for (var b = i32(group.z); b < batches(); b += i32(groups.z)) {
        //#each m MICRO_M
        //#each n MICRO_N4
        var sum_m0_n0 = vec4<Sum>();
        //#end
        //#end
        for (var k = i32(lane) * 4; k < size_k(); k += i32(LANES_K) * 4) {
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
        //#each n MICRO_N4
        partial_m0_n0[index] = sum_m0_n0;
        //#end
        //#end
        workgroupBarrier();
        // The partial sum of another lane stands this far off.
        let stride = select(GROUPS, 1u, K_FIRST);
        for (var half = LANES_K / 2u; half > 0u; half /= 2u) {
            if (lane < half) {
                //#each m MICRO_M
                //#each n MICRO_N4
                sum_m0_n0 += partial_m0_n0[index + half * stride];
                partial_m0_n0[index] = sum_m0_n0;
                //#end
                //#end
            }
            workgroupBarrier();
        }
        if (lane == 0u) {
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
}
