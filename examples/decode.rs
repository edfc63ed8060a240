//! Greedy decoding by a transformer whose key-value cache stays on the device: the logits of each step come to the
//! host, and nothing else does.
//!
//!     cargo run --release --example decode -- [MODEL.onnx] [TOKENS]
//!
//! The model has inputs `input_ids`, `attention_mask` and `position_ids`, inputs `past_*` of four axes and outputs
//! `logits` and `present_*`, as exporters write them; `make test-data` makes one, target/test-data/models/gpt2_6l.onnx.

use std::time::Instant;

use tilewright::graph::Dim;
use tilewright::{DeviceTensor, Result, Session, SessionOptions, Tensor};

const PROMPT: i64 = 16;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let model = arguments.next().unwrap_or("target/test-data/models/gpt2_6l.onnx".into());
    let count: i64 = arguments.next().and_then(|count| count.parse().ok()).unwrap_or(64);
    let session = Session::load(model.as_str(), &SessionOptions::default())?;
    let names = session.inputs().iter().filter_map(|info| info.name.strip_prefix("past_"));
    let names: Vec<String> = names.map(str::to_owned).collect();

    let mut cache = names.iter().map(|name| empty(&session, name)).collect::<Result<Vec<_>>>()?;
    let (mut tokens, mut past): (Vec<i64>, i64) = ((0..PROMPT).collect(), 0);
    let mut text = Vec::new();
    let mut start = Instant::now();
    for step in 0..=count {
        let (new, all) = (tokens.len(), past + tokens.len() as i64);
        let ids = Tensor::from_slice(&[1, new], &tokens)?;
        let mask = Tensor::from_slice(&[1, all as usize], &vec![1i64; all as usize])?;
        let positions = Tensor::from_slice(&[1, new], &(past..all).collect::<Vec<_>>())?;

        let mut request = session.request().input("input_ids", &ids);
        request = request.input("attention_mask", &mask).input("position_ids", &positions);
        for (name, tensor) in names.iter().zip(cache) {
            request = request.input(format!("past_{name}"), tensor).keep(format!("present_{name}"));
        }
        let mut outputs = request.run()?;
        let present = names.iter().filter_map(|name| outputs.take_kept(&format!("present_{name}")));
        cache = present.collect();

        let logits = outputs["logits"].to_vec::<f32>()?;
        let last = &logits[logits.len() - logits.len() / new..];
        let best = (0..last.len()).max_by(|&a, &b| last[a].total_cmp(&last[b])).unwrap_or(0);
        text.push(best);
        (tokens, past) = (vec![best as i64], all);
        if step == 0 {
            start = Instant::now(); // the prompt is not counted
        }
    }
    println!("{text:?}");
    println!("{:.2} tokens a second", count as f64 / start.elapsed().as_secs_f64());
    Ok(())
}

/// The cache before the first token: what the model declares, with one sequence of no length.
fn empty(session: &Session, name: &str) -> Result<DeviceTensor> {
    let input = session.inputs().iter().find(|info| info.name.strip_prefix("past_") == Some(name));
    let dims = input.and_then(|info| info.shape.clone()).unwrap_or_default();
    let size = |(axis, dim): (usize, &Dim)| match dim {
        Dim::Static(size) => *size,
        Dim::Symbol(_) | Dim::Unknown => usize::from(axis == 0),
    };
    let shape: Vec<usize> = dims.iter().enumerate().map(size).collect();
    session.upload(&Tensor::from_slice(&shape, &[0f32; 0])?)
}
