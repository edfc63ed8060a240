//! What a device can do at best, for cost estimates and shares of the roofline.

use serde::{Deserialize, Serialize};

use super::caps::Caps;

/// Upper bounds of a device's speed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Peaks {
    /// Bytes read plus bytes written per nanosecond (GB/s) by a copy of a large buffer.
    pub copy_bytes_per_ns: f64,
    /// f32 additions and multiplications per nanosecond (GFLOP/s).
    pub f32_flops_per_ns: f64,
    /// The same of f16, where the device has it.
    pub f16_flops_per_ns: Option<f64>,
    /// Time of a dispatch that does nothing.
    pub launch_ns: f64,
}

impl Peaks {
    /// The better of two measurements, one by one: nothing makes a device look faster than it is.
    pub fn best(&self, other: &Peaks) -> Peaks {
        let f16 = [self.f16_flops_per_ns, other.f16_flops_per_ns].into_iter().flatten();
        Peaks {
            copy_bytes_per_ns: self.copy_bytes_per_ns.max(other.copy_bytes_per_ns),
            f32_flops_per_ns: self.f32_flops_per_ns.max(other.f32_flops_per_ns),
            f16_flops_per_ns: f16.reduce(f64::max),
            launch_ns: self.launch_ns.min(other.launch_ns),
        }
    }

    /// Orders of magnitude, for estimates where nothing has been measured.
    pub fn typical(caps: &Caps) -> Peaks {
        let (copy_bytes_per_ns, f32_flops_per_ns, launch_ns) =
            if caps.cpu { (10.0, 50.0, 10_000.0) } else { (200.0, 5_000.0, 2_000.0) };
        let f16_flops_per_ns = caps.f16.then_some(f32_flops_per_ns);
        Peaks { copy_bytes_per_ns, f32_flops_per_ns, f16_flops_per_ns, launch_ns }
    }
}
