//! Damaged models: whatever the bytes, the reader answers, without a panic and without taking memory that
//! the bytes do not account for; whatever an attribute's number, the planner does.
//!
//! `TILEWRIGHT_FUZZ_SECONDS` (3) bounds the time, `TILEWRIGHT_FUZZ_SEED` (0) chooses the sequence. The
//! corpus is shared with `fuzz/`. An input that fails is kept in the temporary folder and named.

use std::alloc::{GlobalAlloc, Layout, System};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use prost::Message;
use tilewright::kernel::{Caps, candidates};
use tilewright::onnx::proto::{GraphProto, ModelProto, NodeProto};
use tilewright::onnx::{parse_bytes, parse_tensor};
use tilewright::ops::Known;
use tilewright::plan::plan;

/// What reading a file of the corpus may take at most; they are under 5 KB.
const PEAK_LIMIT_BYTES: usize = 16 << 20;

/// What planning a backend case may take: the largest table of constants a few times over.
const PLAN_PEAK_LIMIT_BYTES: usize = 1 << 30;

/// No mutation makes a file longer than this.
const MAX_LEN_BYTES: usize = 16 << 10;

/// The system's allocator, counting.
struct Counting;

static LIVE_BYTES: AtomicUsize = AtomicUsize::new(0);
static PEAK_BYTES: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is the system allocator's, with the same arguments.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE_BYTES.fetch_add(layout.size(), Relaxed) + layout.size();
        PEAK_BYTES.fetch_max(live, Relaxed);
        // SAFETY: as the caller's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE_BYTES.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as the caller's.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Held by a test, as the allocator counts for all threads.
static ALONE: Mutex<()> = Mutex::new(());

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    fn coin(&mut self) -> bool {
        self.next() & 1 == 1
    }

    fn of<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        items.get(self.below(items.len()))
    }
}

/// Changes to the bytes.
fn mutate_bytes(random: &mut Random, bytes: &mut Vec<u8>, corpus: &[Vec<u8>]) {
    let at = random.below(bytes.len());
    let span = at..(at + random.below(16)).min(bytes.len());
    match random.below(8) {
        _ if bytes.is_empty() => bytes.push(random.next() as u8),
        0 => bytes[at] ^= 1 << random.below(8),
        1 => bytes[at] = random.next() as u8,
        2 => bytes.truncate(at),
        3 => drop(bytes.drain(span)),
        4 => {
            let copy = bytes[span].to_vec();
            let to = random.below(bytes.len());
            bytes.splice(to..to, copy);
        }
        5 => {
            let other = &corpus[random.below(corpus.len())];
            bytes.truncate(at);
            bytes.extend_from_slice(&other[random.below(other.len())..]);
        }
        // A length, if one is there: off by one, or a varint of many bytes.
        6 => bytes[at] = bytes[at].wrapping_add(if random.coin() { 1 } else { 255 }),
        _ => {
            let continued = vec![0xff; random.below(10)];
            bytes.splice(at..at + 1, continued.into_iter().chain([random.next() as u8 & 0x7f]));
        }
    }
    bytes.truncate(MAX_LEN_BYTES);
}

/// Changes to the messages, which keep the lengths right and so get further.
fn mutate_model(random: &mut Random, model: &mut ModelProto) {
    const NUMBERS: [i64; 12] = [0, 1, 2, 3, -1, 255, 1 << 20, 1 << 31, 1 << 32, 1 << 40, i64::MAX, i64::MIN];
    let number = NUMBERS[random.below(NUMBERS.len())];
    let function = random.below(model.functions.len());
    let Some(graph) = &mut model.graph else { return };
    let nodes = match model.functions.get_mut(function) {
        Some(function) if random.coin() => &mut function.node,
        Some(_) | None => &mut graph.node,
    };
    let names: Vec<String> = nodes.iter().flat_map(|n| n.input.iter().chain(&n.output)).cloned().collect();
    let name = random.of(&names).cloned().unwrap_or_default();
    let (one, other) = (random.below(nodes.len()), random.below(nodes.len()));
    let tensor = random.below(graph.initializer.len());
    match random.below(9) {
        0..3 => {
            let Some(tensor) = graph.initializer.get_mut(tensor) else { return };
            match random.below(4) {
                0 => tensor.data_type = number as i32,
                1 => tensor.data_type = random.below(30) as i32,
                2 => tensor.dims.push(number),
                _ => tensor.dims.iter_mut().for_each(|dim| *dim = number),
            }
        }
        _ if nodes.is_empty() => nodes.push(NodeProto { op_type: "Constant".into(), ..NodeProto::default() }),
        3 => nodes.swap(one, other),
        4 => nodes.push(nodes[one].clone()),
        5 => {
            let attributes = nodes[other].attribute.clone();
            nodes[one].attribute.extend(attributes);
        }
        6 => nodes[one].input.push(name),
        7 => nodes[one].output.push(name),
        _ => {
            let Some(attribute) = nodes[one].attribute.first_mut() else { return };
            match random.below(3) {
                0 => attribute.r#type = random.below(16) as i32,
                1 => attribute.ref_attr_name = "alpha".into(),
                _ => {
                    let inner = GraphProto { node: nodes.clone(), ..GraphProto::default() };
                    nodes[one].attribute[0].g = Some(Box::new(inner));
                }
            }
        }
    }
}

/// What goes wrong beside an error while `read` does something with the bytes.
fn misbehaviour(limit_bytes: usize, read: impl FnOnce()) -> Option<String> {
    let before_bytes = LIVE_BYTES.load(Relaxed);
    PEAK_BYTES.store(before_bytes, Relaxed);
    let outcome = catch_unwind(AssertUnwindSafe(read));
    let peak_bytes = PEAK_BYTES.load(Relaxed) - before_bytes;
    if outcome.is_err() {
        return Some("panicked".into());
    }
    (peak_bytes > limit_bytes).then(|| format!("took {peak_bytes} bytes"))
}

/// Reads the bytes as a model and as a tensor.
fn read(bytes: &Bytes) {
    let _ = parse_bytes(bytes.clone());
    let _ = parse_tensor(bytes.clone());
}

/// Plans the model, and lists its kernels' candidates.
fn plan_whole(bytes: &Bytes) {
    let (Ok(graph), caps) = (parse_bytes(bytes.clone()), Caps::default()) else { return };
    let Ok(plan) = plan(&graph, &Known::default(), &caps) else { return };
    let symbols = plan.symbols().into_keys().map(|name| (name, 3)).collect();
    if plan.layout(&symbols, &caps, &Default::default()).is_ok() {
        for step in &plan.steps {
            let sizes: Vec<i64> = step.params.iter().map(|p| symbols.get(p).copied().unwrap_or(0)).collect();
            candidates(&plan.kernels[step.kernel].spec, &sizes, &caps);
        }
    }
}

fn assert_behaves(bytes: Vec<u8>, what: &str, limit_bytes: usize, does: fn(&Bytes)) {
    let bytes = Bytes::from(bytes);
    if let Some(problem) = misbehaviour(limit_bytes, || does(&bytes)) {
        let path = std::env::temp_dir().join("tilewright_fuzz_find.onnx");
        std::fs::write(&path, &bytes).unwrap();
        panic!("{what}: reading {} bytes {problem}; they are in {}", bytes.len(), path.display());
    }
}

fn number_from_env(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text:?}")))
}

#[test]
fn damaged_models_are_answered() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/onnx");
    let mut files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut corpus = Vec::new();
    for path in files {
        let bytes = std::fs::read(&path).unwrap();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let outcome = parse_bytes(bytes.clone().into());
        assert_eq!(outcome.is_err(), name.starts_with("bad_"), "{name}: {:?}", outcome.err());
        assert_behaves(bytes.clone(), &name, PEAK_LIMIT_BYTES, read);
        corpus.push(bytes);
    }
    assert!(corpus.len() >= 10, "{} has {} files", folder.display(), corpus.len());

    let seed = number_from_env("TILEWRIGHT_FUZZ_SEED", 0);
    let duration = Duration::from_secs(number_from_env("TILEWRIGHT_FUZZ_SECONDS", 3));
    let mut random = Random(seed);
    let (start, mut count) = (Instant::now(), 0u64);
    while start.elapsed() < duration {
        let mut bytes = corpus[random.below(corpus.len())].clone();
        let model = ModelProto::decode(&bytes[..]);
        if let (Ok(mut model), true) = (model, random.coin()) {
            (0..=random.below(4)).for_each(|_| mutate_model(&mut random, &mut model));
            bytes = model.encode_to_vec();
            bytes.truncate(MAX_LEN_BYTES);
        } else {
            (0..=random.below(4)).for_each(|_| mutate_bytes(&mut random, &mut bytes, &corpus));
        }
        assert_behaves(bytes, &format!("seed {seed}, input {count}"), PEAK_LIMIT_BYTES, read);
        count += 1;
    }
    println!("{count} inputs in {duration:?}");
}

#[test]
fn extreme_attributes_are_planned_or_refused() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-data/onnx-backend");
    let mut cases: Vec<_> = std::fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}; `make test-data` makes it", folder.display()))
        .map(|entry| entry.unwrap().path().join("model.onnx"))
        .filter(|path| path.exists())
        .collect();
    cases.sort();
    let seed = number_from_env("TILEWRIGHT_FUZZ_SEED", 0);
    let duration = Duration::from_secs(number_from_env("TILEWRIGHT_FUZZ_SECONDS", 3));
    let mut random = Random(seed);
    let (start, mut count) = (Instant::now(), 0u64);
    while start.elapsed() < duration {
        let path = &cases[random.below(cases.len())];
        let mut model = ModelProto::decode(&std::fs::read(path).unwrap()[..]).unwrap();
        let nodes = model.graph.iter_mut().flat_map(|graph| &mut graph.node);
        let mut numbers: Vec<&mut i64> = Vec::new();
        for attribute in nodes.flat_map(|node| &mut node.attribute) {
            numbers.extend(attribute.i.as_mut());
            numbers.extend(&mut attribute.ints);
        }
        if numbers.is_empty() {
            continue;
        }
        let at = random.below(numbers.len());
        let value = [i64::MIN, -1, 0, i32::MAX as i64, 1 << 40, i64::MAX][random.below(6)];
        *numbers[at] = value;
        let what = format!("{}, number {at} of its attributes {value}", path.display());
        assert_behaves(model.encode_to_vec(), &what, PLAN_PEAK_LIMIT_BYTES, plan_whole);
        count += 1;
    }
    println!("{count} models in {duration:?}");
}
