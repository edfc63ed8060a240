//! ONNX bytes to a [`crate::graph::Graph`].
