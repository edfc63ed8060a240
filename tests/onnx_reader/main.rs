//! The ONNX reader: models built from protobuf messages, read back as graphs or refused by name.

mod build;
mod external;
mod functions;
mod graphs;
mod refused;
mod tensors;
