//! Expressions as WGSL statements: shared parts are named once, costly branches become `if`.

use std::collections::{BTreeSet, HashMap};

use super::convert::{self, wrap};
use super::index::{Atom, Idx};
use super::registers::{Floats, Register};
use super::scalar::{Binary, Const, Expr, Node, Unary};
use super::value::Value;
use super::wide::{self, Text};
use crate::tensor::DType;

/// The text of the scalar functions that printed expressions may call.
#[cfg(not(target_arch = "wasm32"))]
pub const HELPERS: &str = concat!(
    include_str!("../../shaders/scalar.wgsl"),
    include_str!("../../shaders/int64.wgsl"),
    include_str!("../../shaders/float64.wgsl"),
    include_str!("../../shaders/float64_functions.wgsl")
);
/// The text of the scalar functions that printed expressions may call: in a browser, no device has float64.
#[cfg(target_arch = "wasm32")]
pub const HELPERS: &str =
    concat!(include_str!("../../shaders/scalar.wgsl"), include_str!("../../shaders/int64.wgsl"));

/// What the leaves are called in the kernel at hand.
pub trait Names {
    /// A loop variable, as `m` (an `i32`).
    fn var(&self, id: u32) -> String;
    /// A symbolic dimension, as `params.p0` (an `i32`).
    fn symbol(&self, name: &str) -> String;
    /// An element of a tensor at an `i32` offset, converted to the dtype's [`super::device_type`].
    fn load(&self, source: u32, dtype: DType, offset: &str) -> String;
    /// A value that the kernel supplies.
    fn arg(&self, number: u32) -> String;
}

/// Longest expression that is repeated in place rather than named.
const INLINE_CHARS: usize = 60;

/// Prints expressions into a list of statements.
pub struct Printer<'a> {
    names: &'a dyn Names,
    floats: Floats,
    /// Statements so far, indented.
    pub lines: Vec<String>,
    /// Scalar helpers that the statements call.
    pub helpers: BTreeSet<&'static str>,
    known: HashMap<Expr, String>,
    known_idx: HashMap<Idx, String>,
    uses: HashMap<Expr, usize>,
    count: usize,
    indent: usize,
}

impl<'a> Printer<'a> {
    /// A printer for one function body, `indent` levels deep.
    pub fn new(names: &'a dyn Names, floats: Floats, indent: usize) -> Self {
        Printer {
            names,
            floats,
            lines: Vec::new(),
            helpers: BTreeSet::new(),
            known: HashMap::new(),
            known_idx: HashMap::new(),
            uses: HashMap::new(),
            count: 0,
            indent,
        }
    }

    fn register(&self, dtype: DType) -> Register {
        Register::of(dtype, self.floats)
    }

    fn push(&mut self, line: String) {
        self.lines.push(format!("{}{line}", "    ".repeat(self.indent)));
    }

    fn fresh(&mut self) -> String {
        self.count += 1;
        format!("x{}", self.count)
    }

    /// The expression as text; statements it needs are appended first.
    pub fn expr(&mut self, expr: &Expr) -> String {
        self.count_uses(expr);
        self.print(expr)
    }

    fn count_uses(&mut self, expr: &Expr) {
        let count = self.uses.entry(expr.clone()).or_insert(0);
        *count += 1;
        if *count > 1 {
            return;
        }
        match expr.node() {
            Node::Const(_) | Node::Index(..) | Node::Load { .. } | Node::Arg(..) => {}
            Node::Unary(_, a) | Node::Cast(_, a) | Node::Bits(_, a) => self.count_uses(a),
            Node::Binary(_, a, b) => {
                self.count_uses(a);
                self.count_uses(b);
            }
            Node::Select(c, a, b) => {
                self.count_uses(c);
                self.count_uses(a);
                self.count_uses(b);
            }
        }
    }

    fn print(&mut self, expr: &Expr) -> String {
        if let Some(name) = self.known.get(expr) {
            return name.clone();
        }
        let text = match expr.node() {
            Node::Const(c) => return self.constant(c),
            Node::Arg(number, _) => return self.names.arg(*number),
            Node::Index(idx, dtype) => {
                let text = self.idx(idx);
                match self.register(*dtype) {
                    Register::U32 => format!("u32({text})"),
                    Register::I64 | Register::U64 => self.call("tw_wide", &text),
                    Register::Bool | Register::I32 | Register::F32 | Register::F64 => text,
                }
            }
            Node::Load { source, dtype, at } => {
                let offset = at.first().map(|i| self.idx(i)).unwrap_or_else(|| "0".into());
                self.names.load(*source, *dtype, &offset)
            }
            Node::Unary(op, a) => {
                let text = self.print(a);
                self.unary(*op, &text, a.dtype())
            }
            Node::Binary(op, a, b) => self.binary(*op, a, b),
            Node::Select(c, a, b) => return self.select(expr, c, a, b),
            Node::Bits(dtype, a) => {
                let text = self.print(a);
                convert::bits(*dtype, a.dtype(), &text, self.floats, &mut self.helpers)
            }
            Node::Cast(dtype, a) => {
                let text = self.print(a);
                convert::cast(*dtype, a.dtype(), &text, self.floats, &mut self.helpers)
            }
        };
        let uses = self.uses.get(expr).copied().unwrap_or(1);
        let is_load = matches!(expr.node(), Node::Load { .. });
        if uses <= 1 && !is_load && text.len() <= INLINE_CHARS {
            return text;
        }
        self.name(expr, text)
    }

    fn name(&mut self, expr: &Expr, text: String) -> String {
        let name = self.fresh();
        self.push(format!("let {name} = {text};"));
        self.known.insert(expr.clone(), name.clone());
        name
    }

    fn select(&mut self, expr: &Expr, c: &Expr, a: &Expr, b: &Expr) -> String {
        let condition = self.print(c);
        if is_cheap(a) && is_cheap(b) {
            let (a, b) = (self.print(a), self.print(b));
            return self.name(expr, format!("select({b}, {a}, {condition})"));
        }
        // A read beside a constant, as at the border of a window: read element 0 instead of branching. Windows
        // have many of these, and some drivers' compilers take minutes over the branches.
        if is_cheap(b)
            && let Some(a) = self.guarded(a, &condition, true)
        {
            let b = self.print(b);
            return self.name(expr, format!("select({b}, {a}, {condition})"));
        }
        if is_cheap(a)
            && let Some(b) = self.guarded(b, &condition, false)
        {
            let a = self.print(a);
            return self.name(expr, format!("select({b}, {a}, {condition})"));
        }
        let name = self.fresh();
        let ty = self.register(a.dtype()).wgsl();
        self.push(format!("var {name}: {ty};"));
        self.push(format!("if ({condition}) {{"));
        self.branch(&name, a);
        self.push("} else {".into());
        self.branch(&name, b);
        self.push("}".into());
        self.known.insert(expr.clone(), name.clone());
        name
    }

    /// A plain read whose offset is 0 unless `condition` is `wanted`; `None` for anything else.
    fn guarded(&mut self, expr: &Expr, condition: &str, wanted: bool) -> Option<String> {
        let Node::Load { source, dtype, at } = expr.node() else { return None };
        let mut reads = 0;
        expr.visit(&mut |e| reads += matches!(e.node(), Node::Load { .. }) as usize);
        let [offset] = at.as_slice() else { return None };
        if reads > 1 {
            return None;
        }
        let offset = self.idx(offset);
        let guarded = if wanted { format!("0, {offset}") } else { format!("{offset}, 0") };
        Some(self.names.load(*source, *dtype, &format!("select({guarded}, {condition})")))
    }

    /// Assign `expr` to `name` in a scope of its own.
    fn branch(&mut self, name: &str, expr: &Expr) {
        let (known, known_idx) = (self.known.clone(), self.known_idx.clone());
        self.indent += 1;
        let text = self.print(expr);
        self.push(format!("{name} = {text};"));
        self.indent -= 1;
        (self.known, self.known_idx) = (known, known_idx);
    }

    fn constant(&mut self, c: &Const) -> String {
        let value = c.value;
        match self.register(c.dtype) {
            Register::F32 => convert::float_literal(value.to_f64() as f32, &mut self.helpers),
            Register::F64 => convert::wide_float_literal(value.to_f64(), &mut self.helpers),
            Register::I32 => int_literal(value.to_i64()),
            Register::U32 => format!("{}u", value.to_i64() as u32),
            Register::I64 | Register::U64 => wide::literal(value.to_i64()),
            Register::Bool => value.to_bool().to_string(),
        }
    }

    fn call(&mut self, name: &'static str, arguments: &str) -> String {
        self.helpers.insert(name);
        format!("{name}({arguments})")
    }

    fn unary(&mut self, op: Unary, x: &str, dtype: DType) -> String {
        let register = self.register(dtype);
        if let Register::I64 | Register::U64 = register {
            return match wide::unary(op, x, register == Register::I64) {
                Text::Call(name) => self.call(name, x),
                Text::Plain(text) => text,
            };
        }
        if let (Register::F64, Some(name)) = (register, wide_function(op)) {
            return self.call(name, x);
        }
        let ty = register.wgsl();
        let builtin = |name: &str| format!("{name}({x})");
        match (op, ty) {
            (Unary::Not, _) => format!("!({x})"),
            (Unary::BitNot, _) => wrap(dtype, format!("(~({x}))")),
            (Unary::Neg, "u32") => wrap(dtype, format!("(0u - {x})")),
            (Unary::Neg, _) => wrap(dtype, format!("(-({x}))")),
            (Unary::Abs, "u32") => x.into(),
            (Unary::Abs, _) => wrap(dtype, builtin("abs")),
            (Unary::Sign, "u32") => format!("min({x}, 1u)"),
            (Unary::Sign, _) => builtin("sign"),
            (Unary::IsNan, "f32") => self.call("tw_is_nan", x),
            (Unary::IsPosInf, "f32") => self.call("tw_is_inf", &format!("{x}, 0u")),
            (Unary::IsNegInf, "f32") => self.call("tw_is_inf", &format!("{x}, 0x80000000u")),
            (Unary::IsNan, "f64") => self.call("tw_is_nan64", x),
            (Unary::IsPosInf, "f64") => self.call("tw_is_inf64", &format!("{x}, 0u")),
            (Unary::IsNegInf, "f64") => self.call("tw_is_inf64", &format!("{x}, 0x80000000u")),
            (Unary::IsNan | Unary::IsPosInf | Unary::IsNegInf, _) => "false".into(),
            (_, "i32" | "u32" | "bool") => x.into(),
            (Unary::Floor, _) => builtin("floor"),
            (Unary::Ceil, _) => builtin("ceil"),
            (Unary::Round, _) => builtin("round"),
            (Unary::Trunc, _) => builtin("trunc"),
            (Unary::Exp, _) => builtin("exp"),
            (Unary::Log, _) => builtin("log"),
            (Unary::Sqrt, _) => builtin("sqrt"),
            (Unary::Sin, _) => builtin("sin"),
            (Unary::Cos, _) => builtin("cos"),
            (Unary::Tan, _) => builtin("tan"),
            (Unary::Asin, _) => self.call("tw_asin", x),
            (Unary::Acos, _) => self.call("tw_acos", x),
            (Unary::Atan, _) => builtin("atan"),
            (Unary::Sinh, _) => builtin("sinh"),
            (Unary::Cosh, _) => builtin("cosh"),
            (Unary::Tanh, _) => self.call("tw_tanh", x),
            (Unary::Asinh, _) => builtin("asinh"),
            (Unary::Acosh, _) => builtin("acosh"),
            (Unary::Atanh, _) => builtin("atanh"),
            (Unary::Erf, _) => self.call("tw_erf", x),
        }
    }

    fn binary(&mut self, op: Binary, a: &Expr, b: &Expr) -> String {
        let dtype = a.dtype();
        let register = self.register(dtype);
        let ty = register.wgsl();
        let x = self.print(a);
        if let (Binary::Pow, Some(Value::F(exponent))) = (op, b.as_const()) {
            let square = format!("({x} * {x})");
            match exponent {
                2.0 => return square,
                3.0 => return format!("({square} * {x})"),
                0.5 => return format!("sqrt({x})"),
                _ => {}
            }
        }
        let y = self.print(b);
        if let Register::I64 | Register::U64 = register {
            let signed = register == Register::I64;
            return match wide::binary(op, &x, &y, signed) {
                Text::Call(name) => self.call(name, &format!("{x}, {y}")),
                Text::Plain(text) => text,
            };
        }
        let infix = |symbol: &str| format!("({x} {symbol} {y})");
        let width = dtype.bits().min(32);
        let within =
            b.as_idx().is_some_and(|shift| shift.is_non_negative() && shift.is_below(&Idx::from(width)));
        match (op, ty) {
            (Binary::Add | Binary::Or | Binary::BitOr | Binary::Max, "bool") => infix("|"),
            (Binary::Mul | Binary::And | Binary::BitAnd | Binary::Min, "bool") => infix("&"),
            (Binary::Xor | Binary::BitXor | Binary::Sub, "bool") => infix("!="),
            (Binary::Lt, "bool") => format!("(!{x} & {y})"),
            (Binary::Le, "bool") => format!("(!{x} | {y})"),
            (Binary::Add, _) => wrap(dtype, infix("+")),
            (Binary::Sub, _) => wrap(dtype, infix("-")),
            (Binary::Mul, _) => wrap(dtype, infix("*")),
            // -128 / -1 leaves int8.
            (Binary::Div, _) => wrap(dtype, infix("/")),
            (Binary::Rem, "f32") => self.call("tw_frem", &format!("{x}, {y}")),
            (Binary::Rem, "f64") => self.call("tw_frem64", &format!("{x}, {y}")),
            (Binary::Rem, _) => infix("%"),
            (Binary::Mod, "f64") => self.call("tw_fmod64", &format!("{x}, {y}")),
            (Binary::Mod, "i32") => self.call("tw_imod", &format!("{x}, {y}")),
            (Binary::Mod, "f32") => {
                self.helpers.insert("tw_frem");
                self.call("tw_fmod", &format!("{x}, {y}"))
            }
            (Binary::Mod, _) => infix("%"),
            (Binary::Pow, "i32") => wrap(dtype, self.call_text("tw_ipow", &x, &y)),
            (Binary::Pow, "u32") => wrap(dtype, self.call_text("tw_upow", &x, &y)),
            (Binary::Pow, "f64") => self.call_text("tw_pow64", &x, &y),
            (Binary::Pow, _) => self.call("tw_pow", &format!("{x}, {y}")),
            (Binary::Min, _) => format!("min({x}, {y})"),
            (Binary::Max, _) => format!("max({x}, {y})"),
            (Binary::Eq, _) => infix("=="),
            (Binary::Lt, _) => infix("<"),
            (Binary::Le, _) => infix("<="),
            (Binary::And, _) => infix("&&"),
            (Binary::Or, _) => infix("||"),
            (Binary::Xor, _) => infix("!="),
            (Binary::BitAnd, _) => infix("&"),
            (Binary::BitOr, _) => infix("|"),
            (Binary::BitXor, _) => infix("^"),
            (Binary::Shr, "u32") if within => infix(">>"),
            (Binary::Shl, "u32") if within && width == 32 => infix("<<"),
            (Binary::Shl, "i32") => {
                let shifted = self.call("tw_shl", &format!("bitcast<u32>({x}), bitcast<u32>({y}), {width}u"));
                wrap(dtype, format!("bitcast<i32>({shifted})"))
            }
            (Binary::Shl, _) => wrap(dtype, self.call("tw_shl", &format!("{x}, {y}, {width}u"))),
            (Binary::Shr, "i32") => self.call("tw_sar", &format!("{x}, bitcast<u32>({y}), {width}u")),
            (Binary::Shr, _) => self.call("tw_shr", &format!("{x}, {y}, {width}u")),
        }
    }

    fn call_text(&mut self, name: &'static str, x: &str, y: &str) -> String {
        self.call(name, &format!("{x}, {y}"))
    }

    /// An index as an `i32` expression.
    pub fn idx(&mut self, idx: &Idx) -> String {
        if let Some(name) = self.known_idx.get(idx) {
            return name.clone();
        }
        let mut text = String::new();
        let mut constant = 0;
        for (atoms, c) in idx.terms() {
            if atoms.is_empty() {
                constant = *c;
                continue;
            }
            let mut product: Vec<String> = atoms.iter().map(|atom| self.atom(atom)).collect();
            if c.unsigned_abs() != 1 {
                product.push(int_literal(c.abs()));
            }
            let sign = match (*c < 0, text.is_empty()) {
                (false, true) => "",
                (false, false) => " + ",
                (true, true) => "-",
                (true, false) => " - ",
            };
            text.push_str(sign);
            text.push_str(&product.join(" * "));
        }
        match (text.is_empty(), constant) {
            (true, c) => int_literal(c),
            (false, 0) if idx.terms().len() == 1 && !text.contains(' ') && !text.starts_with('-') => text,
            (false, 0) => format!("({text})"),
            (false, c) if c < 0 => format!("({text} - {})", c.unsigned_abs()),
            (false, c) => format!("({text} + {c})"),
        }
    }

    fn atom(&mut self, atom: &Atom) -> String {
        let key = match atom {
            Atom::Sym(name) => return self.names.symbol(name),
            Atom::Var(var) => return self.names.var(var.id),
            Atom::Div(a, b) => (a, b, "/"),
            Atom::Mod(a, b) => (a, b, "%"),
            Atom::Min(a, b) => (a, b, "min"),
            Atom::Max(a, b) => (a, b, "max"),
            Atom::Data(value, extent) => {
                self.count_uses(value);
                let text = self.print(value);
                let text = match self.register(value.dtype()) {
                    Register::I32 => text,
                    // Positions are below 2^31.
                    Register::I64 | Register::U64 => format!("i32({text}.x)"),
                    Register::Bool | Register::U32 | Register::F32 | Register::F64 => format!("i32({text})"),
                };
                let last = self.idx(&(extent - &Idx::from(1i64)));
                return format!("clamp({text}, 0, {last})");
            }
        };
        let whole = match atom {
            Atom::Div(..) | Atom::Mod(..) | Atom::Min(..) | Atom::Max(..) => {
                let (a, b, op) = key;
                let (a, b) = (self.idx(a), self.idx(b));
                if op.len() == 1 { format!("{a} {op} {b}") } else { format!("{op}({a}, {b})") }
            }
            Atom::Sym(_) | Atom::Var(_) | Atom::Data(..) => return String::new(),
        };
        let as_idx = Idx::from_atom(atom);
        if let Some(name) = self.known_idx.get(&as_idx) {
            return name.clone();
        }
        let name = self.fresh();
        self.push(format!("let {name} = {whole};"));
        self.known_idx.insert(as_idx, name.clone());
        name
    }
}

/// What computes a function of 64-bit floats that Vulkan has not, or that its drivers get wrong.
fn wide_function(op: Unary) -> Option<&'static str> {
    match op {
        Unary::Neg
        | Unary::Abs
        | Unary::Sign
        | Unary::Floor
        | Unary::Ceil
        | Unary::Trunc
        | Unary::Sqrt
        | Unary::Not
        | Unary::BitNot
        | Unary::IsNan
        | Unary::IsPosInf
        | Unary::IsNegInf => None,
        Unary::Round => Some("tw_round64"),
        Unary::Exp => Some("tw_exp64"),
        Unary::Log => Some("tw_log64"),
        Unary::Sin => Some("tw_sin64"),
        Unary::Cos => Some("tw_cos64"),
        Unary::Tan => Some("tw_tan64"),
        Unary::Asin => Some("tw_asin64"),
        Unary::Acos => Some("tw_acos64"),
        Unary::Atan => Some("tw_atan64"),
        Unary::Sinh => Some("tw_sinh64"),
        Unary::Cosh => Some("tw_cosh64"),
        Unary::Tanh => Some("tw_tanh64"),
        Unary::Asinh => Some("tw_asinh64"),
        Unary::Acosh => Some("tw_acosh64"),
        Unary::Atanh => Some("tw_atanh64"),
        Unary::Erf => Some("tw_erf64"),
    }
}

/// Whether evaluating it needlessly costs next to nothing and reads nothing.
fn is_cheap(expr: &Expr) -> bool {
    let (mut reads, mut count) = (false, 0);
    expr.visit(&mut |e| {
        reads |= matches!(e.node(), Node::Load { .. });
        count += 1;
    });
    !reads && count <= 8
}

fn int_literal(value: i64) -> String {
    match value {
        _ if value == i32::MIN as i64 => "bitcast<i32>(0x80000000u)".into(),
        ..0 => format!("({value})"),
        _ => value.to_string(),
    }
}
