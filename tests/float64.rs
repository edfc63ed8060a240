//! Functions of float64 on devices that have it: Vulkan has none of them, `shaders/float64_functions.wgsl` does.
//!
//! Expected values are those of the platform's C library, and for erf of Python's `math.erf`.

mod support;

use support::net::Net;
use support::say;
use tilewright::{DType, Error, Session, Tensor};

/// Units in the last place of the wanted value that are let pass.
const UNITS: f64 = 4.0;

/// A function of ONNX, and what it should give.
type Function = (&'static str, fn(f64) -> f64);

const EVERYWHERE: &[Function] = &[
    ("Exp", f64::exp),
    ("Sinh", f64::sinh),
    ("Cosh", f64::cosh),
    ("Tanh", f64::tanh),
    ("Asinh", f64::asinh),
    ("Atan", f64::atan),
];
const CIRCULAR: &[Function] = &[("Sin", f64::sin), ("Cos", f64::cos), ("Tan", f64::tan)];
const POSITIVE: &[Function] = &[("Log", f64::ln)];
const ABOVE_ONE: &[Function] = &[("Acosh", f64::acosh)];
// Rust's own atanh of negative numbers is off by 16 units.
const WITHIN_ONE: &[Function] =
    &[("Asin", f64::asin), ("Acos", f64::acos), ("Atanh", |x| x.abs().atanh().copysign(x))];

#[rustfmt::skip]
const ERF: &[(f64, f64)] = &[
        (-7.0, -1.0),
        (-3.5, -0.9999992569016276),
        (-3.0000001, -0.9999779095169267),
        (-2.9999999, -0.9999779094890761),
        (-1.25, -0.9229001282564582),
        (-0.1, -0.1124629160182849),
        (-1e-09, -1.1283791670955127e-09),
        (0.0, 0.0),
        (1e-300, 1.1283791670955126e-300),
        (0.3, 0.3286267594591274),
        (0.5, 0.5204998778130465),
        (1.0, 0.8427007929497149),
        (2.0, 0.9953222650189527),
        (2.999, 0.9999777698314002),
        (3.001, 0.9999780483390822),
        (4.5, 0.9999999998033839),
        (5.9, 0.9999999999999999),
        (6.1, 1.0),
];

/// `op(x)`, or `None` where the device has no float64, which the session says.
fn on_device(op: &str, inputs: &[(&str, &Tensor)]) -> Option<Vec<f64>> {
    let names: Vec<&str> = inputs.iter().map(|(name, _)| *name).collect();
    let mut net = Net::new();
    for (name, tensor) in inputs {
        net = net.input(name, DType::F64, &tensor.len().to_string());
    }
    let net = net.node(op, &names.join(" "), "out", &[]).output("out", DType::F64);
    let options = tilewright::SessionOptions { allow_f64_as_f32: false, ..support::options() };
    match Session::load(net.bytes(), &options) {
        Ok(session) => {
            let outputs = session.run(inputs).unwrap();
            Some(outputs["out"].to_vec::<f64>().unwrap())
        }
        Err(Error::Unsupported { items }) => {
            assert!(items.iter().any(|item| item.contains("float64")), "{items:?}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// Compare `op` with `want` at `points`; the worst error is returned, in units of the last place.
fn worst(op: &str, points: &[f64], want: &dyn Fn(f64) -> f64, units: f64) -> Option<f64> {
    let got = on_device(op, &[("x", &Tensor::from_slice(&[points.len()], points).unwrap())])?;
    let mut worst = 0f64;
    for (&x, &y) in points.iter().zip(&got) {
        let want = want(x);
        if want.is_nan() || want.is_infinite() || want == 0.0 {
            assert!(y == want || (y.is_nan() && want.is_nan()), "{op}({x:?}) = {y:?}, want {want:?}");
            continue;
        }
        let error = (y - want).abs() / (want.abs() * f64::EPSILON);
        assert!(error <= units, "{op}({x:?}) = {y:?}, want {want:?}: {error:.1} units");
        worst = worst.max(error);
    }
    Some(worst)
}

/// From `low` to `high` by equal steps, and by equal factors from 1e-12 up.
fn points(low: f64, high: f64) -> Vec<f64> {
    let even = (0..=400).map(|i| low + (high - low) * f64::from(i) / 400.0);
    let small = (0..100).map(|i| 1e-12 * 1.3f64.powi(i));
    even.chain(small.filter(|x| (low..=high).contains(x))).collect()
}

/// From 10^5 to the largest number by equal factors, of both signs, and some near multiples of pi / 2.
fn large() -> Vec<f64> {
    let far = (0..700).map(|i| (1e5 * 2.7f64.powi(i)).copysign(if i % 2 == 0 { 1.0 } else { -1.0 }));
    let near = [1e22, 1e300, f64::MAX, 245850922.0, 411557987.0];
    far.take_while(|x| x.is_finite()).chain(near).collect()
}

#[test]
fn functions_of_float64_are_those_of_the_c_library() {
    if support::skip_gpu("functions of float64") {
        return;
    }
    let infinite = [f64::INFINITY, f64::NEG_INFINITY, f64::NAN];
    let spans: &[(&[Function], Vec<f64>)] = &[
        (EVERYWHERE, [points(-20.0, 20.0), points(-700.0, 700.0), infinite[..2].to_vec()].concat()),
        (CIRCULAR, [points(-6.0, 6.0), points(-1e5, 1e5), large(), infinite.to_vec()].concat()),
        (POSITIVE, [points(0.0, 3.0), points(1e-300, 1e300), vec![f64::INFINITY, -1.0]].concat()),
        (ABOVE_ONE, [points(1.0, 3.0), points(1.0, 1e9), vec![f64::INFINITY, 0.5]].concat()),
        (WITHIN_ONE, [points(-1.0, 1.0), vec![1.5]].concat()),
    ];
    let mut table = String::new();
    for (functions, points) in spans {
        for (op, want) in *functions {
            let Some(worst) = worst(op, points, want, UNITS) else {
                return say!("functions of float64: not run, the device has no float64");
            };
            table += &format!(" {op} {worst:.1}");
        }
    }
    // Of all doubles the one closest to an odd multiple of pi / 2, by exact arithmetic: C libraries differ here.
    worst("Cos", &[5.319372648326541e255], &|_| -4.687165924254628e-19, UNITS);
    say!("functions of float64, worst error in units in the last place:{table}");
}

#[test]
fn erf_and_pow_of_float64() {
    if support::skip_gpu("erf and pow of float64") {
        return;
    }
    let arguments: Vec<f64> = ERF.iter().map(|(x, _)| *x).collect();
    let want = |x: f64| ERF.iter().find(|(at, _)| *at == x).expect("listed").1;
    worst("Erf", &arguments, &want, UNITS);

    let bases = [0.5, 1.0, 1.5, 3.0, 10.0, -2.0, -3.0, 0.0, 1e-5, 1e5];
    let exponents = [-7.0, -1.0, 0.0, 0.25, 1.0, 3.0, 9.5, 20.0];
    let pairs: Vec<(f64, f64)> = bases.iter().flat_map(|&b| exponents.iter().map(move |&e| (b, e))).collect();
    let column = |f: fn(&(f64, f64)) -> f64| {
        Tensor::from_slice(&[pairs.len()], &pairs.iter().map(f).collect::<Vec<_>>()).unwrap()
    };
    let (x, y) = (column(|p| p.0), column(|p| p.1));
    let Some(got) = on_device("Pow", &[("x", &x), ("y", &y)]) else { return };
    for ((base, exponent), got) in pairs.iter().zip(got) {
        let want = base.powf(*exponent);
        let agree =
            got == want || (got.is_nan() && want.is_nan()) || (got - want).abs() <= 1e-13 * want.abs();
        assert!(agree, "{base:?} ^ {exponent:?} = {got:?}, want {want:?}");
    }
}
