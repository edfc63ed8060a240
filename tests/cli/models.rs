//! Small models, and files, for the tests of the command line.

use std::fs;
use std::path::{Path, PathBuf};

use prost::Message as _;
use tilewright::DType;
use tilewright::onnx::proto::*;

/// A folder for one test's files.
pub struct Folder(tempfile::TempDir);

impl Folder {
    pub fn new() -> Folder {
        Folder(tempfile::tempdir().expect("a temporary folder"))
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The path of a new file.
    pub fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        fs::write(&path, bytes).expect("a file");
        text(&path)
    }

    pub fn npy(&self, name: &str, descr: &str, dims: &[u64], bytes: &[u8]) -> String {
        use npyz::WriterBuilder as _;
        let dtype = npyz::DType::Plain(descr.parse().expect("a type of NumPy"));
        let options = npyz::WriteOptions::new_header_only().dtype(dtype).shape(dims);
        let mut out = options.writer(Vec::new()).write_header_only().expect("a header");
        out.extend(bytes);
        self.file(name, out)
    }
}

pub fn text(path: &Path) -> String {
    path.to_str().expect("UTF-8").to_owned()
}

/// NumPy's type, shape and elements of a file.
pub fn read_npy(path: &Path) -> (String, Vec<u64>, Vec<u8>) {
    let bytes = fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let npy = npyz::NpyFile::new(bytes.as_slice()).expect("a NumPy file");
    let (descr, shape) = (npy.dtype().descr().trim_matches('\'').to_owned(), npy.shape().to_vec());
    (descr, shape, npy.into_inner().to_vec())
}

/// A dimension: a number, or else a symbol.
fn dimension(text: &str) -> DimensionProto {
    let value = match text.parse() {
        Ok(size) => DimensionValue::DimValue(size),
        Err(_) => DimensionValue::DimParam(text.into()),
    };
    DimensionProto { value: Some(value) }
}

pub fn value(name: &str, dtype: DType, dims: Option<&[&str]>) -> ValueInfoProto {
    let shape = dims.map(|dims| TensorShapeProto { dim: dims.iter().map(|d| dimension(d)).collect() });
    let tensor = TypeValue::Tensor(TensorTypeProto { elem_type: dtype.to_onnx(), shape });
    ValueInfoProto { name: name.into(), r#type: Some(TypeProto { value: Some(tensor) }) }
}

pub fn node(op: &str, name: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
    let strings = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let (input, output) = (strings(inputs), strings(outputs));
    NodeProto { op_type: op.into(), name: name.into(), input, output, ..NodeProto::default() }
}

pub fn model(node: Vec<NodeProto>, input: Vec<ValueInfoProto>, output: Vec<ValueInfoProto>) -> Vec<u8> {
    let weight = TensorProto {
        name: "w".into(),
        data_type: DType::F32.to_onnx(),
        dims: vec![2],
        float_data: vec![1.0, -1.0],
        ..TensorProto::default()
    };
    let graph = GraphProto {
        name: "g".into(),
        node,
        input,
        output,
        initializer: vec![weight],
        ..GraphProto::default()
    };
    let opset = OperatorSetIdProto { domain: String::new(), version: 20 };
    let model =
        ModelProto { ir_version: 10, graph: Some(graph), opset_import: vec![opset], ..ModelProto::default() };
    model.encode_to_vec()
}

/// `y = x + w`, `out/twice = ids + ids`, `above = x > w`, `half = float16(y)`, `brain = bfloat16(y)`.
pub fn small() -> Vec<u8> {
    let cast = |to: DType, name: &str| {
        let to = AttributeProto {
            name: "to".into(),
            i: Some(to.to_onnx().into()),
            r#type: AttributeType::Int as i32,
            ..AttributeProto::default()
        };
        NodeProto { attribute: vec![to], ..node("Cast", name, &["y"], &[name]) }
    };
    let nodes = vec![
        node("Add", "add", &["x", "w"], &["y"]),
        node("Add", "twice", &["ids", "ids"], &["out/twice"]),
        node("Greater", "greater", &["x", "w"], &["above"]),
        cast(DType::F16, "half"),
        cast(DType::BF16, "brain"),
    ];
    let matrix: Option<&[&str]> = Some(&["batch", "2"]);
    let inputs = vec![value("x", DType::F32, matrix), value("ids", DType::I64, Some(&["batch"]))];
    let outputs = vec![
        value("y", DType::F32, matrix),
        value("out/twice", DType::I64, Some(&["batch"])),
        value("above", DType::Bool, matrix),
        value("half", DType::F16, matrix),
        value("brain", DType::BF16, matrix),
    ];
    model(nodes, inputs, outputs)
}

/// Two operators that do not exist, in three nodes.
pub fn unsupported() -> Vec<u8> {
    let nodes = vec![
        node("Frobnicate", "first", &["x"], &["a"]),
        node("Relu", "relu", &["a"], &["b"]),
        node("Frobnicate", "second", &["b"], &["c"]),
        node("Transmogrify", "third", &["c"], &["y"]),
    ];
    let dims: Option<&[&str]> = Some(&["2"]);
    model(nodes, vec![value("x", DType::F32, dims)], vec![value("y", DType::F32, dims)])
}

/// `y = Reshape(x, shape)`: nothing can be planned before a run gives `shape`.
pub fn reshape() -> Vec<u8> {
    let nodes = vec![node("Reshape", "reshape", &["x", "shape"], &["y"])];
    let inputs = vec![value("x", DType::F32, Some(&["4"])), value("shape", DType::I64, Some(&["2"]))];
    model(nodes, inputs, vec![value("y", DType::F32, Some(&["a", "b"]))])
}

/// `y = Relu(x)`, and nothing is said of the shape of x.
pub fn without_shape() -> Vec<u8> {
    let nodes = vec![node("Relu", "relu", &["x"], &["y"])];
    model(nodes, vec![value("x", DType::F32, None)], vec![value("y", DType::F32, None)])
}
