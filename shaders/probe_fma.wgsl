// Chains of multiplications and additions in registers: how much arithmetic a device does in a second. VECTORS chains of
// four numbers are independent of one another, enough to hide an instruction's latency and too few to run out of
// registers; 64 invocations of ROUNDS times 16 steps each do 64 * ROUNDS * 16 * VECTORS * 8 operations.

//#knobs
const ROUNDS: u32 = 64u;
alias Real = f32;
const VECTORS: u32 = 1u;
const v0: u32 = 0u;
//#end

@group(0) @binding(0) var<storage, read_write> result: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    // Numbers from memory: nothing can be worked out beforehand.
    let x = Real(result[id.x % 64u]);
    let y = Real(result[(id.x + 1u) % 64u]);
    let factor = vec4<Real>(x);
    let term = vec4<Real>(y);
    //#each v VECTORS
    var a_v0 = vec4<Real>(x, y, x + y, x - y) + vec4<Real>(Real(v0));
    //#end
    for (var round = 0u; round < ROUNDS; round++) {
        for (var step = 0u; step < 4u; step++) {
            //#each v VECTORS
            a_v0 = fma(a_v0, factor, term);
            //#end
            //#each v VECTORS
            a_v0 = fma(a_v0, factor, term);
            //#end
            //#each v VECTORS
            a_v0 = fma(a_v0, factor, term);
            //#end
            //#each v VECTORS
            a_v0 = fma(a_v0, factor, term);
            //#end
        }
    }
    var sum = vec4<Real>();
    //#each v VECTORS
    sum += a_v0;
    //#end
    result[64u + id.x] = f32(sum.x + sum.y + sum.z + sum.w);
}
