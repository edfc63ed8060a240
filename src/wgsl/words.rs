//! Four elements as 64-bit words, for CPU adapters: there a read or store of memory is a loop over a subgroup's
//! invocations, once per word whatever its size, so half as many words take half the time.

/// The array entry that holds four elements of a storage type of at most 32 bits.
pub fn entry(storage: &str) -> &'static str {
    if storage == "f16" { "u64" } else { "vec2<u64>" }
}

/// The function from an entry to a vector of four, in the computing type.
pub fn read(storage: &str) -> &'static str {
    match storage {
        "f16" => {
            "fn four_f16(w: u64) -> vec4<f32> {
    return vec4<f32>(unpack2x16float(u32(w)), unpack2x16float(u32(w >> 32u)));
}"
        }
        "f32" => {
            "fn four_f32(w: vec2<u64>) -> vec4<f32> {
    return bitcast<vec4<f32>>(vec4<u32>(u32(w.x), u32(w.x >> 32u), u32(w.y), u32(w.y >> 32u)));
}"
        }
        "i32" => {
            "fn four_i32(w: vec2<u64>) -> vec4<i32> {
    return bitcast<vec4<i32>>(vec4<u32>(u32(w.x), u32(w.x >> 32u), u32(w.y), u32(w.y >> 32u)));
}"
        }
        _ => {
            "fn four_u32(w: vec2<u64>) -> vec4<u32> {
    return vec4<u32>(u32(w.x), u32(w.x >> 32u), u32(w.y), u32(w.y >> 32u));
}"
        }
    }
}

/// The function from a vector of four, in the storage type, to an entry.
pub fn store(storage: &str) -> &'static str {
    match storage {
        "f16" => {
            "fn words_f16(v: vec4<f16>) -> u64 {
    let x = vec4<f32>(v);
    return u64(pack2x16float(x.xy)) | (u64(pack2x16float(x.zw)) << 32u);
}"
        }
        "f32" => {
            "fn words_f32(v: vec4<f32>) -> vec2<u64> {
    let w = bitcast<vec4<u32>>(v);
    return vec2<u64>(u64(w.x) | (u64(w.y) << 32u), u64(w.z) | (u64(w.w) << 32u));
}"
        }
        "i32" => {
            "fn words_i32(v: vec4<i32>) -> vec2<u64> {
    let w = bitcast<vec4<u32>>(v);
    return vec2<u64>(u64(w.x) | (u64(w.y) << 32u), u64(w.z) | (u64(w.w) << 32u));
}"
        }
        _ => {
            "fn words_u32(w: vec4<u32>) -> vec2<u64> {
    return vec2<u64>(u64(w.x) | (u64(w.y) << 32u), u64(w.z) | (u64(w.w) << 32u));
}"
        }
    }
}
