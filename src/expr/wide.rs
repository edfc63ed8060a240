//! 64-bit integers in WGSL: calls of the functions in `shaders/int64.wgsl`.

use super::scalar::{Binary, Unary};

/// A 64-bit constant.
pub fn literal(value: i64) -> String {
    format!("vec2<u32>({}u, {}u)", value as u32, (value >> 32) as u32)
}

/// The function for `op`, or the text where it takes none.
pub enum Text {
    /// A function of the operands.
    Call(&'static str),
    /// The finished expression.
    Plain(String),
}

/// `op(x)`.
pub fn unary(op: Unary, x: &str, signed: bool) -> Text {
    match op {
        Unary::Neg => Text::Call("tw_neg64"),
        Unary::Abs if signed => Text::Call("tw_abs64"),
        Unary::Sign if signed => Text::Call("tw_sign64"),
        Unary::Sign => {
            Text::Plain(format!("select(vec2<u32>(1u, 0u), vec2<u32>(), all({x} == vec2<u32>()))"))
        }
        Unary::Not => Text::Plain(format!("all({x} == vec2<u32>())")),
        Unary::BitNot => Text::Plain(format!("(~({x}))")),
        Unary::IsNan | Unary::IsPosInf | Unary::IsNegInf => Text::Plain("false".into()),
        Unary::Abs
        | Unary::Floor
        | Unary::Ceil
        | Unary::Round
        | Unary::Trunc
        | Unary::Exp
        | Unary::Log
        | Unary::Sqrt
        | Unary::Sin
        | Unary::Cos
        | Unary::Tan
        | Unary::Asin
        | Unary::Acos
        | Unary::Atan
        | Unary::Sinh
        | Unary::Cosh
        | Unary::Tanh
        | Unary::Asinh
        | Unary::Acosh
        | Unary::Atanh
        | Unary::Erf => Text::Plain(x.into()),
    }
}

/// `op(x, y)`.
pub fn binary(op: Binary, x: &str, y: &str, signed: bool) -> Text {
    let call = |signed_name, unsigned_name| Text::Call(if signed { signed_name } else { unsigned_name });
    let infix = |symbol: &str| Text::Plain(format!("({x} {symbol} {y})"));
    match op {
        Binary::Add => Text::Call("tw_add64"),
        Binary::Sub => Text::Call("tw_sub64"),
        Binary::Mul => Text::Call("tw_mul64"),
        Binary::Div => call("tw_idiv64", "tw_udiv64"),
        Binary::Rem => call("tw_irem64", "tw_urem64"),
        Binary::Mod => call("tw_imod64", "tw_urem64"),
        Binary::Pow => call("tw_ipow64", "tw_upow64"),
        Binary::Min => call("tw_imin64", "tw_umin64"),
        Binary::Max => call("tw_imax64", "tw_umax64"),
        Binary::Eq => Text::Plain(format!("all({x} == {y})")),
        Binary::Lt => call("tw_ilt64", "tw_ult64"),
        Binary::Le => call("tw_ile64", "tw_ule64"),
        Binary::And => Text::Plain(format!("(any({x} != vec2<u32>()) && any({y} != vec2<u32>()))")),
        Binary::Or => Text::Plain(format!("any(({x} | {y}) != vec2<u32>())")),
        Binary::Xor => Text::Plain(format!("(any({x} != vec2<u32>()) != any({y} != vec2<u32>()))")),
        Binary::BitAnd => infix("&"),
        Binary::BitOr => infix("|"),
        Binary::BitXor => infix("^"),
        Binary::Shl => Text::Call("tw_shl64"),
        Binary::Shr => call("tw_sar64", "tw_shr64"),
    }
}
