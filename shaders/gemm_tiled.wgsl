// out[b, m, n] = epilogue(sum over k of A[b, m, k] * B[b, k, n])
//
// A: [b, M, K], B: [b, K, N], read through load_a and load_b, so in any layout (a convolution's windowing is part of
// load_b). A workgroup computes a tile of TILE_M x TILE_N sums; it walks K in steps of TILE_K, for each of which it
// first copies what it needs of A and B to workgroup memory, fours of rows and of columns as vectors:
//
//                     n ->  TILE_N                tile_a[k][m / 4], tile_b[k][n / 4]
//                    [ B, TILE_K deep ]           each invocation: 4*MICRO_M4 x 4*MICRO_N4 sums in named
//     m  [ A,  ]     [ s s s s ]                  registers, in blocks of 4 x 4 that lie GROUP_M fours of rows
//     |  [     ]     [ s s s s ]                  and GROUP_N fours of columns apart: neighbours read
//        [     ]     [ s s s s ]                  neighbouring vectors
//
// Rows of workgroup memory are PAD vectors longer than the tile, so that copying a column meets other banks.
// Rows and columns beyond the end repeat the last ones and are not stored; products beyond the end of K are zero.

//#bindings
@group(0) @binding(0) var<storage, read> t0: array<f32>;
@group(0) @binding(1) var<storage, read> t1: array<f32>;
@group(0) @binding(2) var<storage, read_write> result: array<f32>;
//#end

//#knobs
const GROUP_M: u32 = 8u;
const GROUP_N: u32 = 8u;
const MICRO_M4: u32 = 1u;
const MICRO_N4: u32 = 1u;
const TILE_K: u32 = 16u;
const PAD: u32 = 1u;
// Whether neighbouring invocations copy neighbours along K, or along the other axis.
const A_ALONG_K: bool = true;
const B_ALONG_K: bool = false;
const m0: u32 = 0u;
const n0: u32 = 0u;
//#end

//#slot
alias Sum = f32;
alias Element = f32;
fn batches() -> i32 { return 1; }
fn size_m() -> i32 { return 4; }
fn size_n() -> i32 { return 4; }
fn size_k() -> i32 { return 4; }
fn mul_add(a: Element, b: vec4<Element>, c: vec4<Sum>) -> vec4<Sum> { return fma(vec4<Sum>(a), b, c); }
// A[b, m .. m+3, k .. k+3], zero beyond the end of K; beyond the end of M, anything.
fn load_a(b: i32, m: i32, k: i32) -> Tile {
    let i = m * 4 + k;
    let row = vec4<Element>(t0[i], t0[i + 4], t0[i + 8], t0[i + 12]);
    return Tile(row, row, row, row);
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

// Four positions of K, a vector along m or n each.
struct Tile {
    k0: vec4<Element>,
    k1: vec4<Element>,
    k2: vec4<Element>,
    k3: vec4<Element>,
}

const INVOCATIONS: u32 = GROUP_M * GROUP_N;
// The tile's extents in fours.
const FOURS_M: u32 = GROUP_M * MICRO_M4;
const FOURS_N: u32 = GROUP_N * MICRO_N4;
const FOURS_K: u32 = TILE_K / 4u;
const ROW_A: u32 = FOURS_M + PAD;
const ROW_B: u32 = FOURS_N + PAD;

var<workgroup> tile_a: array<vec4<Element>, TILE_K * ROW_A>;
var<workgroup> tile_b: array<vec4<Element>, TILE_K * ROW_B>;

@compute @workgroup_size(GROUP_N, GROUP_M)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_id) local: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    let first_m = i32(group.y * FOURS_M * 4u);
    let first_n = i32(group.x * FOURS_N * 4u);
    // The last four that are not all beyond the end.
    let last_m = (size_m() - 1) & ~3;
    let last_n = (size_n() - 1) & ~3;
    let last_k = (size_k() - 1) & ~3;
    for (var b = i32(group.z); b < batches(); b += i32(groups.z)) {
        //#each m MICRO_M4
        //#each n MICRO_N4
        var x_m0_n0 = vec4<Sum>();
        var y_m0_n0 = vec4<Sum>();
        var z_m0_n0 = vec4<Sum>();
        var w_m0_n0 = vec4<Sum>();
        //#end
        //#end
        for (var first_k = 0; first_k < size_k(); first_k += i32(TILE_K)) {
            for (var i = index; i < FOURS_M * FOURS_K; i += INVOCATIONS) {
                let at = select(vec2<u32>(i % FOURS_M, i / FOURS_M), vec2<u32>(i / FOURS_K, i % FOURS_K), A_ALONG_K);
                let k = first_k + i32(at.y) * 4;
                let t = load_a(b, min(first_m + i32(at.x) * 4, last_m), min(k, last_k));
                let inside = k < size_k();
                let to = at.y * 4u * ROW_A + at.x;
                tile_a[to] = select(vec4<Element>(), t.k0, inside);
                tile_a[to + ROW_A] = select(vec4<Element>(), t.k1, inside);
                tile_a[to + 2u * ROW_A] = select(vec4<Element>(), t.k2, inside);
                tile_a[to + 3u * ROW_A] = select(vec4<Element>(), t.k3, inside);
            }
            for (var i = index; i < FOURS_N * FOURS_K; i += INVOCATIONS) {
                let at = select(vec2<u32>(i % FOURS_N, i / FOURS_N), vec2<u32>(i / FOURS_K, i % FOURS_K), B_ALONG_K);
                let k = first_k + i32(at.y) * 4;
                let t = load_b(b, min(k, last_k), min(first_n + i32(at.x) * 4, last_n));
                let inside = k < size_k();
                let to = at.y * 4u * ROW_B + at.x;
                tile_b[to] = select(vec4<Element>(), t.k0, inside);
                tile_b[to + ROW_B] = select(vec4<Element>(), t.k1, inside);
                tile_b[to + 2u * ROW_B] = select(vec4<Element>(), t.k2, inside);
                tile_b[to + 3u * ROW_B] = select(vec4<Element>(), t.k3, inside);
            }
            workgroupBarrier();
            for (var k = 0u; k < TILE_K; k++) {
                //#each m MICRO_M4
                let a_m0 = tile_a[k * ROW_A + local.y + m0 * GROUP_M];
                //#end
                //#each n MICRO_N4
                let b_n0 = tile_b[k * ROW_B + local.x + n0 * GROUP_N];
                //#end
                //#each m MICRO_M4
                //#each n MICRO_N4
                x_m0_n0 = mul_add(a_m0.x, b_n0, x_m0_n0);
                y_m0_n0 = mul_add(a_m0.y, b_n0, y_m0_n0);
                z_m0_n0 = mul_add(a_m0.z, b_n0, z_m0_n0);
                w_m0_n0 = mul_add(a_m0.w, b_n0, w_m0_n0);
                //#end
                //#end
            }
            workgroupBarrier();
        }
        //#each m MICRO_M4
        let row_m0 = first_m + i32(local.y + m0 * GROUP_M) * 4;
        //#each n MICRO_N4
        let column_m0_n0 = first_n + i32(local.x + n0 * GROUP_N) * 4;
        if (column_m0_n0 < size_n()) {
            if (row_m0 < size_m()) { store(b, row_m0, column_m0_n0, x_m0_n0); }
            if (row_m0 + 1 < size_m()) { store(b, row_m0 + 1, column_m0_n0, y_m0_n0); }
            if (row_m0 + 2 < size_m()) { store(b, row_m0 + 2, column_m0_n0, z_m0_n0); }
            if (row_m0 + 3 < size_m()) { store(b, row_m0 + 3, column_m0_n0, w_m0_n0); }
        }
        //#end
        //#end
    }
}
