
// Functions of 64-bit floats, which Vulkan has none of: series on reduced arguments, to some units in the last place.

// x * 2^k, in steps that a 32-bit exponent holds.
fn tw_scale64(x: f64, k: i32) -> f64 {
    var y = x;
    var rest = clamp(k, -2200, 2200);
    while (rest > 126) {
        y *= 8.507059173023462e+37lf;
        rest -= 126;
    }
    while (rest < -126) {
        y *= 1.1754943508222875e-38lf;
        rest += 126;
    }
    return y * f64(bitcast<f32>(u32(rest + 127) << 23u));
}

// e^x = 2^k e^r with |r| <= ln(2) / 2, by Taylor's series. ln(2) is split so that k times its first part is exact.
fn tw_exp64(x: f64) -> f64 {
    if (x > 709.782712893384lf) {
        return f64(tw_bits(0x7f800000u));
    }
    if (x < -745.2lf) {
        return 0.0lf;
    }
    let k = round(x * 1.4426950408889634lf);
    let r = (x - k * 0.6931471803691238lf) - k * 1.9082149292705877e-10lf;
    var p = 1.6059043836821613e-10lf;
    p = (p * r + 2.08767569878681e-09lf) * r + 2.505210838544172e-08lf;
    p = (p * r + 2.755731922398589e-07lf) * r + 2.7557319223985893e-06lf;
    p = (p * r + 2.48015873015873e-05lf) * r + 0.0001984126984126984lf;
    p = (p * r + 0.001388888888888889lf) * r + 0.008333333333333333lf;
    p = (p * r + 0.041666666666666664lf) * r + 0.16666666666666666lf;
    p = (p * r + 0.5lf) * r + 1.0lf;
    p = p * r + 1.0lf;
    return tw_scale64(p, i32(k));
}

// ln(1 + f) = 2 artanh(s) with s = f / (2 + f), by its series, for 1 / sqrt(2) <= 1 + f <= sqrt(2). 2 s = f - f s.
fn tw_log_near64(f: f64) -> f64 {
    let s = f / (2.0lf + f);
    let t = s * s;
    var p = 0.043478260869565216lf;
    p = (p * t + 0.047619047619047616lf) * t + 0.05263157894736842lf;
    p = (p * t + 0.058823529411764705lf) * t + 0.06666666666666667lf;
    p = (p * t + 0.07692307692307693lf) * t + 0.09090909090909091lf;
    p = (p * t + 0.1111111111111111lf) * t + 0.14285714285714285lf;
    p = (p * t + 0.2lf) * t + 0.3333333333333333lf;
    return f - s * (f - 2.0lf * t * p);
}

// ln(x) = e ln(2) + ln(m) with x = 2^e m and 1 / sqrt(2) <= m <= sqrt(2).
fn tw_log64(x: f64) -> f64 {
    if (tw_is_nan64(x) || x < 0.0lf) {
        return f64(tw_bits(0x7fc00000u));
    }
    if (x == 0.0lf) {
        return f64(tw_bits(0xff800000u));
    }
    if (x > 1.7976931348623157e308lf) {
        return x;
    }
    var m = x;
    var e = 0;
    while (m > 1.2676506002282294e+30lf) {
        m *= 7.888609052210118e-31lf;
        e += 100;
    }
    while (m < 7.888609052210118e-31lf) {
        m *= 1.2676506002282294e+30lf;
        e -= 100;
    }
    let own = i32((bitcast<u32>(f32(m)) >> 23u) & 0xffu) - 127;
    m = tw_scale64(m, -own);
    e += own;
    if (m > 1.4142135623730951lf) {
        m *= 0.5lf;
        e += 1;
    }
    return f64(e) * 0.6931471803691238lf + (tw_log_near64(m - 1.0lf) + f64(e) * 1.9082149292705877e-10lf);
}

// ln(1 + u). Compilers take (1 + u) - 1 for u, so nothing here asks what the sum lost.
fn tw_log1p64(u: f64) -> f64 {
    if (u > -0.29lf && u < 0.41lf) {
        return tw_log_near64(u);
    }
    return tw_log64(1.0lf + u);
}

// sin(r) and cos(r) for |r| <= pi / 4.
fn tw_sin_small64(r: f64) -> f64 {
    let s = r * r;
    var p = 2.8114572543455206e-15lf;
    p = (p * s + -7.647163731819816e-13lf) * s + 1.6059043836821613e-10lf;
    p = (p * s + -2.505210838544172e-08lf) * s + 2.7557319223985893e-06lf;
    p = (p * s + -0.0001984126984126984lf) * s + 0.008333333333333333lf;
    p = p * s + -0.16666666666666666lf;
    return r + r * s * p;
}

fn tw_cos_small64(r: f64) -> f64 {
    let s = r * r;
    var p = -1.5619206968586225e-16lf;
    p = (p * s + 4.779477332387385e-14lf) * s + -1.1470745597729725e-11lf;
    p = (p * s + 2.08767569878681e-09lf) * s + -2.755731922398589e-07lf;
    p = (p * s + 2.48015873015873e-05lf) * s + -0.001388888888888889lf;
    p = (p * s + 0.041666666666666664lf) * s + -0.5lf;
    return 1.0lf + s * p;
}

// Bits 32 i to 32 i + 31 of 2 / pi behind the binary point.
fn tw_two_over_pi(i: i32) -> u32 {
    var words = array<u32, 38>(
        0xa2f9836eu, 0x4e441529u, 0xfc2757d1u, 0xf534ddc0u, 0xdb629599u, 0x3c439041u, 0xfe5163abu, 0xdebbc561u,
        0xb7246e3au, 0x424dd2e0u, 0x06492eeau, 0x09d1921cu, 0xfe1deb1cu, 0xb129a73eu, 0xe88235f5u, 0x2ebb4484u,
        0xe99c7026u, 0xb45f7e41u, 0x3991d639u, 0x835339f4u, 0x9c845f8bu, 0xbdf9283bu, 0x1ff897ffu, 0xde05980fu,
        0xef2f118bu, 0x5a0a6d1fu, 0x6d367ecfu, 0x27cb09b7u, 0x4f463f66u, 0x9e5fea2du, 0x7527bac7u, 0xebe5f17bu,
        0x3d0739f7u, 0x8a5292eau, 0x6bfb5fb1u, 0x1f8d5d08u, 0x56033046u, 0xfc7b6babu,
    );
    return select(words[clamp(i, 0, 37)], 0u, i < 0);
}

// x = r + k pi / 2 for finite x >= 0, as (r, k modulo 4), by the method of Payne and Hanek, "Radian reduction for
// trigonometric functions" (1983): x = m 2^e with a whole m of 53 bits, of whose product with 2 / pi multiples of 4 do not
// count. So 192 bits of 2 / pi from bit e - 2 on are multiplied, modulo 2^192: two bits are k, the others the fraction.
fn tw_far_turn_f64(x: f64) -> vec2<f64> {
    let bits = tw_bits_of_f64(x);
    let low = u64(bits.x);
    let high = u64((bits.y & 0xfffffu) | 0x100000u);
    let from_bit = i32(bits.y >> 20u) - 1077 + 1024;
    let shift = u32(from_bit % 32);
    let first = from_bit / 32 - 32;
    let word = u64(0xffffffffu);
    var product = array<u32, 6>();
    var carry = u64(0u);
    var above = u64(0u);
    for (var i = 5; i >= 0; i--) {
        let pair = (u64(tw_two_over_pi(first + i)) << 32u) | u64(tw_two_over_pi(first + i + 1));
        let here = (pair >> (32u - shift)) & word;
        let a = here * low;
        let b = above * high;
        let sum = (a & word) + (b & word) + carry;
        product[i] = u32(sum & word);
        carry = (a >> 32u) + (b >> 32u) + (sum >> 32u);
        above = here;
    }
    let top = product[0];
    // A fraction above a half is taken from the next quarter turn.
    let is_over = (top & 0x20000000u) != 0u;
    let flip = select(0u, 0xffffffffu, is_over);
    var fraction = 0.0lf;
    for (var i = 5; i > 0; i--) {
        fraction = (fraction + f64(product[i] ^ flip)) * 2.3283064365386963e-10lf;
    }
    fraction = (fraction + f64((top ^ flip) & 0x3fffffffu)) * 9.313225746154785e-10lf;
    let r = fraction * 1.5707963267948966lf;
    return vec2<f64>(select(r, -r, is_over), f64((top >> 30u) + select(0u, 1u, is_over)));
}

// x = r + k pi / 2 with |r| <= pi / 4, as (r, k). Up to 10^6, pi / 2 is taken off in three parts, which is exact.
fn tw_turn64(x: f64) -> vec2<f64> {
    let z = abs(x);
    if (z > 1e6lf && z <= 1.7976931348623157e308lf) {
        let turn = tw_far_turn_f64(z);
        return select(turn, -turn, x < 0.0lf);
    }
    let k = round(x * 0.6366197723675814lf);
    return vec2<f64>(((x - k * 1.5707963267341256lf) - k * 6.077100506303966e-11lf) - k * 2.0222662487959506e-21lf, k);
}

// sin(x + quarter * pi / 2).
fn tw_sine64(x: f64, quarter: i32) -> f64 {
    let reduced = tw_turn64(x);
    let turn = i32(reduced.y - 4.0lf * floor(reduced.y * 0.25lf)) + quarter;
    let y = select(tw_sin_small64(reduced.x), tw_cos_small64(reduced.x), (turn & 1) == 1);
    return select(y, -y, (turn & 2) == 2);
}

fn tw_sin64(x: f64) -> f64 {
    return tw_sine64(x, 0);
}

fn tw_cos64(x: f64) -> f64 {
    return tw_sine64(x, 1);
}

fn tw_tan64(x: f64) -> f64 {
    return tw_sine64(x, 0) / tw_sine64(x, 1);
}

// The angle is halved twice, to less than 0.2, for the series; above 1, it is that of 1 / x from pi / 2.
fn tw_atan64(x: f64) -> f64 {
    let z = abs(x);
    let w = select(z, 1.0lf / z, z > 1.0lf);
    let half = w / (1.0lf + sqrt(1.0lf + w * w));
    let v = half / (1.0lf + sqrt(1.0lf + half * half));
    let s = v * v;
    var p = -0.037037037037037035lf;
    p = (p * s + 0.04lf) * s + -0.043478260869565216lf;
    p = (p * s + 0.047619047619047616lf) * s + -0.05263157894736842lf;
    p = (p * s + 0.058823529411764705lf) * s + -0.06666666666666667lf;
    p = (p * s + 0.07692307692307693lf) * s + -0.09090909090909091lf;
    p = (p * s + 0.1111111111111111lf) * s + -0.14285714285714285lf;
    p = (p * s + 0.2lf) * s + -0.3333333333333333lf;
    let angle = 4.0lf * (v + v * s * p);
    let y = select(angle, 1.5707963267948966lf - angle, z > 1.0lf);
    return select(y, -y, x < 0.0lf);
}

fn tw_asin64(x: f64) -> f64 {
    let y = tw_atan64(x / sqrt((1.0lf - x) * (1.0lf + x)));
    return select(y, sign(x) * 1.5707963267948966lf, abs(x) == 1.0lf);
}

fn tw_acos64(x: f64) -> f64 {
    let y = 2.0lf * tw_atan64(sqrt((1.0lf - x) / (1.0lf + x)));
    return select(y, 3.141592653589793lf, x == -1.0lf);
}

// Halves of e^(x / 2) squared do not overflow before the result does.
fn tw_cosh64(x: f64) -> f64 {
    let e = tw_exp64(abs(x) * 0.5lf);
    let square = e * e;
    return select(0.5lf * e * e, 0.5lf * (square + 1.0lf / square), abs(x) < 300.0lf);
}

fn tw_sinh64(x: f64) -> f64 {
    let s = x * x;
    if (s < 0.25lf) {
        var p = 2.8114572543455206e-15lf;
        p = (p * s + 7.647163731819816e-13lf) * s + 1.6059043836821613e-10lf;
        p = (p * s + 2.505210838544172e-08lf) * s + 2.7557319223985893e-06lf;
        p = (p * s + 0.0001984126984126984lf) * s + 0.008333333333333333lf;
        p = p * s + 0.16666666666666666lf;
        return x + x * s * p;
    }
    let e = tw_exp64(abs(x) * 0.5lf);
    let square = e * e;
    return sign(x) * select(0.5lf * e * e, 0.5lf * (square - 1.0lf / square), abs(x) < 300.0lf);
}

fn tw_tanh64(x: f64) -> f64 {
    if (abs(x) < 0.5lf) {
        return tw_sinh64(x) / tw_cosh64(x);
    }
    return sign(x) * (1.0lf - 2.0lf / (tw_exp64(2.0lf * abs(x)) + 1.0lf));
}

fn tw_asinh64(x: f64) -> f64 {
    let z = abs(x);
    let y = tw_log1p64(z + z * z / (1.0lf + sqrt(1.0lf + z * z)));
    return sign(x) * select(y, tw_log64(z) + 0.6931471805599453lf, z > 1e150lf);
}

fn tw_acosh64(x: f64) -> f64 {
    let t = x - 1.0lf;
    let y = tw_log1p64(t + sqrt(2.0lf * t + t * t));
    return select(y, tw_log64(x) + 0.6931471805599453lf, x > 1e150lf);
}

fn tw_atanh64(x: f64) -> f64 {
    let z = abs(x);
    return sign(x) * 0.5lf * tw_log1p64(2.0lf * z / (1.0lf - z));
}

// erf(x) = 2 / sqrt(pi) * e^(-x^2) * (x + 2 x^3 / 3 + 4 x^5 / 15 + ..) up to 3; above, 1 less the continued fraction of
// its complement.
fn tw_erf64(x: f64) -> f64 {
    let z = abs(x);
    if (z > 6.0lf) {
        return sign(x);
    }
    let scale = tw_exp64(-z * z) * 1.1283791670955126lf;
    if (z <= 3.0lf) {
        var term = z;
        var sum = z;
        for (var n = 1; n < 60; n++) {
            term *= 2.0lf * z * z / f64(2 * n + 1);
            sum += term;
        }
        return sign(x) * scale * sum;
    }
    var fraction = z;
    for (var n = 40; n > 0; n--) {
        fraction = z + 0.5lf * f64(n) / fraction;
    }
    return sign(x) * (1.0lf - 0.5lf * scale / fraction);
}

// x^y with C's rules for negative and zero bases. The error is that of y ln(x) times its size: to 10^-13 at the ends.
fn tw_pow64(x: f64, y: f64) -> f64 {
    if (y == 0.0lf) {
        return 1.0lf;
    }
    if (x == 0.0lf) {
        return select(0.0lf, f64(tw_bits(0x7f800000u)), y < 0.0lf);
    }
    let p = tw_exp64(y * tw_log64(abs(x)));
    if (x > 0.0lf) {
        return p;
    }
    if (y != trunc(y)) {
        return f64(tw_bits(0x7fc00000u));
    }
    return select(p, -p, abs(y - 2.0lf * trunc(y * 0.5lf)) == 1.0lf);
}
