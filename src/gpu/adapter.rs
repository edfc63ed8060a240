//! The adapters of this machine, in a fixed order, and the choice among them.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

use super::checks::Checks;
use super::limits;
use crate::error::{Error, Result};
use crate::kernel::{AdapterKind, Caps};

/// Which adapter to use.
///
/// ```
/// use tilewright::gpu::AdapterChoice;
/// assert_eq!("1".parse(), Ok(AdapterChoice::Index(1)));
/// assert_eq!("best".parse(), Ok(AdapterChoice::Best));
/// assert_eq!("llvmpipe".parse(), Ok(AdapterChoice::Name("llvmpipe".into())));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AdapterChoice {
    /// The first of [`adapters`]: a real GPU where there is one.
    #[default]
    Best,
    /// The adapter at this place of [`adapters`].
    Index(usize),
    /// The first adapter whose name contains this, in any case.
    Name(String),
}

impl FromStr for AdapterChoice {
    type Err = Infallible;

    /// Digits are an index, `best` (or nothing) is [`AdapterChoice::Best`], anything else is a name.
    fn from_str(text: &str) -> Result<Self, Infallible> {
        let text = text.trim();
        if text.is_empty() || text.eq_ignore_ascii_case("best") {
            return Ok(AdapterChoice::Best);
        }
        Ok(match text.parse() {
            Ok(index) => AdapterChoice::Index(index),
            Err(_) => AdapterChoice::Name(text.to_owned()),
        })
    }
}

/// An adapter, and what a device opened on it can do.
#[derive(Clone, Debug)]
pub struct AdapterInfo {
    /// Its place in [`adapters`], for [`AdapterChoice::Index`].
    pub index: usize,
    /// The name the driver gives it.
    pub name: String,
    /// The system's interface to it, as `vulkan`.
    pub backend: String,
    /// Name and version of the driver.
    pub driver: String,
    /// What it is.
    pub kind: AdapterKind,
    /// Its limits and features.
    pub caps: Caps,
    /// What kernels check on a device that is open on it; all where none is.
    pub checks: Checks,
    /// The optional features a device is opened with, as `shader-f16`.
    pub feature_names: Vec<String>,
}

impl fmt::Display for AdapterInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({}, {}, {})", self.index, self.name, self.kind, self.backend, self.driver)
    }
}

/// The adapters of this machine: discrete GPUs, integrated, virtual, software, the rest. An empty list is no
/// error. The order is the same in every process of a machine as long as its drivers stay the same.
pub fn adapters() -> Result<Vec<AdapterInfo>> {
    Ok(pollster::block_on(found()).into_iter().map(|found| found.info).collect())
}

/// What tells one adapter from another, in every listing of a process.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct AdapterKey {
    kind: AdapterKind,
    backend_rank: u8,
    name: String,
    bus: String,
    ids: [u32; 2],
    driver: String,
    // Two equal cards that the driver tells apart by nothing else.
    twin: usize,
}

/// An adapter with its description.
#[derive(Clone)]
pub(super) struct Found {
    pub(super) adapter: wgpu::Adapter,
    pub(super) key: AdapterKey,
    pub(super) info: AdapterInfo,
}

/// The adapter that `choice` names, or an error that lists those there are.
pub(super) async fn choose(choice: &AdapterChoice) -> Result<Found> {
    let mut all = found().await;
    if all.is_empty() {
        return Err(Error::Adapter(
            "no GPU adapter found: on Linux install a Vulkan driver, the one of the GPU's vendor or Mesa's, \
             which also runs on the CPU (Debian, Ubuntu: apt install mesa-vulkan-drivers; Fedora: dnf install \
             mesa-vulkan-drivers; Arch: pacman -S vulkan-swrast); on Windows and macOS install the system's \
             graphics driver (DirectX 12, Metal)"
                .into(),
        ));
    }
    let position = match choice {
        AdapterChoice::Best => Some(0),
        AdapterChoice::Index(index) => (*index < all.len()).then_some(*index),
        AdapterChoice::Name(name) => {
            let name = name.to_lowercase();
            all.iter().position(|found| found.info.name.to_lowercase().contains(&name))
        }
    };
    match position {
        Some(position) => Ok(all.swap_remove(position)),
        None => {
            let wanted = match choice {
                AdapterChoice::Best => "adapter".to_owned(),
                AdapterChoice::Index(index) => format!("adapter {index}"),
                AdapterChoice::Name(name) => format!("adapter named {name:?}"),
            };
            let there: Vec<String> = all.iter().map(|found| found.info.to_string()).collect();
            Err(Error::Adapter(format!("no {wanted}; there are: {}", there.join("; "))))
        }
    }
}

/// One instance for the process: devices of different instances cannot tell their resources apart.
fn instance() -> &'static wgpu::Instance {
    static INSTANCE: OnceLock<wgpu::Instance> = OnceLock::new();
    INSTANCE.get_or_init(|| wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle()))
}

/// The adapters in their order. Listed once: a Vulkan instance keeps its devices, and some layers write to the
/// standard error at each listing.
async fn found() -> Vec<Found> {
    static FOUND: OnceLock<Vec<Found>> = OnceLock::new();
    match FOUND.get() {
        Some(found) => found.clone(),
        None => {
            let listed = list().await;
            FOUND.get_or_init(|| listed).clone()
        }
    }
}

async fn list() -> Vec<Found> {
    let adapters = instance().enumerate_adapters(wgpu::Backends::all()).await;
    let mut keyed: Vec<(AdapterKey, wgpu::Adapter)> =
        adapters.into_iter().map(|adapter| (key(&adapter.get_info()), adapter)).collect();
    keyed.sort_by(|a, b| a.0.cmp(&b.0));
    for i in 1..keyed.len() {
        let before = keyed[i - 1].0.clone();
        let twin = before.twin + 1;
        if (AdapterKey { twin: 0, ..before }) == keyed[i].0 {
            keyed[i].0.twin = twin;
        }
    }
    keyed
        .into_iter()
        .enumerate()
        .map(|(index, (key, adapter))| Found { info: describe(index, &adapter), key, adapter })
        .collect()
}

fn key(info: &wgpu::AdapterInfo) -> AdapterKey {
    AdapterKey {
        kind: kind(info),
        backend_rank: match info.backend {
            wgpu::Backend::Vulkan => 0,
            wgpu::Backend::Metal => 1,
            wgpu::Backend::Dx12 => 2,
            wgpu::Backend::Gl => 3,
            wgpu::Backend::BrowserWebGpu => 4,
            wgpu::Backend::Noop => 5,
        },
        name: info.name.clone(),
        bus: info.device_pci_bus_id.clone(),
        ids: [info.vendor, info.device],
        driver: driver(info),
        twin: 0,
    }
}

fn kind(info: &wgpu::AdapterInfo) -> AdapterKind {
    if limits::is_cpu(info) {
        return AdapterKind::Cpu;
    }
    match info.device_type {
        wgpu::DeviceType::DiscreteGpu => AdapterKind::Discrete,
        wgpu::DeviceType::IntegratedGpu => AdapterKind::Integrated,
        wgpu::DeviceType::VirtualGpu => AdapterKind::Virtual,
        wgpu::DeviceType::Cpu => AdapterKind::Cpu,
        wgpu::DeviceType::Other => AdapterKind::Other,
    }
}

fn driver(info: &wgpu::AdapterInfo) -> String {
    format!("{} {}", info.driver, info.driver_info).trim().to_owned()
}

fn describe(index: usize, adapter: &wgpu::Adapter) -> AdapterInfo {
    let info = adapter.get_info();
    AdapterInfo {
        index,
        name: info.name.clone(),
        backend: info.backend.to_string(),
        driver: driver(&info),
        kind: kind(&info),
        caps: limits::caps(adapter),
        checks: Checks::default(),
        feature_names: limits::features(adapter)
            .iter_names()
            .map(|(name, _)| name.to_lowercase().replace('_', "-"))
            .collect(),
    }
}
