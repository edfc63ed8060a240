//#enable
enable wgpu_cooperative_matrix;
//#end

// out[b, m, n] = epilogue(sum over k of A[b, m, k] * B[b, k, n])
//
// A: [b, M, K], B: [b, K, N], read through load_a and load_b, so in any layout. As gemm_tiled.wgsl, but the products are
// the device's cooperative-matrix instructions: a subgroup multiplies matrices of SIZE x SIZE in one step. A workgroup of
// GROUPS_M x GROUPS_N subgroups walks K in steps of TILE_K, which it first copies to workgroup memory:
//
//                     n ->  TILE_N                tile_a[m][k], tile_b[k][n], in Elem
//                    [ B, TILE_K deep ]           each subgroup: MICRO_M x MICRO_N matrices of sums
//     m  [ A,  ]     [ C C | C C ]
//     |  [     ]     [ C C | C C ]
//
// The sums go through workgroup memory too, one matrix at a time, to the epilogue. Rows and columns beyond the end repeat
// the last ones and are not stored; products beyond the end of K are zero. A subgroup has SUBGROUP invocations: the only
// size that the device has.

//#bindings
@group(0) @binding(0) var<storage, read> t0: array<f32>;
@group(0) @binding(1) var<storage, read> t1: array<f32>;
@group(0) @binding(2) var<storage, read_write> result: array<f32>;
//#end

//#knobs
alias Elem = f32;
alias MatrixA = coop_mat8x8<f32, A>;
alias MatrixB = coop_mat8x8<f32, B>;
alias MatrixC = coop_mat8x8<f32, C>;
const SIZE: u32 = 8u;
const SUBGROUP: u32 = 8u;
const GROUPS_M: u32 = 1u;
const GROUPS_N: u32 = 1u;
const MICRO_M: u32 = 1u;
const MICRO_N: u32 = 1u;
const TILE_K: u32 = 16u;
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

const INVOCATIONS: u32 = SUBGROUP * GROUPS_M * GROUPS_N;
const TILE_M: u32 = GROUPS_M * MICRO_M * SIZE;
const TILE_N: u32 = GROUPS_N * MICRO_N * SIZE;
// The tile's extents in fours.
const FOURS_M: u32 = TILE_M / 4u;
const FOURS_N: u32 = TILE_N / 4u;
const FOURS_K: u32 = TILE_K / 4u;

var<workgroup> tile_a: array<Elem, TILE_M * TILE_K>;
var<workgroup> tile_b: array<Elem, TILE_K * TILE_N>;
var<workgroup> tile_c: array<Sum, SIZE * SIZE * GROUPS_M * GROUPS_N>;

//#matrices
// The matrices that begin at an element of a tile, and A * B + C. Browsers spell them otherwise.
fn load_tile_a(at: u32) -> MatrixA { return coopLoadT<MatrixA>(&tile_a[at], TILE_K); }
fn load_tile_b(at: u32) -> MatrixB { return coopLoadT<MatrixB>(&tile_b[at], TILE_N); }
fn load_tile_c(at: u32) -> MatrixC { return coopLoadT<MatrixC>(&tile_c[at], SIZE); }
fn store_tile_c(at: u32, c: MatrixC) { coopStoreT(c, &tile_c[at], SIZE); }
fn multiply_add(a: MatrixA, b: MatrixB, c: MatrixC) -> MatrixC { return coopMultiplyAdd(a, b, c); }
//#end

fn put_a(to: u32, v: vec4<Element>) {
    tile_a[to] = Elem(v.x);
    tile_a[to + TILE_K] = Elem(v.y);
    tile_a[to + 2u * TILE_K] = Elem(v.z);
    tile_a[to + 3u * TILE_K] = Elem(v.w);
}

fn put_b(to: u32, v: vec4<Element>) {
    tile_b[to] = Elem(v.x);
    tile_b[to + 1u] = Elem(v.y);
    tile_b[to + 2u] = Elem(v.z);
    tile_b[to + 3u] = Elem(v.w);
}

@compute @workgroup_size(INVOCATIONS)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    let subgroup = index / SUBGROUP;
    let lane = index % SUBGROUP;
    // Of the subgroup's matrices within the tile.
    let matrix_m = subgroup / GROUPS_N * MICRO_M * SIZE;
    let matrix_n = subgroup % GROUPS_N * MICRO_N * SIZE;
    let own = subgroup * SIZE * SIZE;
    let first_m = i32(group.y * TILE_M);
    let first_n = i32(group.x * TILE_N);
    // The last four that are not all beyond the end.
    let last_m = (size_m() - 1) & ~3;
    let last_n = (size_n() - 1) & ~3;
    let last_k = (size_k() - 1) & ~3;
    for (var b = i32(group.z); b < batches(); b += i32(groups.z)) {
        for (var i = lane; i < SIZE * SIZE; i += SUBGROUP) {
            tile_c[own + i] = Sum();
        }
        workgroupBarrier();
        //#each m MICRO_M
        //#each n MICRO_N
        var c_m0_n0 = load_tile_c(own);
        //#end
        //#end
        for (var first_k = 0; first_k < size_k(); first_k += i32(TILE_K)) {
            for (var i = index; i < FOURS_M * FOURS_K; i += INVOCATIONS) {
                let at = select(vec2<u32>(i % FOURS_M, i / FOURS_M), vec2<u32>(i / FOURS_K, i % FOURS_K), A_ALONG_K);
                let k = first_k + i32(at.y) * 4;
                let t = load_a(b, min(first_m + i32(at.x) * 4, last_m), min(k, last_k));
                let inside = k < size_k();
                let to = at.x * 4u * TILE_K + at.y * 4u;
                put_a(to, select(vec4<Element>(), t.k0, inside));
                put_a(to + 1u, select(vec4<Element>(), t.k1, inside));
                put_a(to + 2u, select(vec4<Element>(), t.k2, inside));
                put_a(to + 3u, select(vec4<Element>(), t.k3, inside));
            }
            for (var i = index; i < FOURS_N * FOURS_K; i += INVOCATIONS) {
                let at = select(vec2<u32>(i % FOURS_N, i / FOURS_N), vec2<u32>(i / FOURS_K, i % FOURS_K), B_ALONG_K);
                let k = first_k + i32(at.y) * 4;
                let t = load_b(b, min(k, last_k), min(first_n + i32(at.x) * 4, last_n));
                let inside = k < size_k();
                let to = at.y * 4u * TILE_N + at.x * 4u;
                put_b(to, select(vec4<Element>(), t.k0, inside));
                put_b(to + TILE_N, select(vec4<Element>(), t.k1, inside));
                put_b(to + 2u * TILE_N, select(vec4<Element>(), t.k2, inside));
                put_b(to + 3u * TILE_N, select(vec4<Element>(), t.k3, inside));
            }
            workgroupBarrier();
            for (var k = 0u; k < TILE_K; k += SIZE) {
                //#each m MICRO_M
                let a_m0 = load_tile_a((matrix_m + m0 * SIZE) * TILE_K + k);
                //#end
                //#each n MICRO_N
                let b_n0 = load_tile_b(k * TILE_N + matrix_n + n0 * SIZE);
                //#end
                //#each m MICRO_M
                //#each n MICRO_N
                c_m0_n0 = multiply_add(a_m0, b_n0, c_m0_n0);
                //#end
                //#end
            }
            workgroupBarrier();
        }
        //#each m MICRO_M
        //#each n MICRO_N
        store_tile_c(own, c_m0_n0);
        workgroupBarrier();
        for (var i = lane * 4u; i < SIZE * SIZE; i += SUBGROUP * 4u) {
            let row_m0_n0 = first_m + i32(matrix_m + m0 * SIZE + i / SIZE);
            let column_m0_n0 = first_n + i32(matrix_n + n0 * SIZE + i % SIZE);
            if (row_m0_n0 < size_m() && column_m0_n0 < size_n()) {
                let sum = vec4<Sum>(tile_c[own + i], tile_c[own + i + 1u], tile_c[own + i + 2u], tile_c[own + i + 3u]);
                store(b, row_m0_n0, column_m0_n0, sum);
            }
        }
        workgroupBarrier();
        //#end
        //#end
    }
}
