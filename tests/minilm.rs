//! The demo's sentence encoder with its real weights, from text to embeddings, against ONNX Runtime.

mod support;

use support::compare::{Values, values};
use tilewright::{Session, Tensor};
use tokenizers::{PaddingParams, PaddingStrategy, Tokenizer, TruncationParams};

/// Cosine between an embedding and ONNX Runtime's, at least.
const LEAST_COSINE: f64 = 0.99999;

fn demo_file(name: &str) -> std::path::PathBuf {
    let path = support::root().join("target/demo").join(name);
    assert!(path.exists(), "{} is missing: run `make test-data`", path.display());
    path
}

fn tokenizer() -> Tokenizer {
    let mut tokenizer = Tokenizer::from_file(demo_file("tokenizer.json")).expect("a tokenizer");
    tokenizer
        .with_padding(Some(PaddingParams { strategy: PaddingStrategy::BatchLongest, ..Default::default() }));
    let truncation = TruncationParams { max_length: 256, ..Default::default() };
    tokenizer.with_truncation(Some(truncation)).expect("a length above the number of special tokens");
    tokenizer
}

/// Token ids and attention mask, int64 [sentences, tokens], padded to the longest.
fn tokens(tokenizer: &Tokenizer, sentences: &[&str]) -> (Tensor, Tensor) {
    let encodings = tokenizer.encode_batch(sentences.to_vec(), true).expect("tokens");
    let shape = [sentences.len(), encodings[0].len()];
    let ids: Vec<i64> = encodings.iter().flat_map(|e| e.get_ids()).map(|&v| v as i64).collect();
    let mask: Vec<i64> = encodings.iter().flat_map(|e| e.get_attention_mask()).map(|&v| v as i64).collect();
    (Tensor::from_slice(&shape, &ids).unwrap(), Tensor::from_slice(&shape, &mask).unwrap())
}

fn floats(tensor: &Tensor) -> Vec<f64> {
    match values(tensor) {
        Values::Floats(values) => values,
        _ => panic!("{tensor:?}: want floats"),
    }
}

fn embed(session: &Session, ids: &Tensor, mask: &Tensor) -> Tensor {
    let types = Tensor::from_slice(ids.shape(), &vec![0i64; ids.len()]).unwrap();
    let inputs = [("input_ids", ids), ("attention_mask", mask), ("token_type_ids", &types)];
    let outputs = session.run(&inputs).unwrap_or_else(|e| panic!("{e}"));
    outputs.get("sentence_embedding").expect("the model's second output").clone()
}

#[test]
fn embeddings_are_onnx_runtimes() {
    if support::skip_gpu("minilm") {
        return;
    }
    let sentences = support::read_text(&support::test_data("minilm/sentences.txt"));
    let sentences: Vec<&str> = sentences.lines().collect();
    let want = support::read_npy(&support::test_data("minilm/embeddings.npy"));
    let session = support::load(&demo_file("minilm.onnx")).unwrap_or_else(|e| panic!("{e}"));
    let tokenizer = tokenizer();

    // All at once, where the short sentences are padded, and one by one, where none is.
    let (ids, mask) = tokens(&tokenizer, &sentences);
    let together = embed(&session, &ids, &mask);
    assert_eq!((together.dtype(), together.shape()), (want.dtype(), want.shape()));
    let width = want.shape()[1];
    let (together, want) = (floats(&together), floats(&want));
    for (row, sentence) in sentences.iter().enumerate() {
        let (ids, mask) = tokens(&tokenizer, &[sentence]);
        let alone = floats(&embed(&session, &ids, &mask));
        let here = row * width..(row + 1) * width;
        for (how, got) in [("in a batch", &together[here.clone()]), ("alone", &alone[..])] {
            let cosine = cosine(got, &want[here.clone()]);
            assert!(
                cosine >= LEAST_COSINE,
                "{sentence:?} {how}: cosine {cosine}, want {LEAST_COSINE} at least"
            );
            let length = got.iter().map(|v| v * v).sum::<f64>().sqrt();
            assert!((length - 1.0).abs() < 1e-5, "{sentence:?} {how}: length {length}, want 1");
        }
    }
}

/// The ids that the reference embeddings were made from were split by other code.
#[test]
fn tokens_are_the_references() {
    let sentences = support::read_text(&support::test_data("minilm/sentences.txt"));
    let (ids, mask) = tokens(&tokenizer(), &sentences.lines().collect::<Vec<_>>());
    assert_eq!(ids, support::read_npy(&support::test_data("minilm/input_ids.npy")));
    assert_eq!(mask, support::read_npy(&support::test_data("minilm/attention_mask.npy")));
}

fn cosine(a: &[f64], b: &[f64]) -> f64 {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}
