// out[b, m, n] = epilogue(sum over k of A[b, m, k] * B[b, k, n])
//
// A: [b, M, K], B: [b, K, N], read through load_a and load_b, so in any layout. A subgroup computes ROWS*SUBGROUP rows by
// 4*MICRO_N4*SUBGROUP columns. Each invocation keeps all of these rows of its own columns in named registers, and per
// four k reads four rows of B there but only ROWS rows of A; the others' rows reach it by broadcast:
//
//            n ->  invocation 0 | 1 | 2 | ..        A: row l of each SUBGROUP rows is read by invocation l
//     m  [ s s s s | s s s s | .. ]                 B: per four k, a 4 x 4 tile for each four columns
//     |  [ s s s s | s s s s | .. ]                 sums += broadcast(A[., k+j], l) * B[k+j, .]
//
// On devices where a read costs the same for one address as for many, as on CPU adapters, this saves most of them.
// GROUPS subgroups lie below each other in a workgroup. SUBGROUP is the only size that the device's subgroups have.

//#bindings
@group(0) @binding(0) var<storage, read> t0: array<f32>;
@group(0) @binding(1) var<storage, read> t1: array<f32>;
@group(0) @binding(2) var<storage, read_write> result: array<f32>;
//#end

//#knobs
const SUBGROUP: u32 = 1u;
const GROUPS: u32 = 1u;
const ROWS: u32 = 1u;
const MICRO_N4: u32 = 1u;
const r0: u32 = 0u;
const n0: u32 = 0u;
const l0: u32 = 0u;
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

@compute @workgroup_size(SUBGROUP * GROUPS)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    let m = i32((group.y * GROUPS + index / SUBGROUP) * ROWS * SUBGROUP);
    let n = i32((group.x * MICRO_N4 * SUBGROUP + lane) * 4u);
    // Rows and columns beyond the end repeat the last ones and are not stored: a broadcast needs everybody.
    //#each r ROWS
    let row_r0 = min(m + i32(r0 * SUBGROUP + lane), size_m() - 1);
    //#end
    //#each n MICRO_N4
    let column_n0 = min(n + i32(n0 * SUBGROUP) * 4, (size_n() - 1) & ~3);
    //#end
    for (var b = i32(group.z); b < batches(); b += i32(groups.z)) {
        //#each r ROWS
        //#each l SUBGROUP
        //#each n MICRO_N4
        var sum_r0_l0_n0 = vec4<Sum>();
        //#end
        //#end
        //#end
        for (var k = 0; k < size_k(); k += 4) {
            //#each r ROWS
            let a_r0 = load_a(b, row_r0, k);
            //#end
            //#each n MICRO_N4
            let b_n0 = load_b(b, k, column_n0);
            //#end
            //#each r ROWS
            //#each l SUBGROUP
            let a_r0_l0 = subgroupBroadcast(a_r0, l0);
            //#each n MICRO_N4
            sum_r0_l0_n0 = mul_add(a_r0_l0.x, b_n0.k0, sum_r0_l0_n0);
            sum_r0_l0_n0 = mul_add(a_r0_l0.y, b_n0.k1, sum_r0_l0_n0);
            sum_r0_l0_n0 = mul_add(a_r0_l0.z, b_n0.k2, sum_r0_l0_n0);
            sum_r0_l0_n0 = mul_add(a_r0_l0.w, b_n0.k3, sum_r0_l0_n0);
            //#end
            //#end
            //#end
        }
        // One store, in a loop through which the sums move up: a store for each of them, or an array to take them from,
        // and compiling takes several times as long.
        let stores = min(size_m() - m, i32(ROWS * SUBGROUP)) * i32(MICRO_N4);
        for (var i = 0; i < stores; i++) {
            let column = n + i % i32(MICRO_N4) * i32(SUBGROUP) * 4;
            if (column < size_n()) {
                store(b, m + i / i32(MICRO_N4), column, sum_r0_l0_n0);
            }
            //#move_up
            //#end
        }
    }
}
