// Scalar functions that WGSL lacks or leaves undefined at the edges.
// The printer includes those that a kernel names; each stands alone or calls only those above it.

// A float from its bits: WGSL has no literal for infinities and NaN, and refuses constant ones.
fn tw_bits(bits: u32) -> f32 {
    var word = bits;
    return bitcast<f32>(word);
}

fn tw_is_nan(x: f32) -> bool {
    return (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u;
}

fn tw_is_inf(x: f32, sign: u32) -> bool {
    return bitcast<u32>(x) == (0x7f800000u | sign);
}

// tanh(x): drivers evaluate it through exp(2x), which overflows beyond 44 and cancels near zero.
fn tw_tanh(x: f32) -> f32 {
    let s = x * x;
    let series = x * fma(s, fma(s, 0.13333334, -0.33333334), 1.0);
    return select(tanh(clamp(x, -15.0, 15.0)), series, s < 0.0025);
}

// erf(x) = 2 / sqrt(pi) * integral of exp(-t^2) over 0..x, by the rational approximation that
// W. J. Cody gives ("Rational Chebyshev approximations for the error function", 1969), single precision.
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

// asin(x) = x + x^3 P(x^2) up to 1/2, P fitted at Chebyshev's points; above, through asin(x) = pi/2 - 2 asin(sqrt((1 - x) / 2)).
// Drivers' own is off by 2e-4.
fn tw_asin_small(x: f32, s: f32) -> f32 {
    let p = fma(fma(fma(fma(fma(0.0338053852, s, 0.0170781072), s, 0.0311160944), s, 0.0445980392), s, 0.0750009865), s, 0.166666657);
    return fma(x * s, p, x);
}

fn tw_asin(x: f32) -> f32 {
    let z = abs(x);
    let s = select(z * z, 0.5 * (1.0 - z), z > 0.5);
    let small = tw_asin_small(select(z, sqrt(s), z > 0.5), s);
    return sign(x) * select(small, 1.5707963267948966 - 2.0 * small, z > 0.5);
}

fn tw_acos(x: f32) -> f32 {
    let z = abs(x);
    let s = select(z * z, 0.5 * (1.0 - z), z > 0.5);
    let small = tw_asin_small(select(x, sqrt(s), z > 0.5), s);
    let large = select(2.0 * small, 3.1415926535897932 - 2.0 * small, x < 0.0);
    return select(1.5707963267948966 - small, large, z > 0.5);
}

// x^y with C's rules for negative and zero bases.
fn tw_pow(x: f32, y: f32) -> f32 {
    if (y == 0.0) {
        return 1.0;
    }
    if (x == 0.0) {
        return select(0.0, tw_bits(0x7f800000u), y < 0.0);
    }
    let p = pow(abs(x), y);
    if (x > 0.0) {
        return p;
    }
    if (y != trunc(y)) {
        return tw_bits(0x7fc00000u);
    }
    return select(p, -p, abs(y % 2.0) == 1.0);
}

fn tw_ipow(x: i32, y: i32) -> i32 {
    if (y < 0) {
        return select(select(0, select(1, -1, (y & 1) == 1), x == -1), 1, x == 1);
    }
    var result = 1;
    var base = x;
    var rest = y;
    while (rest > 0) {
        if ((rest & 1) == 1) {
            result *= base;
        }
        base *= base;
        rest >>= 1u;
    }
    return result;
}

fn tw_upow(x: u32, y: u32) -> u32 {
    var result = 1u;
    var base = x;
    var rest = y;
    while (rest > 0u) {
        if ((rest & 1u) == 1u) {
            result *= base;
        }
        base *= base;
        rest >>= 1u;
    }
    return result;
}

// The remainder with the divisor's sign.
fn tw_imod(a: i32, b: i32) -> i32 {
    let r = a % b;
    return select(r, r + b, r != 0 && ((r < 0) != (b < 0)));
}

// The remainder with the dividend's sign. WGSL's own is NaN for an infinite divisor.
fn tw_frem(a: f32, b: f32) -> f32 {
    return select(a % b, a, abs(a) < abs(b));
}

// The remainder with the divisor's sign.
fn tw_fmod(a: f32, b: f32) -> f32 {
    let r = tw_frem(a, b);
    return select(r, r + b, r != 0.0 && ((r < 0.0) != (b < 0.0)));
}

fn tw_shl(a: u32, b: u32, width: u32) -> u32 {
    return select(a << (b & 31u), 0u, b >= width);
}

fn tw_shr(a: u32, b: u32, width: u32) -> u32 {
    return select(a >> (b & 31u), 0u, b >= width);
}

fn tw_sar(a: i32, b: u32, width: u32) -> i32 {
    return a >> min(b, width - 1u);
}

// Round to the nearest bfloat16, ties to even; NaN stays NaN.
fn tw_bf16(x: f32) -> f32 {
    let bits = bitcast<u32>(x);
    let rounded = (bits + 0x7fffu + ((bits >> 16u) & 1u)) & 0xffff0000u;
    return select(bitcast<f32>(rounded), x, tw_is_nan(x));
}

// Round to the nearest float16, ties to even; beyond its range, infinity; NaN stays NaN. quantizeToF16 may truncate, and
// does on SwiftShader.
fn tw_f16(x: f32) -> f32 {
    let bits = bitcast<u32>(x);
    let normal = bitcast<f32>((bits + 0xfffu + ((bits >> 13u) & 1u)) & 0xffffe000u);
    // Below 2^-14, multiples of 2^-24.
    let rounded = select(normal, round(x * 16777216.0) / 16777216.0, abs(x) < 6.103515625e-5);
    let limited = select(rounded, sign(x) * tw_bits(0x7f800000u), abs(x) >= 65520.0);
    return select(limited, x, tw_is_nan(x));
}

// Round to a format with `mantissa` bits after the point and normal exponents from `low` up, ties to even.
// What rounds to more than `top` becomes `beyond` with its sign.
fn tw_minifloat(x: f32, mantissa: i32, low: i32, top: f32, beyond: f32, nan: f32) -> f32 {
    let exponent = max(i32((bitcast<u32>(x) >> 23u) & 0xffu) - 127, low);
    let ulp = bitcast<f32>(u32(exponent - mantissa + 127) << 23u);
    let rounded = round(x / ulp) * ulp;
    let limited = select(rounded, select(beyond, -beyond, x < 0.0), abs(rounded) > top);
    return select(limited, nan, tw_is_nan(x));
}

// The power of two at or below |x|; infinities and NaN become NaN.
fn tw_e8m0(x: f32) -> f32 {
    let exponent = bitcast<u32>(x) & 0x7f800000u;
    return tw_bits(select(select(exponent, 0x00400000u, exponent == 0u), 0x7fc00000u, exponent == 0x7f800000u));
}
