//! Random programs: index arithmetic against plain evaluation, the device against the CPU.
//!
//! Seeds are fixed. `PROPTEST_CASES=1000` looks further.

mod support;

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use support::compare::{Values, values};
use support::net::{Net, int, ints};
use tilewright::expr::{Atom, Idx, flatten, numel, unflatten, vars};
use tilewright::kernel::{Caps, candidates};
use tilewright::wgsl::{Dialect, Target, render_passes};
use tilewright::{DType, Tensor};

/// A runner that tries the same cases every time.
fn runner(cases: u32) -> TestRunner {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|v| v.parse().ok()).unwrap_or(cases);
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 200, ..Config::default() };
    TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha))
}

// ---------------------------------------------------------------------------------------------------------------
// Index expressions

/// What an index expression says, before anything is simplified.
#[derive(Clone, Debug)]
enum Tree {
    Const(i64),
    /// A symbol.
    Sym(usize),
    /// A loop variable.
    Var(usize),
    Add(Box<Tree>, Box<Tree>),
    Mul(Box<Tree>, Box<Tree>),
    /// By a constant, a symbol or a product.
    Div(Box<Tree>, Box<Tree>),
    Rem(Box<Tree>, Box<Tree>),
    Min(Box<Tree>, Box<Tree>),
    Max(Box<Tree>, Box<Tree>),
    /// `extent - 1 - var`, which is no less than zero.
    Reversed(usize),
}

const SYMBOLS: [&str; 3] = ["a", "b", "c"];

/// Extents of the loop variables.
fn extents() -> Vec<Idx> {
    let [a, b, c] = SYMBOLS.map(Idx::sym);
    vec![Idx::from(4i64), Idx::from(6i64), a.clone(), &b * &c, &a * &Idx::from(8i64), Idx::from(1i64)]
}

fn tree() -> impl Strategy<Value = Tree> {
    let variables = extents().len();
    let leaf = prop_oneof![
        1 => (0i64..20).prop_map(Tree::Const),
        2 => (0..SYMBOLS.len()).prop_map(Tree::Sym),
        4 => (0..variables).prop_map(Tree::Var),
        1 => (0..variables).prop_map(Tree::Reversed),
    ];
    let divisor = prop_oneof![
        3 => prop_oneof![Just(1i64), Just(2), Just(3), Just(4), Just(6), Just(8), Just(12), Just(24)].prop_map(Tree::Const),
        2 => (0..SYMBOLS.len()).prop_map(Tree::Sym),
        1 => (0..SYMBOLS.len(), 1i64..5).prop_map(|(s, c)| Tree::Mul(Tree::Sym(s).into(), Tree::Const(c).into())),
        1 => (0..SYMBOLS.len(), 0..SYMBOLS.len())
            .prop_map(|(s, t)| Tree::Mul(Tree::Sym(s).into(), Tree::Sym(t).into())),
        1 => (0..SYMBOLS.len(), 1i64..4).prop_map(|(s, c)| Tree::Add(Tree::Sym(s).into(), Tree::Const(c).into())),
    ];
    let divisor = divisor.boxed();
    leaf.prop_recursive(6, 40, 2, move |inner| {
        let pair = (inner.clone(), inner.clone());
        prop_oneof![
            4 => pair.clone().prop_map(|(x, y)| Tree::Add(x.into(), y.into())),
            3 => (inner.clone(), divisor.clone()).prop_map(|(x, y)| Tree::Mul(x.into(), y.into())),
            3 => (inner.clone(), divisor.clone()).prop_map(|(x, y)| Tree::Div(x.into(), y.into())),
            3 => (inner.clone(), divisor.clone()).prop_map(|(x, y)| Tree::Rem(x.into(), y.into())),
            1 => pair.clone().prop_map(|(x, y)| Tree::Min(x.into(), y.into())),
            1 => pair.prop_map(|(x, y)| Tree::Max(x.into(), y.into())),
        ]
    })
}

impl Tree {
    fn build(&self) -> Idx {
        let one = Idx::from(1i64);
        match self {
            Tree::Const(c) => Idx::from(*c),
            Tree::Sym(s) => Idx::sym(SYMBOLS[*s]),
            Tree::Var(v) => Idx::var(*v as u32, &extents()[*v]),
            Tree::Reversed(v) => &(&extents()[*v] - &one) - &Idx::var(*v as u32, &extents()[*v]),
            Tree::Add(x, y) => &x.build() + &y.build(),
            Tree::Mul(x, y) => &x.build() * &y.build(),
            Tree::Div(x, y) => x.build().div(&y.build()),
            Tree::Rem(x, y) => x.build().rem(&y.build()),
            Tree::Min(x, y) => x.build().smaller(&y.build()),
            Tree::Max(x, y) => x.build().larger(&y.build()),
        }
    }

    fn value(&self, env: &Bound) -> i64 {
        match self {
            Tree::Const(c) => *c,
            Tree::Sym(s) => env.symbols[*s],
            Tree::Var(v) => env.variables[*v],
            Tree::Reversed(v) => env.extents[*v] - 1 - env.variables[*v],
            Tree::Add(x, y) => x.value(env) + y.value(env),
            Tree::Mul(x, y) => x.value(env) * y.value(env),
            Tree::Div(x, y) => x.value(env) / y.value(env),
            Tree::Rem(x, y) => x.value(env) % y.value(env),
            Tree::Min(x, y) => x.value(env).min(y.value(env)),
            Tree::Max(x, y) => x.value(env).max(y.value(env)),
        }
    }
}

/// Values of symbols and variables, each below its extent.
#[derive(Debug)]
struct Bound {
    symbols: Vec<i64>,
    extents: Vec<i64>,
    variables: Vec<i64>,
}

impl Bound {
    fn new(symbols: &[i64], fractions: &[f64]) -> Bound {
        let symbol = |name: &str| SYMBOLS.iter().position(|s| *s == name).map(|s| symbols[s]);
        let size = |idx: &Idx| {
            idx.eval::<()>(&mut |atom| match atom {
                Atom::Sym(name) => symbol(name).ok_or(()),
                _ => Err(()),
            })
        };
        let extents: Vec<i64> = extents().iter().map(|e| size(e).unwrap()).collect();
        let variables =
            extents.iter().zip(fractions).map(|(&e, f)| ((e as f64 * f) as i64).min(e - 1)).collect();
        Bound { symbols: symbols.to_vec(), extents, variables }
    }

    fn eval(&self, idx: &Idx) -> i64 {
        let found = idx.eval::<String>(&mut |atom| match atom {
            Atom::Sym(name) => Ok(self.symbols[SYMBOLS.iter().position(|s| **s == **name).unwrap()]),
            Atom::Var(var) => Ok(self.variables[var.id as usize]),
            other => Err(format!("{other:?}")),
        });
        found.unwrap()
    }
}

fn bound() -> impl Strategy<Value = Bound> {
    (prop::collection::vec(1i64..9, 3), prop::collection::vec(0.0..1.0f64, 6))
        .prop_map(|(s, f)| Bound::new(&s, &f))
}

#[test]
fn simplified_indices_have_the_same_value() {
    let cases = (tree(), prop::collection::vec(bound(), 12));
    let check = |(tree, bounds): (Tree, Vec<Bound>)| {
        let idx = tree.build();
        for env in &bounds {
            prop_assert_eq!(env.eval(&idx), tree.value(env), "{} under {:?}", idx, env);
        }
        Ok(())
    };
    runner(3000).run(&cases, check).unwrap();
}

#[test]
fn claims_about_indices_hold() {
    let cases = (tree(), tree(), prop::collection::vec(bound(), 12));
    let check = |(x, y, bounds): (Tree, Tree, Vec<Bound>)| {
        let (i, j) = (x.build(), y.build());
        for env in &bounds {
            let (a, b) = (x.value(env), y.value(env));
            prop_assert!(a < b || !i.is_below(&j), "{i} < {j}: {a}, {b} under {env:?}");
            prop_assert!(a <= b || !i.is_at_most(&j), "{i} <= {j}: {a}, {b} under {env:?}");
            let difference = &i - &j;
            prop_assert!(a >= b || !difference.is_non_negative(), "{difference} >= 0 under {env:?}");
            prop_assert_eq!(env.eval(&difference), a - b);
        }
        Ok(())
    };
    runner(2000).run(&cases, check).unwrap();
}

#[test]
fn substituted_indices_have_the_same_value() {
    // Variables become trees of other variables, cut to their extents, as when one kernel is folded into another.
    let cases = (tree(), prop::collection::vec(tree(), 6), prop::collection::vec(bound(), 8));
    let check = |(tree, replacements, bounds): (Tree, Vec<Tree>, Vec<Bound>)| {
        let extents = extents();
        let cut = |v: usize| replacements[v].build().rem(&extents[v]);
        let replaced = tree.build().rewrite(&mut |atom| match atom {
            Atom::Var(var) => Some(cut(var.id as usize)),
            _ => None,
        });
        for env in &bounds {
            let variables = (0..extents.len()).map(|v| replacements[v].value(env) % env.extents[v]).collect();
            let inner = Bound { symbols: env.symbols.clone(), extents: env.extents.clone(), variables };
            prop_assert_eq!(env.eval(&replaced), tree.value(&inner), "{} under {:?}", replaced, env);
        }
        Ok(())
    };
    runner(1500).run(&cases, check).unwrap();
}

#[test]
fn flatten_and_unflatten_undo_each_other() {
    let dim = prop_oneof![
        3 => (1i64..9).prop_map(Idx::from),
        2 => (0..3usize).prop_map(|s| Idx::sym(SYMBOLS[s])),
        1 => (0..3usize, 2i64..5).prop_map(|(s, c)| &Idx::sym(SYMBOLS[s]) * &Idx::from(c)),
    ];
    let check = |shape: Vec<Idx>| {
        let at = vars(0, &shape);
        let offset = flatten(&at, &shape);
        prop_assert_eq!(&unflatten(&offset, &shape), &at, "of {:?}", shape);
        let flat = Idx::var(99, &numel(&shape));
        prop_assert_eq!(flatten(&unflatten(&flat, &shape), &shape), flat, "of {:?}", shape);
        Ok(())
    };
    runner(500).run(&prop::collection::vec(dim, 0..5), check).unwrap();
}

// ---------------------------------------------------------------------------------------------------------------
// Programs

/// A value of a program being made, with what is known of its elements.
#[derive(Clone, Debug)]
struct Known {
    name: String,
    dtype: DType,
    shape: Vec<usize>,
    /// No element is larger than this, except infinities that both sides agree on.
    bound: f64,
    /// How far device and CPU may be apart: the errors of the operations so far, summed up.
    error: f64,
}

/// The error of rounding once, relative to the value: f16 values are rounded on one side where the other, having
/// folded operations together, does not round.
fn unit(dtype: DType) -> f64 {
    match dtype {
        DType::F16 => 2f64.powi(-10),
        _ => 2f64.powi(-22),
    }
}

/// Dtypes of the programs' inputs.
const DTYPES: [DType; 9] = [
    DType::F32,
    DType::I32,
    DType::U32,
    DType::Bool,
    DType::I64,
    DType::U64,
    DType::F16,
    DType::I8,
    DType::U8,
];

/// Choices are numbers drawn beforehand; each is taken modulo what there is to choose from.
struct Choices<'a> {
    numbers: &'a [u32],
    next: usize,
}

impl Choices<'_> {
    fn below(&mut self, n: usize) -> usize {
        let number = self.numbers[self.next % self.numbers.len()]
            .wrapping_add((self.next / self.numbers.len()) as u32);
        self.next += 1;
        number as usize % n.max(1)
    }

    fn of<'b, T>(&mut self, all: &'b [T]) -> &'b T {
        &all[self.below(all.len())]
    }
}

/// A model with its inputs.
struct Program {
    net: Net,
    inputs: Vec<(String, Tensor)>,
    pool: Vec<Known>,
    outputs: Vec<Known>,
    symbolic: bool,
    steps: Vec<String>,
}

/// Largest magnitude that floats are let grow to.
fn ceiling(dtype: DType) -> f64 {
    match dtype {
        DType::F16 => 2000.0,
        DType::F32 => 1e12,
        _ => f64::INFINITY,
    }
}

fn is_float(dtype: DType) -> bool {
    matches!(dtype, DType::F32 | DType::F16)
}

impl Program {
    fn make(numbers: &[u32]) -> Program {
        let mut choices = Choices { numbers, next: 0 };
        let symbolic = choices.below(2) == 1;
        let mut program = Program {
            net: Net::new(),
            inputs: vec![],
            pool: vec![],
            outputs: vec![],
            symbolic,
            steps: vec![],
        };
        // Few sizes, so that shapes meet; an axis of zero now and then.
        let sets: [&[usize]; 4] = [&[1, 3, 4], &[1, 2, 5, 7], &[1, 8, 16], &[2, 3, 33]];
        let sizes = if choices.below(12) == 0 { &[0, 1, 3] } else { *choices.of(&sets) };
        let mut dtype = || if choices.below(3) == 0 { DType::F32 } else { *choices.of(&DTYPES) };
        let dtypes = [dtype(), dtype()];
        for number in 0..2 + choices.below(2) {
            let rank = choices.below(4);
            let shape: Vec<usize> = (0..rank).map(|_| *choices.of(sizes)).collect();
            program.input(number, dtypes[number % 2], shape, choices.below(1000) as u32);
        }
        for _ in 0..3 + choices.below(6) {
            program.step(&mut choices);
        }
        let last = program.pool.len() - 1;
        let mut wanted = vec![last, choices.below(last + 1)];
        wanted.dedup();
        for at in wanted {
            let value = program.pool[at].clone();
            program.net = program.net.clone().output(&value.name, value.dtype);
            program.outputs.push(value);
        }
        program
    }

    fn input(&mut self, number: usize, dtype: DType, shape: Vec<usize>, seed: u32) {
        let name = format!("in{number}");
        let len: usize = shape.iter().product();
        let mut state = seed.wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
        let mut bytes = Vec::new();
        for i in 0..len {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            // Quarters between -2 and 2: exact in every float, and sums of a few of them too.
            let small = (state >> 8) % 17;
            let value = match dtype {
                _ if is_float(dtype) => tilewright::expr::Value::F(small as f64 / 4.0 - 2.0),
                DType::Bool => tilewright::expr::Value::B(small % 2 == 1),
                DType::I32 => tilewright::expr::Value::I(state as i32 as i64),
                DType::U32 => tilewright::expr::Value::I(state as i64),
                // Whole words, small ones, and those near the ends.
                DType::I64 | DType::U64 => tilewright::expr::Value::I(match state & 3 {
                    0 => (state as i64).wrapping_mul(0x1e37_79b9_7f4a_7c15),
                    1 => small as i64 - 8,
                    2 => i64::MAX - small as i64,
                    _ => state as i32 as i64,
                }),
                DType::U8 => tilewright::expr::Value::I((state & 0xff) as i64),
                DType::I8 => tilewright::expr::Value::I(state as i8 as i64),
                _ => tilewright::expr::Value::I(small as i64 - 8),
            };
            assert!(tilewright::expr::write_element(dtype, i, value, &mut bytes));
        }
        let dims: Vec<String> =
            shape.iter().map(|d| if self.symbolic { format!("s{d}") } else { d.to_string() }).collect();
        self.net = self.net.clone().input(&name, dtype, &dims.join(" "));
        self.inputs.push((name.clone(), Tensor::new(dtype, &shape, bytes).unwrap()));
        let bound = if is_float(dtype) { 2.0 } else { 1.0 };
        self.pool.push(Known { name, dtype, shape, bound, error: 0.0 });
    }

    fn add(&mut self, op: &str, inputs: &[&str], attributes: &[support::net::Attribute], mut value: Known) {
        if value.bound > ceiling(value.dtype) || value.shape.iter().product::<usize>() > 4000 {
            return;
        }
        value.name = format!("v{}", self.pool.len());
        self.steps.push(format!(
            "{} = {op}({}) {} {:?}",
            value.name,
            inputs.join(", "),
            value.dtype,
            value.shape
        ));
        self.net = self.net.clone().node(op, &inputs.join(" "), &value.name, attributes);
        self.pool.push(value);
    }

    fn list(&mut self, values: &[i64]) -> String {
        let name = format!("c{}", self.net.0.initializer.len());
        self.net = self.net.clone().list(&name, values);
        name
    }

    fn step(&mut self, choices: &mut Choices) {
        // Recent values are taken more often: chains are longer.
        let len = self.pool.len();
        let at = if choices.below(3) == 0 { choices.below(len) } else { len - 1 - choices.below(len.min(2)) };
        let x = self.pool[at].clone();
        match choices.below(15) {
            0 | 14 => self.unary(x, choices),
            1..=3 => self.binary(x, choices),
            4 => self.cast(x, choices),
            5 => self.compare(x, choices),
            6 => self.transpose(x, choices),
            7 => self.reshape(x, choices),
            8 => self.slice(x, choices),
            9 => self.concat_or_tile(x, choices),
            10 => self.gather_or_pad(x, choices),
            11 => self.reduce(x, choices),
            12 => self.softmax(x, choices),
            _ => self.matmul(x, choices),
        }
    }

    fn unary(&mut self, x: Known, choices: &mut Choices) {
        let u = unit(x.dtype);
        let name = x.name.clone();
        let (op, bound, error) = match x.dtype {
            DType::Bool => ("Not", x.bound, 0.0),
            DType::U32 | DType::U8 => return,
            _ if !is_float(x.dtype) => (*choices.of(&["Neg", "Abs", "Sign"]), x.bound, 0.0),
            _ => match *choices.of(&["Neg", "Abs", "Relu", "Tanh", "Sigmoid", "Erf", "Exp", "Sqrt"]) {
                // 1e-5: what WGSL asks of tanh; exp and erf are made from functions of like precision.
                op @ ("Tanh" | "Sigmoid" | "Erf") => (op, 1.0, 1.2 * x.error + 1e-5 + u),
                "Exp" if x.bound <= 6.0 => {
                    let top = x.bound.exp();
                    ("Exp", top, top * (x.error.exp_m1() + 2e-5 + u))
                }
                // Exact values only: the slope at zero has no bound.
                "Sqrt" if x.error == 0.0 => {
                    self.add("Abs", &[&name], &[], x.clone());
                    let Some(positive) = self.pool.last().map(|v| v.name.clone()) else { return };
                    let root = x.bound.sqrt().max(1.0);
                    return self.add(
                        "Sqrt",
                        &[&positive],
                        &[],
                        Known { bound: root, error: root * (1e-6 + u), ..x },
                    );
                }
                op @ ("Neg" | "Abs" | "Relu") => (op, x.bound, x.error),
                _ => ("Neg", x.bound, x.error),
            },
        };
        self.add(op, &[&name], &[], Known { bound, error, ..x });
    }

    /// A value of the dtype of `x` whose shape broadcasts with it, and the shape of both.
    fn partner(&self, x: &Known, choices: &mut Choices) -> (Known, Vec<usize>) {
        let fits: Vec<(Known, Vec<usize>)> = self
            .pool
            .iter()
            .filter(|y| y.dtype == x.dtype)
            .filter_map(|y| broadcast(&x.shape, &y.shape).map(|shape| (y.clone(), shape)))
            .collect();
        choices.of(&fits).clone()
    }

    fn binary(&mut self, x: Known, choices: &mut Choices) {
        let (y, shape) = self.partner(&x, choices);
        let u = unit(x.dtype);
        let names = [x.name.as_str(), y.name.as_str()];
        if x.dtype == DType::Bool {
            let op = *choices.of(&["And", "Or", "Xor"]);
            return self.add(op, &names, &[], Known { shape, ..x.clone() });
        }
        let (sum, product) = (x.bound + y.bound, x.bound * y.bound);
        let larger = x.bound.max(y.bound);
        let (op, bound, error) = match *choices.of(&["Add", "Sub", "Mul", "Max", "Min", "Div", "Mod"]) {
            op @ ("Add" | "Sub") => (op, sum, x.error + y.error + u * sum),
            op @ ("Max" | "Min") => (op, larger, x.error + y.error),
            // Integers divide by zero alike on both sides. Floats stay away from it.
            op @ ("Div" | "Mod") if !is_float(x.dtype) => (op, x.bound, 0.0),
            _ => ("Mul", product, x.error * y.bound + y.error * x.bound + x.error * y.error + u * product),
        };
        let error = if is_float(x.dtype) { error } else { 0.0 };
        self.add(op, &names, &[], Known { shape, bound, error, ..x.clone() });
    }

    fn cast(&mut self, x: Known, choices: &mut Choices) {
        let to = *choices.of(&DTYPES);
        let from_float = is_float(x.dtype);
        // A float that may be off by a little may become another integer.
        if from_float && (x.error > 0.0 || !x.bound.is_finite()) && !is_float(to) {
            return;
        }
        // Negative floats have no meaning as unsigned integers; large ones beyond a dtype's range neither.
        let unsigned = matches!(to, DType::U8 | DType::U32 | DType::U64);
        if from_float && !is_float(to) && (unsigned || x.bound > 100.0) {
            return;
        }
        let wide = matches!(x.dtype, DType::I32 | DType::U32);
        let range = match x.dtype {
            _ if from_float => x.bound,
            DType::I32 | DType::U32 => 2f64.powi(32),
            DType::I64 | DType::U64 => 2f64.powi(64),
            DType::U8 | DType::I8 => 255.0,
            DType::Bool => 1.0,
            _ => x.bound,
        };
        if is_float(to) && (range > ceiling(to) || (wide && to == DType::F16)) {
            return;
        }
        let error = if is_float(to) { x.error + unit(to) * range } else { 0.0 };
        let bound = if is_float(to) { range } else { 1.0 };
        let name = x.name.clone();
        self.add("Cast", &[&name], &[int("to", to.to_onnx() as i64)], Known { dtype: to, bound, error, ..x });
    }

    fn compare(&mut self, x: Known, choices: &mut Choices) {
        let (y, shape) = self.partner(&x, choices);
        if x.error + y.error > 0.0 || x.dtype == DType::Bool {
            return;
        }
        let op = *choices.of(&["Less", "Greater", "Equal", "LessOrEqual"]);
        let flag =
            Known { dtype: DType::Bool, shape: shape.clone(), bound: 1.0, error: 0.0, name: String::new() };
        self.add(op, &[&x.name, &y.name], &[], flag);
        let Some(flag) = self.pool.last().filter(|v| v.dtype == DType::Bool).cloned() else { return };
        if flag.shape != shape {
            return;
        }
        let value = Known { shape, bound: x.bound.max(y.bound), ..x.clone() };
        self.add("Where", &[&flag.name, &x.name, &y.name], &[], value);
    }

    fn transpose(&mut self, x: Known, choices: &mut Choices) {
        let mut left: Vec<usize> = (0..x.shape.len()).collect();
        let order: Vec<usize> = (0..left.len()).map(|_| left.remove(choices.below(left.len()))).collect();
        let shape = order.iter().map(|&a| x.shape[a]).collect();
        let perm: Vec<i64> = order.iter().map(|&a| a as i64).collect();
        let name = x.name.clone();
        self.add("Transpose", &[&name], &[ints("perm", &perm)], Known { shape, ..x });
    }

    fn reshape(&mut self, x: Known, choices: &mut Choices) {
        let len: usize = x.shape.iter().product();
        if len == 0 {
            return;
        }
        let (mut rest, mut shape) = (len, Vec::new());
        while rest > 1 && shape.len() < 3 {
            let divisors: Vec<usize> = (1..=rest).filter(|d| rest % d == 0).collect();
            let d = *choices.of(&divisors);
            shape.push(d);
            rest /= d;
        }
        shape.push(rest);
        let mut wanted: Vec<i64> = shape.iter().map(|&d| d as i64).collect();
        if choices.below(2) == 0 {
            let guess = choices.below(wanted.len());
            wanted[guess] = -1;
        }
        let (name, list) = (x.name.clone(), self.list(&wanted));
        self.add("Reshape", &[&name, &list], &[], Known { shape, ..x });
    }

    fn slice(&mut self, x: Known, choices: &mut Choices) {
        if x.shape.is_empty() {
            return;
        }
        let axis = choices.below(x.shape.len());
        let d = x.shape[axis] as i64;
        let step = *choices.of(&[1i64, 2, -1, -2, 3]);
        let start = choices.below(d as usize + 3) as i64 - 1;
        let end = if step > 0 { *choices.of(&[d, d - 1, 100, -1]) } else { *choices.of(&[-100, 0, -d - 1]) };
        // As ONNX clamps them.
        let wrap = |v: i64| if v < 0 { v + d } else { v };
        let (low, high) = if step > 0 { (0, d) } else { (-1, d - 1) };
        let first = wrap(start).clamp(if step > 0 { 0 } else { 0.min(d - 1) }, high.max(low));
        let last = wrap(end).clamp(low, high.max(low));
        let count =
            if step > 0 { (last - first + step - 1) / step } else { (first - last - step - 1) / -step };
        let mut shape = x.shape.clone();
        shape[axis] = count.max(0) as usize;
        let lists = [vec![start], vec![end], vec![axis as i64], vec![step]].map(|v| self.list(&v));
        let name = x.name.clone();
        self.add("Slice", &[&name, &lists[0], &lists[1], &lists[2], &lists[3]], &[], Known { shape, ..x });
    }

    fn concat_or_tile(&mut self, x: Known, choices: &mut Choices) {
        if x.shape.is_empty() {
            return;
        }
        let axis = choices.below(x.shape.len());
        let mut shape = x.shape.clone();
        let name = x.name.clone();
        if choices.below(2) == 0 {
            let mut repeats = vec![1i64; shape.len()];
            repeats[axis] = 1 + choices.below(3) as i64;
            shape[axis] *= repeats[axis] as usize;
            let list = self.list(&repeats);
            return self.add("Tile", &[&name, &list], &[], Known { shape, ..x });
        }
        let without = |s: &[usize]| {
            s.iter().enumerate().filter(|(a, _)| *a != axis).map(|(_, &d)| d).collect::<Vec<_>>()
        };
        let fits: Vec<Known> = self
            .pool
            .iter()
            .filter(|y| {
                y.dtype == x.dtype && y.shape.len() == x.shape.len() && without(&y.shape) == without(&x.shape)
            })
            .cloned()
            .collect();
        let y = choices.of(&fits).clone();
        shape[axis] += y.shape[axis];
        let (bound, error) = (x.bound.max(y.bound), x.error.max(y.error));
        self.add(
            "Concat",
            &[&name, &y.name],
            &[int("axis", axis as i64)],
            Known { shape, bound, error, ..x },
        );
    }

    fn gather_or_pad(&mut self, x: Known, choices: &mut Choices) {
        if x.shape.is_empty() {
            return;
        }
        let axis = choices.below(x.shape.len());
        let (d, mut shape, name) = (x.shape[axis] as i64, x.shape.clone(), x.name.clone());
        if choices.below(2) == 0 && d > 0 {
            let count = 1 + choices.below(4);
            let indices: Vec<i64> = (0..count).map(|_| choices.below(2 * d as usize) as i64 - d).collect();
            shape[axis] = count;
            let list = self.list(&indices);
            return self.add("Gather", &[&name, &list], &[int("axis", axis as i64)], Known { shape, ..x });
        }
        if x.dtype == DType::Bool {
            return;
        }
        let rank = shape.len();
        let mut pads = vec![0i64; 2 * rank];
        pads[axis] = choices.below(4) as i64;
        pads[rank + axis] = choices.below(4) as i64 - 1;
        if d + pads[axis] + pads[rank + axis] < 0 {
            return;
        }
        shape[axis] = (d + pads[axis] + pads[rank + axis]) as usize;
        let mode = if d > 4 { *choices.of(&["constant", "edge", "reflect"]) } else { "constant" };
        let list = self.list(&pads);
        self.add("Pad", &[&name, &list], &[support::net::text("mode", mode)], Known { shape, ..x });
    }

    fn reduce(&mut self, x: Known, choices: &mut Choices) {
        let float = is_float(x.dtype);
        if !float && !matches!(x.dtype, DType::I32 | DType::I64 | DType::U32 | DType::U64) {
            return;
        }
        let mut op = *choices.of(&["ReduceSum", "ReduceMax", "ReduceMin", "ReduceMean", "ReduceSumSquare"]);
        let axes: Vec<usize> = (0..x.shape.len()).filter(|_| choices.below(2) == 0).collect();
        let keep = choices.below(2) == 1;
        let count: usize = axes.iter().map(|&a| x.shape[a]).product();
        let n = count as f64;
        let u = unit(x.dtype);
        if count == 0 || (op == "ReduceMean" && !float) {
            op = "ReduceSum";
        }
        let (bound, error) = match op {
            "ReduceSum" => (n * x.bound, n * (x.error + n * u * x.bound)),
            "ReduceMean" => (x.bound, x.error + (n + 2.0) * u * x.bound),
            "ReduceSumSquare" => {
                let square = x.bound * x.bound;
                (n * square, n * (2.0 * x.bound * x.error + x.error * x.error + (n + 1.0) * u * square))
            }
            _ => (x.bound, x.error),
        };
        let error = if float { error } else { 0.0 };
        let mut shape = Vec::new();
        for (a, &d) in x.shape.iter().enumerate() {
            match axes.contains(&a) {
                true if keep => shape.push(1),
                true => {}
                false => shape.push(d),
            }
        }
        // No axes would mean all of them.
        if axes.is_empty() {
            return;
        }
        let list: Vec<i64> = axes.iter().map(|&a| a as i64).collect();
        let (name, list) = (x.name.clone(), self.list(&list));
        self.add(op, &[&name, &list], &[int("keepdims", keep as i64)], Known { shape, bound, error, ..x });
    }

    fn softmax(&mut self, x: Known, choices: &mut Choices) {
        if !is_float(x.dtype) || x.shape.is_empty() || x.bound > 1000.0 {
            return;
        }
        let axis = choices.below(x.shape.len());
        let n = x.shape[axis] as f64;
        let error = (2.0 * x.error).exp_m1() + (n + 4.0) * 2f64.powi(-22) + 4e-5 + 2.0 * unit(x.dtype);
        let name = x.name.clone();
        self.add("Softmax", &[&name], &[int("axis", axis as i64)], Known { bound: 1.0, error, ..x });
    }

    fn matmul(&mut self, x: Known, choices: &mut Choices) {
        let wide = is_float(x.dtype) || matches!(x.dtype, DType::I32 | DType::U32 | DType::I64 | DType::U64);
        if !wide || x.shape.len() < 2 {
            return;
        }
        let k = x.shape[x.shape.len() - 1];
        // A value of the pool that fits, or `x` times itself, turned.
        let fits = |y: &&Known| {
            let rank = y.shape.len();
            y.dtype == x.dtype
                && rank >= 2
                && y.shape[rank - 2] == k
                && broadcast(&x.shape[..x.shape.len() - 2], &y.shape[..rank - 2]).is_some()
        };
        let mut found: Vec<Known> = self.pool.iter().filter(fits).cloned().collect();
        if found.is_empty() || choices.below(3) == 0 {
            let mut order: Vec<i64> = (0..x.shape.len() as i64).collect();
            let last = order.len() - 1;
            order.swap(last, last - 1);
            let shape = order.iter().map(|&a| x.shape[a as usize]).collect();
            let name = x.name.clone();
            self.add("Transpose", &[&name], &[ints("perm", &order)], Known { shape, ..x.clone() });
            found = self.pool.last().into_iter().cloned().collect();
        }
        let y = choices.of(&found).clone();
        if !fits(&&y) {
            return;
        }
        let (a, b) = (&x.shape, &y.shape);
        let mut shape = broadcast(&a[..a.len() - 2], &b[..b.len() - 2]).unwrap_or_default();
        shape.extend([a[a.len() - 2], b[b.len() - 1]]);
        let (n, product, u) = (k as f64, x.bound * y.bound, unit(x.dtype));
        let bound = n * product;
        let error = n * (x.error * y.bound + y.error * x.bound + x.error * y.error + (n + 1.0) * u * product);
        let error = if is_float(x.dtype) { error } else { 0.0 };
        self.add("MatMul", &[&x.name, &y.name], &[], Known { shape, bound, error, ..x.clone() });
    }

    fn describe(&self) -> String {
        let inputs: Vec<String> = self
            .inputs
            .iter()
            .map(|(name, t)| {
                format!(
                    "{name} = {} {:?}{}",
                    t.dtype(),
                    t.shape(),
                    if self.symbolic { " (symbolic)" } else { "" }
                )
            })
            .collect();
        let outputs: Vec<&str> = self.outputs.iter().map(|o| o.name.as_str()).collect();
        format!("{}\n{}\noutputs {}", inputs.join("\n"), self.steps.join("\n"), outputs.join(", "))
    }
}

fn broadcast(a: &[usize], b: &[usize]) -> Option<Vec<usize>> {
    let rank = a.len().max(b.len());
    let at = |s: &[usize], i: usize| if i + s.len() >= rank { s[i + s.len() - rank] } else { 1 };
    (0..rank)
        .map(|i| match (at(a, i), at(b, i)) {
            (x, y) if x == y => Some(x),
            (1, y) => Some(y),
            (x, 1) => Some(x),
            _ => None,
        })
        .collect()
}

/// Integers and bools exactly, floats within the error that the program's operations may make.
fn agrees(got: &Tensor, want: &Tensor, known: &Known) -> Result<(), String> {
    if (got.dtype(), got.shape()) != (want.dtype(), want.shape()) {
        return Err(format!(
            "{}: got {} {:?}, want {} {:?}",
            known.name,
            got.dtype(),
            got.shape(),
            want.dtype(),
            want.shape()
        ));
    }
    if want.shape() != known.shape {
        return Err(format!(
            "{}: shape {:?}, the operators' rules say {:?}",
            known.name,
            want.shape(),
            known.shape
        ));
    }
    let pairs: Vec<(f64, f64)> = match (values(got), values(want)) {
        (Values::Floats(g), Values::Floats(w)) => g.into_iter().zip(w).collect(),
        (Values::Ints(g), Values::Ints(w)) => {
            g.into_iter().zip(w).map(|(g, w)| (g as f64, w as f64)).collect()
        }
        _ => return Err("kinds differ".into()),
    };
    let wrong = pairs.iter().position(|&(g, w)| {
        let off = (g - w).abs();
        !(g == w
            || g.is_nan() && w.is_nan()
            || off.is_finite() && off <= 2.0 * known.error + 1e-7 * known.error.signum())
    });
    match wrong {
        None => Ok(()),
        Some(i) => {
            let (g, w) = pairs[i];
            Err(format!(
                "{} {}: element {i} is {g}, want {w} within {:e}",
                known.name,
                known.dtype,
                2.0 * known.error
            ))
        }
    }
}

fn numbers() -> impl Strategy<Value = Vec<u32>> {
    prop::collection::vec(any::<u32>(), 80)
}

#[test]
fn programs_agree_with_the_cpu() {
    if support::skip_gpu("programs_agree_with_the_cpu") {
        return;
    }
    let check = |numbers: Vec<u32>| {
        let program = Program::make(&numbers);
        let fail = |what: String| TestCaseError::fail(format!("{what}\n{}", program.describe()));
        let tensors: Vec<Tensor> = program.inputs.iter().map(|(_, t)| t.clone()).collect();
        let wanted = program.net.evaluate(&tensors).map_err(|e| fail(format!("on the CPU: {e}")))?;
        let session = program.net.session().map_err(|e| fail(format!("loading: {e}")))?;
        let feeds: Vec<(&str, &Tensor)> = program.inputs.iter().map(|(n, t)| (n.as_str(), t)).collect();
        // Twice: what a run leaves behind must not change the next.
        for turn in ["first", "second"] {
            let outputs = session.run(&feeds).map_err(|e| fail(format!("{turn} run: {e}")))?;
            for ((known, want), (_, got)) in program.outputs.iter().zip(&wanted).zip(outputs.iter()) {
                agrees(got, want, known).map_err(|e| fail(format!("{turn} run: {e}")))?;
            }
        }
        Ok(())
    };
    runner(400).run(&numbers(), check).unwrap();
}

#[test]
fn programs_cover_what_they_should() {
    let mut ops = BTreeMap::<String, usize>::new();
    let mut runner = runner(300);
    for _ in 0..300 {
        let program = Program::make(&numbers().new_tree(&mut runner).unwrap().current());
        program.net.0.node.iter().for_each(|n| *ops.entry(n.op_type.clone()).or_default() += 1);
    }
    for op in [
        "Add",
        "Div",
        "Cast",
        "Where",
        "Transpose",
        "Reshape",
        "Slice",
        "Concat",
        "Tile",
        "Gather",
        "Pad",
        "ReduceSum",
        "ReduceMax",
        "ReduceMean",
        "Softmax",
        "MatMul",
        "Tanh",
        "Exp",
        "Sqrt",
        "And",
    ] {
        assert!(ops.get(op).is_some_and(|&n| n >= 3), "{op}: {ops:?}");
    }
}

#[test]
fn programs_are_planned_and_rendered_alike_every_time() {
    let check = |numbers: Vec<u32>| {
        let program = Program::make(&numbers);
        let text = || {
            let caps = Caps { f16: true, ..Caps::default() };
            let plan = program.net.plan(&caps);
            let mut text = plan.to_string();
            for kernel in &plan.kernels {
                let sizes = vec![3; kernel.spec.params];
                for schedule in candidates(&kernel.spec, &sizes, &caps).iter().take(3) {
                    let target = Target::new(&caps, Dialect::Browser);
                    let passes =
                        render_passes(&kernel.label, &kernel.spec, schedule, &sizes, &caps, target).unwrap();
                    text.extend(passes.into_iter().map(|(_, pass)| pass.shader.source));
                }
            }
            text
        };
        prop_assert_eq!(text(), text());
        Ok(())
    };
    runner(60).run(&numbers(), check).unwrap();
}
