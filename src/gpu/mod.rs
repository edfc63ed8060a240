//! Adapters, buffers, pipelines, dispatch and readback: the only place that names `wgpu`.
//!
//! A [`Device`] is opened from an adapter, makes [`Buffer`]s and [`Kernel`]s, and replays a [`Recording`]: a
//! plain list of dispatches and readbacks, one compute pass and one submit per run. Every call returns its own
//! errors; nothing here panics when the device or its driver refuses something.
//!
//! ```no_run
//! use tilewright::gpu::{AdapterChoice, Binding, Device, Dispatch, Readback, Recording};
//! use tilewright::wgsl::{BindingKind, Shader};
//! use std::sync::Arc;
//!
//! # fn main() -> tilewright::Result<()> {
//! let device = Device::open(&AdapterChoice::Best)?;
//! let buffer = device.buffer("x", 16)?;
//! device.write(&buffer, 0, &[1, 0, 0, 0])?;
//! let kernel = device.kernel(&Shader {
//!     label: "double".into(),
//!     source: "@group(0) @binding(0) var<storage, read_write> x: array<u32>;
//!              @compute @workgroup_size(4) fn main(@builtin(global_invocation_id) id: vec3<u32>) {
//!                  x[id.x] = 2u * x[id.x];
//!              }"
//!     .into(),
//!     bindings: vec![BindingKind::ReadWrite],
//! })?;
//! let bindings = Arc::new(device.bind(&kernel, &[Binding::whole(&buffer)])?);
//! let outputs = device.run(&Recording {
//!     dispatches: vec![Dispatch { kernel, bindings, workgroups: [1, 1, 1] }],
//!     readbacks: vec![Readback { buffer, offset_bytes: 0, size_bytes: 4 }],
//! })?;
//! assert_eq!(outputs[0], [2, 0, 0, 0]);
//! # Ok(())
//! # }
//! ```

mod adapter;
mod background;
mod buffer;
mod checks;
mod device;
mod fault;
mod kernel;
mod limits;
mod pool;
mod profile;
mod run;
mod staging;

pub use crate::kernel::AdapterKind;
pub use adapter::{AdapterChoice, AdapterInfo, adapters};
pub use buffer::Buffer;
pub use checks::Checks;
pub use device::Device;
pub use kernel::{BindGroup, Binding, Kernel};
pub use run::{Dispatch, Readback, Recording};

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks, also after another thread panicked: every value behind these locks is whole at all times.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The next multiple of 4, which is what WebGPU copies and binds. `u64::MAX` where there is none, which no
/// limit admits.
fn padded(size_bytes: u64) -> u64 {
    size_bytes.checked_next_multiple_of(4).unwrap_or(u64::MAX)
}
