//! Adapters, buffers, pipelines, dispatch and readback.
