//! An open device, shared by everyone in the process who opens the same adapter.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::Duration;

use super::adapter::{self, AdapterChoice, AdapterInfo, AdapterKey, Found};
use super::buffer::Uploads;
use super::checks::Checks;
use super::fault::{Faults, scoped};
use super::kernel::Kernels;
use super::locked;
use super::pool::Pool;
use super::staging::Staging;
use crate::error::{Error, Result};
use crate::kernel::Caps;

/// An open device. Clones are the same device, and so is a second [`Device::open`] of the same adapter, with the same
/// checks, while the first is alive; dropping all of them closes it. Any number of threads may use it at the same time.
#[derive(Clone)]
pub struct Device(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub(super) raw: wgpu::Device,
    pub(super) queue: wgpu::Queue,
    pub(super) info: AdapterInfo,
    pub(super) max_uniform_binding_bytes: u64,
    pub(super) faults: Arc<Faults>,
    pub(super) kernels: Kernels,
    /// Those without checks.
    pub(super) unchecked: Kernels,
    pub(super) staging: Staging,
    pub(super) pool: Pool,
    pub(super) uploads: Uploads,
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Device({})", self.0.info)
    }
}

impl Device {
    /// Opens the adapter that `choice` names, with all it offers that this crate can use.
    ///
    /// # Errors
    /// [`Error::Adapter`] where there is no adapter, none of that name or index, or it cannot be opened.
    pub fn open(choice: &AdapterChoice) -> Result<Self> {
        Self::open_with(choice, Checks::default())
    }

    /// [`Device::open`] with other checks in the kernels that this crate writes.
    ///
    /// # Errors
    /// As [`Device::open`].
    pub fn open_with(choice: &AdapterChoice, checks: Checks) -> Result<Self> {
        pollster::block_on(Self::open_with_async(choice, checks))
    }

    /// [`Device::open`] for an executor.
    pub async fn open_async(choice: &AdapterChoice) -> Result<Self> {
        Self::open_with_async(choice, Checks::default()).await
    }

    /// [`Device::open_with`] for an executor.
    ///
    /// # Errors
    /// As [`Device::open`].
    pub async fn open_with_async(choice: &AdapterChoice, checks: Checks) -> Result<Self> {
        let mut found = adapter::choose(choice).await?;
        found.info.checks = checks;
        let key = (found.key.clone(), checks);
        match shared(&key) {
            Some(open) => Ok(open),
            None => Ok(share(key, Device(Arc::new(Inner::connect(found).await?)))),
        }
    }

    /// A device of the caller's own on the adapter that this one is open on: what happens to it, a kernel that hangs or
    /// the loss of it, happens to nobody else. Buffers and kernels are of one device and no other.
    ///
    /// # Errors
    /// As [`Device::open`].
    pub fn apart(&self) -> Result<Self> {
        let opened = async {
            let mut found = adapter::choose(&AdapterChoice::Index(self.info().index)).await?;
            found.info.checks = self.info().checks;
            Inner::connect(found).await
        };
        Ok(Device(Arc::new(pollster::block_on(opened)?)))
    }

    /// Lets go of a device that may be busy for long: a thread waits for it, for the process's life if need be. Dropping
    /// a busy device would wait here.
    pub fn abandon(self) {
        let waits = move || while matches!(self.settle(ABANDONED), Ok(false)) {};
        if let Err(error) = std::thread::Builder::new().name("tilewright-wait".into()).spawn(waits) {
            tracing::warn!(%error, "no thread to wait for a device that hangs");
        }
    }

    /// Whether the device was lost: every call on it fails.
    pub fn is_lost(&self) -> bool {
        self.0.faults.is_lost()
    }

    /// Whether this is the same device, whose buffers and kernels are this one's.
    pub fn is_same(&self, other: &Device) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// The adapter the device was opened on.
    pub fn info(&self) -> &AdapterInfo {
        &self.0.info
    }

    /// What the device can do.
    pub fn caps(&self) -> &Caps {
        &self.0.info.caps
    }
}

#[cfg(test)]
impl Device {
    /// Loses the device.
    pub(crate) fn destroy(&self) {
        self.0.raw.destroy();
    }
}

/// How often a thread looks after a device that hangs.
const ABANDONED: Duration = Duration::from_secs(1);

impl Inner {
    /// Opens an adapter, without regard to who else has.
    async fn connect(found: Found) -> Result<Self> {
        let Found { adapter, info, .. } = found;
        let limits = adapter.limits();
        let max_uniform_binding_bytes = limits.max_uniform_buffer_binding_size;
        let features = super::limits::features(&adapter);
        let experimental_features = if features.intersects(wgpu::Features::all_experimental_mask()) {
            // SAFETY: the caller takes on that an experimental feature may be unsound. The one requested is
            // cooperative matrices, which only shaders that the generator writes for a listed size use.
            unsafe { wgpu::ExperimentalFeatures::enabled() }
        } else {
            wgpu::ExperimentalFeatures::disabled()
        };
        let (raw, queue) = adapter
            .request_device(&wgpu::DeviceDescriptor {
                label: Some("tilewright"),
                required_features: features,
                required_limits: limits,
                experimental_features,
                memory_hints: wgpu::MemoryHints::Performance,
                trace: wgpu::Trace::Off,
            })
            .await
            .map_err(|error| Error::Adapter(format!("adapter {info} cannot be opened: {error}")))?;

        let faults = Arc::new(Faults::default());
        let heard = Arc::clone(&faults);
        raw.on_uncaptured_error(Arc::new(move |error| heard.stray(error)));
        let heard = Arc::clone(&faults);
        raw.set_device_lost_callback(move |_, reason| heard.lose(&reason));

        tracing::debug!(adapter = %info, "device opened");
        Ok(Inner {
            raw,
            queue,
            info,
            max_uniform_binding_bytes,
            faults,
            kernels: Kernels::default(),
            unchecked: Kernels::default(),
            staging: Staging::default(),
            pool: Pool::default(),
            uploads: Uploads::default(),
        })
    }

    /// Runs platform commands of one thread; see [`scoped`].
    pub(super) fn scoped<T>(&self, place: &str, commands: impl FnOnce() -> T) -> Result<T> {
        scoped(&self.raw, &self.faults, place, commands)
    }
}

type Open = Mutex<HashMap<(AdapterKey, Checks), Weak<Inner>>>;

/// The open devices of the process.
fn open() -> &'static Open {
    static OPEN: OnceLock<Open> = OnceLock::new();
    OPEN.get_or_init(Open::default)
}

/// The device of this adapter with these checks, if it is open and was not lost.
fn shared(key: &(AdapterKey, Checks)) -> Option<Device> {
    let inner = locked(open()).get(key)?.upgrade()?;
    (!inner.faults.is_lost()).then_some(Device(inner))
}

/// Enters a device that was just opened, or returns the one another thread entered in the meantime.
fn share(key: (AdapterKey, Checks), device: Device) -> Device {
    let mut open = locked(open());
    open.retain(|_, inner| inner.strong_count() > 0);
    if let Some(first) = open.get(&key).and_then(Weak::upgrade)
        && !first.faults.is_lost()
    {
        return Device(first);
    }
    open.insert(key, Arc::downgrade(&device.0));
    device
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::Recording;

    /// A device of this test's own, or `None` where GPU tests are switched off.
    fn unshared() -> Option<Device> {
        if std::env::var_os("TILEWRIGHT_SKIP_GPU").is_some_and(|value| value == "1") {
            return None;
        }
        let device =
            pollster::block_on(async { Inner::connect(adapter::choose(&AdapterChoice::Best).await?).await });
        Some(Device(Arc::new(device.expect("GPU tests need an adapter, or TILEWRIGHT_SKIP_GPU=1"))))
    }

    #[test]
    fn a_lost_device_is_an_error_of_every_call() {
        let Some(device) = unshared() else { return };
        let buffer = device.buffer("x", 16).unwrap();
        device.destroy();
        // The callback may come with the next poll.
        let first = device.run(&Recording::default()).unwrap_err().to_string();
        assert!(first.contains("device lost"), "{first}");
        for error in [
            device.buffer("y", 16).unwrap_err(),
            device.write(&buffer, 0, &[0; 4]).unwrap_err(),
            device.run(&Recording::default()).unwrap_err(),
            pollster::block_on(device.run_async(&Recording::default())).unwrap_err(),
        ] {
            assert!(error.to_string().contains("device lost"), "{error}");
        }
        assert!(device.0.faults.is_lost());
    }

    /// What a caller gives is checked on any device.
    #[test]
    fn the_renderer_s_texts_alone_go_without_checks() {
        use crate::wgsl::{BindingKind, Shader};
        if std::env::var_os("TILEWRIGHT_SKIP_GPU").is_some_and(|value| value == "1") {
            return;
        }
        let shader = Shader {
            label: "first".into(),
            source: "@group(0) @binding(0) var<storage, read_write> x: array<u32>;
                     @compute @workgroup_size(1) fn main() { x[0] = 1u; }"
                .into(),
            bindings: vec![BindingKind::ReadWrite],
        };
        // SAFETY: the shader stays within any buffer.
        let off = unsafe { Checks::off() };
        for (checks, is_same) in [(Checks::default(), true), (off, false)] {
            let device = Device::open_with(&AdapterChoice::Best, checks).unwrap();
            assert_eq!(device.info().checks, checks);
            assert_eq!(device.apart().unwrap().info().checks, checks);
            let (given, rendered) = (device.kernel(&shader).unwrap(), device.rendered(&shader).unwrap());
            assert_eq!(Arc::ptr_eq(&given, &rendered), is_same);
        }
        let [one, other] =
            [Checks::default(), off].map(|c| Device::open_with(&AdapterChoice::Best, c).unwrap());
        assert!(!one.is_same(&other));
    }

    #[test]
    fn an_error_outside_of_any_call_is_returned_once() {
        let Some(device) = unshared() else { return };
        drop(device.0.raw.create_buffer(&wgpu::BufferDescriptor {
            label: Some("stray"),
            size: 16,
            usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::STORAGE,
            mapped_at_creation: false,
        }));
        let error = device.buffer("y", 16).unwrap_err().to_string();
        assert!(error.contains("an earlier command") && error.contains("stray"), "{error}");
        assert!(device.buffer("y", 16).is_ok());
    }
}
