
// 64-bit floats, where the device has them.

// Narrowing keeps NaN.
fn tw_is_nan64(x: f64) -> bool {
    return tw_is_nan(f32(x));
}

fn tw_is_inf64(x: f64, sign: u32) -> bool {
    return abs(x) > 1.7976931348623157e308lf && tw_is_inf(f32(x), sign);
}

// To the nearest whole number, halves to even ones; not by `round`, which on Mesa 22's lavapipe gives 1
// for 1.500000001.
fn tw_round64(x: f64) -> f64 {
    let low = floor(abs(x));
    let part = abs(x) - low;
    let odd = floor(low * 0.5lf) != low * 0.5lf;
    let near = select(low, low + 1.0lf, part > 0.5lf || (part == 0.5lf && odd));
    return select(near, -near, x < 0.0lf);
}

// The remainder with the dividend's sign; an infinite divisor leaves the dividend.
fn tw_frem64(a: f64, b: f64) -> f64 {
    return select(a - b * trunc(a / b), a, abs(a) < abs(b));
}

// The remainder with the divisor's sign.
fn tw_fmod64(a: f64, b: f64) -> f64 {
    let r = tw_frem64(a, b);
    return select(r, r + b, r != 0.0lf && ((r < 0.0lf) != (b < 0.0lf)));
}

fn tw_f64_of_u64(a: vec2<u32>) -> f64 {
    return f64(a.y) * 4294967296.0lf + f64(a.x);
}

fn tw_f64_of_i64(a: vec2<u32>) -> f64 {
    return f64(i32(a.y)) * 4294967296.0lf + f64(a.x);
}

fn tw_u64_of_f64(x: f64) -> vec2<u32> {
    if (!(x >= 1.0lf)) {
        return vec2<u32>();
    }
    if (x >= 18446744073709551616.0lf) {
        return vec2<u32>(0xffffffffu);
    }
    let whole = trunc(x);
    let high = floor(whole / 4294967296.0lf);
    return vec2<u32>(u32(whole - high * 4294967296.0lf), u32(high));
}

fn tw_i64_of_f64(x: f64) -> vec2<u32> {
    let size = tw_u64_of_f64(abs(x));
    if (i32(size.y) < 0) {
        return select(vec2<u32>(0xffffffffu, 0x7fffffffu), vec2<u32>(0u, 0x80000000u), x < 0.0lf);
    }
    return select(size, tw_neg64(size), x < 0.0lf);
}

fn tw_f64_of_bits(a: vec2<u32>) -> f64 {
    return bitcast<f64>((u64(a.y) << 32u) | u64(a.x));
}

fn tw_bits_of_f64(x: f64) -> vec2<u32> {
    let bits = bitcast<u64>(x);
    return vec2<u32>(u32(bits), u32(bits >> 32u));
}
