//! Search by meaning: embed a few hundred sentences on the GPU, then rank them against questions.
//!
//! `make demo` builds the model and runs this with its own questions; ask another with
//! `cargo run --release --example semantic_search -- "how do plants eat?"`.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Instant;

use tilewright::{Session, SessionOptions, Tensor};
use tokenizers::{PaddingParams, PaddingStrategy, Tokenizer, TruncationParams};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const SENTENCES: &str = include_str!("data/sentences.txt");
const QUESTIONS: [&str; 4] = [
    "how do plants get their food?",
    "I cannot log into my account",
    "borrowing money has become more expensive",
    "a pet having a nap",
];
const BATCH: usize = 16;
const SHOWN: usize = 5;

/// Text to vectors: a tokenizer and the network behind it.
struct Encoder {
    tokenizer: Tokenizer,
    session: Session,
}

impl Encoder {
    fn load() -> Result<Encoder> {
        let session = Session::load(demo_file("minilm.onnx")?, &SessionOptions::default())?;
        let mut tokenizer = Tokenizer::from_file(demo_file("tokenizer.json")?)?;
        tokenizer.with_padding(Some(PaddingParams {
            strategy: PaddingStrategy::BatchLongest,
            ..Default::default()
        }));
        tokenizer.with_truncation(Some(TruncationParams { max_length: 256, ..Default::default() }))?;
        Ok(Encoder { tokenizer, session })
    }

    /// A vector of length 1 for each text, and the number of tokens.
    fn embed(&self, texts: &[&str]) -> Result<(Vec<Vec<f32>>, usize)> {
        let encodings = self.tokenizer.encode_batch(texts.to_vec(), true)?;
        let shape = [texts.len(), encodings[0].len()];
        let tensor = |part: fn(&tokenizers::Encoding) -> &[u32]| {
            let values: Vec<i64> = encodings.iter().flat_map(part).map(|&v| v.into()).collect();
            Tensor::from_slice(&shape, &values)
        };
        let ids = tensor(|e| e.get_ids())?;
        let mask = tensor(|e| e.get_attention_mask())?;
        let types = tensor(|e| e.get_type_ids())?;
        let outputs = self.session.run(&[
            ("input_ids", &ids),
            ("attention_mask", &mask),
            ("token_type_ids", &types),
        ])?;
        let embedding =
            outputs.get("sentence_embedding").ok_or("the model has no output sentence_embedding")?;
        let rows = embedding.to_vec::<f32>()?.chunks(embedding.shape()[1]).map(<[f32]>::to_vec).collect();
        Ok((rows, mask.to_vec::<i64>()?.iter().sum::<i64>() as usize))
    }
}

fn demo_file(name: &str) -> Result<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/demo").join(name);
    if !path.exists() {
        return Err(format!("{} is missing: `make demo` builds it", path.display()).into());
    }
    Ok(path)
}

fn elapsed_ms(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e3
}

/// Cosine of the angle between two vectors of length 1.
fn score(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn main() -> std::process::ExitCode {
    match search() {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("semantic_search: {e}");
            std::process::ExitCode::FAILURE
        }
    }
}

fn search() -> Result<()> {
    let start = Instant::now();
    let encoder = Encoder::load()?;
    let adapter = encoder.session.adapter();
    println!("device    {} ({}, {})", adapter.name, adapter.backend, adapter.driver);
    println!("model     all-MiniLM-L6-v2, loaded in {:.0} ms", elapsed_ms(start));

    let sentences: Vec<&str> = SENTENCES.lines().collect();
    let mut vectors = Vec::new();
    let mut runs = Vec::new(); // milliseconds and tokens of each
    for batch in sentences.chunks(BATCH) {
        let start = Instant::now();
        let (rows, tokens) = encoder.embed(batch)?;
        runs.push((elapsed_ms(start), tokens));
        vectors.extend(rows);
    }
    let (first_ms, later) = (runs[0].0, &runs[1..]);
    let later_ms: f64 = later.iter().map(|run| run.0).sum();
    let later_tokens: usize = later.iter().map(|run| run.1).sum();
    println!(
        "embedded  {} sentences in batches of {BATCH}: first {first_ms:.0} ms, later {:.0} ms each, {:.0} tokens/s",
        sentences.len(),
        later_ms / later.len() as f64,
        later_tokens as f64 / later_ms * 1e3,
    );

    let asked: Vec<String> = std::env::args().skip(1).filter(|text| !text.trim().is_empty()).collect();
    let questions: Vec<&str> =
        if asked.is_empty() { QUESTIONS.to_vec() } else { asked.iter().map(|s| &**s).collect() };
    for question in questions {
        let start = Instant::now();
        let (vector, _) = encoder.embed(&[question])?;
        println!("\n{question}  ({:.0} ms)", elapsed_ms(start));
        let mut ranked: Vec<_> = vectors.iter().map(|v| score(&vector[0], v)).zip(&sentences).collect();
        ranked.sort_by(|a, b| b.0.total_cmp(&a.0));
        for (score, sentence) in ranked.iter().take(SHOWN) {
            println!("  {score:5.2}  {sentence}");
        }
    }
    Ok(())
}
