//! Random operators on the device: each number is the one that Philox2x32-10 gives for its place and the seed, as
//! computed here in plain 64-bit integers. (`src/ops/random.rs` has the generator's published answers.)

mod support;

use support::net::{Net, float, int};
use tilewright::{DType, Tensor};

const SEED: f32 = 5.0;

/// The two words for element `place` under `key`.
fn philox(place: u32, mut key: u32) -> [u32; 2] {
    let (mut low, mut high) = (place, 0);
    for _ in 0..10 {
        let product = u64::from(low) * 0xD256_D193;
        (low, high) = ((product >> 32) as u32 ^ key ^ high, product as u32);
        key = key.wrapping_add(0x9E37_79B9);
    }
    [low, high]
}

/// A word as a multiple of 2^-24 in 0..1.
fn unit(word: u32) -> f64 {
    f64::from(word >> 8) / 16_777_216.0
}

/// The uniform numbers of the elements of a tensor.
fn uniform(len: usize, key: u32) -> impl Iterator<Item = f64> {
    (0..len as u32).map(move |place| unit(philox(place, key)[0]))
}

/// The shape of the input where the model says `dims`, symbols among them.
const SHAPES: &[(&str, &[usize])] =
    &[("10", &[10]), ("30 40", &[30, 40]), ("n", &[70_000]), ("n m", &[13, 17])];

#[test]
fn numbers_are_those_of_the_generator() {
    if support::skip_gpu("random operators") {
        return;
    }
    let key = SEED.to_bits();
    for (dims, shape) in SHAPES {
        let len: usize = shape.iter().product();
        let chances: Vec<f32> = (0..len).map(|i| (i % 101) as f32 / 100.0).collect();
        let x = Tensor::from_slice(shape, &chances).unwrap();
        let run = |op: &str, output: DType| {
            let net = Net::new().input("x", DType::F32, dims).node(op, "x", "y", &[float("seed", SEED)]);
            let outputs = net.output("y", output).session().unwrap().run(&[("x", &x)]).unwrap();
            let y = outputs["y"].to_vec::<f32>().unwrap();
            assert_eq!(y.len(), len);
            y
        };
        let drawn = run("RandomUniformLike", DType::F32);
        assert!(drawn.iter().copied().map(f64::from).eq(uniform(len, key)), "uniform, {dims}");
        let hits = run("Bernoulli", DType::F32);
        let want = uniform(len, key).zip(&chances).map(|(u, &chance)| f32::from(u < f64::from(chance)));
        assert!(hits.into_iter().eq(want), "Bernoulli, {dims}");
        for (place, y) in run("RandomNormalLike", DType::F32).into_iter().enumerate() {
            let [u, v] = philox(place as u32, key).map(unit);
            let want = (-2.0 * (u + 0.5f64.powi(24)).ln()).sqrt() * (std::f64::consts::TAU * v).cos();
            assert!((f64::from(y) - want).abs() < 1e-4, "normal, {dims} at {place}: {y}, want {want}");
        }
    }
}

#[test]
fn dropout_and_multinomial_draw_by_the_generator() {
    if support::skip_gpu("Dropout and Multinomial") {
        return;
    }
    let x = Tensor::from_slice(&[500], &[1f32; 500]).unwrap();
    let net = Net::new().input("x", DType::F32, "n").scalar("ratio", 0.25);
    let on = Tensor::from_slice(&[], &[true]).unwrap();
    let net = net.weight("on", &on).node("Dropout", "x ratio on", "y", &[int("seed", 7)]);
    let outputs = net.output("y", DType::F32).session().unwrap().run(&[("x", &x)]).unwrap();
    let want = uniform(500, 7).map(|u| if u >= 0.25 { 1.0 / 0.75 } else { 0.0 });
    for (place, (y, want)) in outputs["y"].to_vec::<f32>().unwrap().into_iter().zip(want).enumerate() {
        assert!((f64::from(y) - want).abs() < 1e-6, "{place}: {y}, want {want}");
    }

    // Chances of 1/2, 1/4, 1/4 for one row, whose sums are exact.
    let logs = Tensor::from_slice(&[1, 3], &[0.5f32.ln(), 0.25f32.ln(), 0.25f32.ln()]).unwrap();
    let attributes = [int("sample_size", 400), float("seed", SEED)];
    let net = Net::new().input("x", DType::F32, "1 classes").node("Multinomial", "x", "y", &attributes);
    let outputs = net.output("y", DType::I32).session().unwrap().run(&[("x", &logs)]).unwrap();
    let y = outputs["y"].to_vec::<i32>().unwrap();
    for (place, (y, u)) in y.into_iter().zip(uniform(400, SEED.to_bits())).enumerate() {
        // The sums are rounded: a number next to one of them may go either way.
        let near = [0.5, 0.75].iter().any(|edge| (u - edge).abs() < 1e-6);
        let want = i32::from(u >= 0.5) + i32::from(u >= 0.75);
        assert!(y == want || near, "sample {place} of {u}: {y}, want {want}");
    }
}
