
// 64-bit integers as two words, the low one first: WGSL has none. Signed ones are in two's complement, so that
// sums and products are the same for both. Shift counts of 64 or more shift everything out.

fn tw_wide(x: i32) -> vec2<u32> {
    return vec2<u32>(u32(x), u32(x >> 31u));
}

fn tw_add64(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
    let low = a.x + b.x;
    return vec2<u32>(low, a.y + b.y + select(0u, 1u, low < a.x));
}

fn tw_sub64(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
    return vec2<u32>(a.x - b.x, a.y - b.y - select(0u, 1u, a.x < b.x));
}

fn tw_neg64(a: vec2<u32>) -> vec2<u32> {
    return tw_sub64(vec2<u32>(), a);
}

fn tw_abs64(a: vec2<u32>) -> vec2<u32> {
    return select(a, tw_neg64(a), i32(a.y) < 0);
}

fn tw_sign64(a: vec2<u32>) -> vec2<u32> {
    let positive = select(vec2<u32>(1u, 0u), vec2<u32>(), all(a == vec2<u32>()));
    return select(positive, vec2<u32>(0xffffffffu), i32(a.y) < 0);
}

// The low 64 bits of the product. The product of the low words goes by halves of 16 bits.
fn tw_mul64(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
    let a0 = a.x & 0xffffu;
    let a1 = a.x >> 16u;
    let b0 = b.x & 0xffffu;
    let b1 = b.x >> 16u;
    let middle = a1 * b0 + ((a0 * b0) >> 16u);
    let other = a0 * b1 + (middle & 0xffffu);
    let high = a1 * b1 + (middle >> 16u) + (other >> 16u);
    return vec2<u32>(a.x * b.x, high + a.x * b.y + a.y * b.x);
}

fn tw_ult64(a: vec2<u32>, b: vec2<u32>) -> bool {
    return a.y < b.y || (a.y == b.y && a.x < b.x);
}

fn tw_ilt64(a: vec2<u32>, b: vec2<u32>) -> bool {
    return i32(a.y) < i32(b.y) || (a.y == b.y && a.x < b.x);
}

fn tw_ule64(a: vec2<u32>, b: vec2<u32>) -> bool {
    return !tw_ult64(b, a);
}

fn tw_umin64(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
    return select(a, b, tw_ult64(b, a));
}

fn tw_umax64(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
    return select(a, b, tw_ult64(a, b));
}

fn tw_ile64(a: vec2<u32>, b: vec2<u32>) -> bool {
    return !tw_ilt64(b, a);
}

fn tw_imin64(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
    return select(a, b, tw_ilt64(b, a));
}

fn tw_imax64(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
    return select(a, b, tw_ilt64(a, b));
}

fn tw_shl64(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
    let n = b.x & 31u;
    let carried = select(a.x >> ((32u - n) & 31u), 0u, n == 0u);
    let short = vec2<u32>(a.x << n, (a.y << n) | carried);
    let long = select(short, vec2<u32>(0u, a.x << n), b.x >= 32u);
    return select(long, vec2<u32>(), b.x >= 64u || b.y > 0u);
}

// `fill` are the bits that come in from above: all zeros or all ones.
fn tw_shift_right64(a: vec2<u32>, b: vec2<u32>, fill: u32) -> vec2<u32> {
    let n = b.x & 31u;
    let up = (32u - n) & 31u;
    let high = (a.y >> n) | select(fill << up, 0u, n == 0u);
    let short = vec2<u32>((a.x >> n) | select(a.y << up, 0u, n == 0u), high);
    let long = select(short, vec2<u32>(high, fill), b.x >= 32u);
    return select(long, vec2<u32>(fill), b.x >= 64u || b.y > 0u);
}

fn tw_shr64(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
    return tw_shift_right64(a, b, 0u);
}

fn tw_sar64(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
    return tw_shift_right64(a, b, u32(i32(a.y) >> 31u));
}

// Quotient in xy, remainder in zw, bit by bit; the divisor is not zero.
fn tw_divide64(a: vec2<u32>, b: vec2<u32>) -> vec4<u32> {
    if ((a.y | b.y) == 0u) {
        return vec4<u32>(a.x / b.x, 0u, a.x % b.x, 0u);
    }
    var quotient = vec2<u32>();
    var rest = vec2<u32>();
    for (var i = 63; i >= 0; i--) {
        let word = select(a.x, a.y, i >= 32);
        let over = rest.y >> 31u;
        rest = vec2<u32>((rest.x << 1u) | ((word >> u32(i & 31)) & 1u), (rest.y << 1u) | (rest.x >> 31u));
        let bit = over == 1u || !tw_ult64(rest, b);
        rest = select(rest, tw_sub64(rest, b), bit);
        let carried = vec2<u32>(quotient.x << 1u, (quotient.y << 1u) | (quotient.x >> 31u));
        quotient = select(carried, carried | vec2<u32>(1u, 0u), bit);
    }
    return vec4<u32>(quotient, rest);
}

// A zero divisor gives the dividend, and no remainder, as for the 32-bit integers.
fn tw_udiv64(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
    if (all(b == vec2<u32>())) {
        return a;
    }
    return tw_divide64(a, b).xy;
}

fn tw_urem64(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
    if (all(b == vec2<u32>())) {
        return vec2<u32>();
    }
    return tw_divide64(a, b).zw;
}

fn tw_idiv64(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
    if (all(b == vec2<u32>())) {
        return a;
    }
    let quotient = tw_udiv64(tw_abs64(a), tw_abs64(b));
    return select(quotient, tw_neg64(quotient), i32(a.y ^ b.y) < 0);
}

fn tw_irem64(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
    let rest = tw_urem64(tw_abs64(a), tw_abs64(b));
    return select(rest, tw_neg64(rest), i32(a.y) < 0);
}

// The remainder with the divisor's sign.
fn tw_imod64(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
    let rest = tw_irem64(a, b);
    return select(rest, tw_add64(rest, b), any(rest != vec2<u32>()) && i32(rest.y ^ b.y) < 0);
}

fn tw_upow64(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
    var result = vec2<u32>(1u, 0u);
    var base = a;
    var rest = b;
    while (any(rest != vec2<u32>())) {
        if ((rest.x & 1u) == 1u) {
            result = tw_mul64(result, base);
        }
        base = tw_mul64(base, base);
        rest = vec2<u32>((rest.x >> 1u) | (rest.y << 31u), rest.y >> 1u);
    }
    return result;
}

// A negative exponent leaves 0, but for the bases 1 and -1.
fn tw_ipow64(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
    if (i32(b.y) >= 0) {
        return tw_upow64(a, b);
    }
    let one = all(a == vec2<u32>(1u, 0u));
    let minus_one = all(a == vec2<u32>(0xffffffffu));
    let even = (b.x & 1u) == 0u;
    return select(select(vec2<u32>(), a, minus_one), vec2<u32>(1u, 0u), one || (minus_one && even));
}

// Rounded once: what lies below the top 32 bits only says whether it is zero.
fn tw_f32_of_u64(a: vec2<u32>) -> f32 {
    if (a.y == 0u) {
        return f32(a.x);
    }
    let free = countLeadingZeros(a.y);
    let top = tw_shl64(a, vec2<u32>(free, 0u));
    return ldexp(f32(top.y | select(0u, 1u, top.x != 0u)), 32 - i32(free));
}

fn tw_f32_of_i64(a: vec2<u32>) -> f32 {
    let size = tw_f32_of_u64(tw_abs64(a));
    return select(size, -size, i32(a.y) < 0);
}

// Truncated; NaN gives 0, what is too large or negative the nearest number there is.
fn tw_u64_of_f32(x: f32) -> vec2<u32> {
    if (!(x >= 1.0)) {
        return vec2<u32>();
    }
    if (x >= 18446744073709551616.0) {
        return vec2<u32>(0xffffffffu);
    }
    let whole = trunc(x);
    let high = floor(whole / 4294967296.0);
    return vec2<u32>(u32(whole - high * 4294967296.0), u32(high));
}

fn tw_i64_of_f32(x: f32) -> vec2<u32> {
    let size = tw_u64_of_f32(abs(x));
    if (i32(size.y) < 0) {
        return select(vec2<u32>(0xffffffffu, 0x7fffffffu), vec2<u32>(0u, 0x80000000u), x < 0.0);
    }
    return select(size, tw_neg64(size), x < 0.0);
}
