//! Functions of float64 on devices that have it: Vulkan has none of them, `shaders/float64_functions.wgsl` does.
//!
//! Expected values are those of the platform's C library, and for erf of Python's `math.erf`.

mod support;

use support::net::{Attribute, Net, int, ints};
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
    ("Softplus", softplus),
];
const WHOLE: &[Function] = &[("Round", f64::round_ties_even), ("Floor", f64::floor), ("Ceil", f64::ceil)];
const CIRCULAR: &[Function] = &[("Sin", f64::sin), ("Cos", f64::cos), ("Tan", f64::tan)];
const POSITIVE: &[Function] = &[("Log", f64::ln)];
const ABOVE_ONE: &[Function] = &[("Acosh", f64::acosh)];
// Rust's own atanh of negative numbers is off by 16 units.
const WITHIN_ONE: &[Function] =
    &[("Asin", f64::asin), ("Acos", f64::acos), ("Atanh", |x| x.abs().atanh().copysign(x))];

fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

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
    with_attributes(op, inputs, &[])
}

fn with_attributes(op: &str, inputs: &[(&str, &Tensor)], attributes: &[Attribute]) -> Option<Vec<f64>> {
    let names: Vec<&str> = inputs.iter().map(|(name, _)| *name).collect();
    let mut net = Net::new();
    for (name, tensor) in inputs {
        let dims: Vec<String> = tensor.shape().iter().map(ToString::to_string).collect();
        net = net.input(name, tensor.dtype(), &dims.join(" "));
    }
    run(&net.node(op, &names.join(" "), "out", attributes).output("out", DType::F64), inputs)
}

fn run(net: &Net, inputs: &[(&str, &Tensor)]) -> Option<Vec<f64>> {
    output(net, inputs).map(|out| out.to_vec().unwrap())
}

fn output(net: &Net, inputs: &[(&str, &Tensor)]) -> Option<Tensor> {
    let options = tilewright::SessionOptions { allow_f64_as_f32: false, ..support::options() };
    match Session::load(net.bytes(), &options) {
        Ok(session) => {
            let outputs = session.run(inputs).unwrap();
            Some(outputs["out"].clone())
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

/// Halves, and what lies next to them.
fn halves() -> Vec<f64> {
    let even = (-9..10).map(|i| f64::from(i) / 2.0);
    even.flat_map(|x| [x - 1e-9, x.next_down(), x, x.next_up(), x + 1e-9])
        .chain([4503599627370497.5, 1e300])
        .collect()
}

#[test]
fn functions_of_float64_are_those_of_the_c_library() {
    if support::skip_gpu("functions of float64") {
        return;
    }
    let infinite = [f64::INFINITY, f64::NEG_INFINITY, f64::NAN];
    let spans: &[(&[Function], Vec<f64>)] = &[
        (EVERYWHERE, [points(-20.0, 20.0), points(-700.0, 700.0), infinite[..2].to_vec()].concat()),
        (WHOLE, [points(-20.0, 20.0), halves()].concat()),
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

/// Operators that have steps of their own keep float64 throughout: each is compared with its formula.
#[test]
fn operators_of_float64_lose_nothing() {
    if support::skip_gpu("operators of float64") {
        return;
    }
    let number = |i: usize| (i as f64 * 0.7391).sin() + 1.0 / 3.0;
    let made = |shape: &[usize]| {
        let values: Vec<f64> = (0..shape.iter().product()).map(number).collect();
        Tensor::from_slice(shape, &values).unwrap()
    };
    let close = |what: &str, got: Option<Vec<f64>>, want: &[f64]| {
        let Some(got) = got else { return say!("{what} of float64: not run, the device has no float64") };
        assert_eq!(got.len(), want.len(), "{what}");
        for (i, (got, want)) in got.iter().zip(want).enumerate() {
            assert!((got - want).abs() < 1e-14, "{what} at {i}: {got:?}, want {want:?}");
        }
    };

    let x: Vec<f64> = (0..7).map(number).collect();
    let angle = |i: usize, k: usize| -std::f64::consts::TAU * (i * k) as f64 / 7.0;
    let dft = |part: fn(f64) -> f64, k: usize| (0..7).map(|i| x[i] * part(angle(i, k))).sum::<f64>();
    let want: Vec<f64> = (0..7).flat_map(|k| [dft(f64::cos, k), dft(f64::sin, k)]).collect();
    close("DFT", on_device("DFT", &[("x", &made(&[1, 7, 1]))]), &want);

    // A signal of two frames, the second from place 2 on, each of 5 numbers, one side of its spectrum.
    let part = |f: fn(f64) -> f64, frame: usize, k: usize| {
        let angle = |i: usize| -std::f64::consts::TAU * (i * k) as f64 / 5.0;
        (0..5).map(|i| x[frame * 2 + i] * f(angle(i))).sum::<f64>()
    };
    let places = [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)];
    let want: Vec<f64> =
        places.iter().flat_map(|&(t, k)| [part(f64::cos, t, k), part(f64::sin, t, k)]).collect();
    let [step, len] = [2i64, 5].map(|v| Tensor::from_slice(&[], &[v]).unwrap());
    let net = Net::new().input("x", DType::F64, "1 7").weight("step", &step).weight("len", &len);
    let net = net.node("STFT", "x step - len", "out", &[]).output("out", DType::F64);
    let signal = made(&[1, 7]);
    close("STFT", run(&net, &[("x", &signal)]), &want);

    // Roots of whole numbers, made whole again: float32 takes the first for 16,777,216.
    let bases = Tensor::from_slice(&[2], &[16_777_217i32, 1_000_001]).unwrap();
    let exponents = Tensor::from_slice(&[2], &[1.0, 1.5]).unwrap();
    let net = Net::new().input("x", DType::I32, "2").input("y", DType::F64, "2");
    let net = net.node("Pow", "x y", "out", &[]).output("out", DType::I32);
    let got = output(&net, &[("x", &bases), ("y", &exponents)]);
    let want = [16_777_217, 1_000_001f64.powf(1.5) as i32];
    assert!(got.is_none_or(|got| got.to_vec::<i32>().unwrap() == want), "Pow");

    // Rows of one, between whose elements the grid names places, in 0..6.
    let places = [0.1f64, 1.9, 2.5, 4.75, 6.0];
    let grid: Vec<f64> = places.iter().flat_map(|at| [at / 3.0 - 1.0, 0.0]).collect();
    let grid = Tensor::from_slice(&[1, 1, 5, 2], &grid).unwrap();
    let between = |at: f64| {
        let (low, part) = (at.floor() as usize, at.fract());
        x[low] * (1.0 - part) + x.get(low + 1).map_or(0.0, |x| x * part)
    };
    let want = places.map(between);
    let inputs = [("x", &made(&[1, 1, 1, 7])), ("grid", &grid)];
    close("GridSample", with_attributes("GridSample", &inputs, &[int("align_corners", 1)]), &want);

    // One query, three keys of five elements.
    let (keys, values) = (made(&[1, 1, 3, 5]), made(&[1, 1, 3, 2]));
    let product = |k: usize| (0..5).map(|i| number(i) * number(5 * k + i)).sum::<f64>() / 5f64.sqrt();
    let weights = [0, 1, 2].map(|k| product(k).exp());
    let mean =
        |j: usize| (0..3).map(|k| weights[k] * number(2 * k + j)).sum::<f64>() / weights.iter().sum::<f64>();
    let inputs = [("q", &made(&[1, 1, 1, 5])), ("k", &keys), ("v", &values)];
    close("Attention", on_device("Attention", &inputs), &[mean(0), mean(1)]);

    // In float32 the second region's edge of 2.5 less 1e-9 is rounded up.
    let edge = 2.5 - 1e-9;
    let rois = Tensor::from_slice(&[2, 5], &[0.0, 0.0, 0.0, 3.0, 0.0, 0.0, edge, 0.0, 6.0, 0.0]).unwrap();
    let largest = |from: usize| x[from..].iter().copied().fold(f64::MIN, f64::max);
    let want = [x[..4].iter().copied().fold(f64::MIN, f64::max), largest(2)];
    let inputs = [("x", &made(&[1, 1, 1, 7])), ("rois", &rois)];
    close("MaxRoiPool", with_attributes("MaxRoiPool", &inputs, &[ints("pooled_shape", &[1, 1])]), &want);
}
