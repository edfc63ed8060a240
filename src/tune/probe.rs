//! The kernels that measure what a device can do at best, as data: bytes, arithmetic, and what a dispatch costs by
//! itself.

use crate::error::Result;
use crate::kernel::{Caps, Peaks};
use crate::wgsl::{PROBE_WORKGROUP, Shader, probe_copy, probe_fma, probe_fma_flops};

/// Bytes of either side of a copy, beyond any cache: on a CPU that pretends to be a GPU, and on a GPU.
const COPY_BYTES: [u64; 2] = [32 << 20, 128 << 20];
/// Workgroups of a probe that keep a device busy, on a CPU and on a GPU.
const WORKGROUPS: [u32; 2] = [256, 8192];
/// Independent chains of arithmetic that are tried: an out-of-order core wants few, a GPU's scheduler some.
const VECTORS: [u32; 3] = [1, 2, 4];

/// What a dispatch of a probe does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Measure {
    /// Moves so many bytes.
    Copy(f64),
    /// So many operations of f32.
    F32(f64),
    /// So many operations of f16.
    F16(f64),
    /// As good as nothing.
    Launch,
}

/// A kernel to be timed.
#[derive(Clone, Debug)]
pub struct Probe {
    /// Its text.
    pub shader: Shader,
    /// The size of each of its buffers.
    pub buffer_bytes: Vec<u64>,
    /// Workgroups of a dispatch.
    pub workgroups: u32,
    /// What a dispatch does.
    pub measure: Measure,
}

/// Copies memory larger than the device's caches, by vectors of four or by words: which is faster depends on the device.
///
/// # Errors
/// None for skeletons that are whole.
pub fn copy_probe(caps: &Caps, vectors: bool) -> Result<Probe> {
    let bytes = on(caps, COPY_BYTES).min(caps.max_storage_binding_bytes).min(caps.max_buffer_bytes) & !15;
    Ok(Probe {
        shader: probe_copy(vectors)?,
        buffer_bytes: vec![bytes; 2],
        workgroups: on(caps, WORKGROUPS),
        measure: Measure::Copy(2.0 * bytes as f64),
    })
}

/// All probes of a device.
///
/// # Errors
/// None for skeletons that are whole.
pub fn probes(caps: &Caps) -> Result<Vec<Probe>> {
    let mut probes = vec![copy_probe(caps, true)?, copy_probe(caps, false)?];
    let workgroups = on(caps, WORKGROUPS);
    for f16 in [false, true].into_iter().take(1 + usize::from(caps.f16)) {
        for vectors in VECTORS {
            let flops = probe_fma_flops(vectors) * f64::from(workgroups * PROBE_WORKGROUP);
            probes.push(Probe {
                shader: probe_fma(f16, vectors)?,
                buffer_bytes: vec![u64::from(PROBE_WORKGROUP) * u64::from(workgroups + 1) * 4],
                workgroups,
                measure: if f16 { Measure::F16(flops) } else { Measure::F32(flops) },
            });
        }
    }
    // A copy of a few vectors.
    let shader = probe_copy(true)?;
    probes.push(Probe { shader, buffer_bytes: vec![256; 2], workgroups: 1, measure: Measure::Launch });
    Ok(probes)
}

/// What the times of all probes of a device say, in nanoseconds per dispatch: the best of each kind.
pub fn peaks_of(measured: &[(Measure, u64)]) -> Peaks {
    let best = |amount: fn(Measure) -> Option<f64>| {
        let speeds = measured.iter().filter_map(|&(measure, ns)| Some(amount(measure)? / ns.max(1) as f64));
        speeds.reduce(f64::max)
    };
    let launch = best(|measure| (measure == Measure::Launch).then_some(1.0));
    Peaks {
        copy_bytes_per_ns: best(|measure| if let Measure::Copy(n) = measure { Some(n) } else { None })
            .unwrap_or(0.0),
        f32_flops_per_ns: best(|measure| if let Measure::F32(n) = measure { Some(n) } else { None })
            .unwrap_or(0.0),
        f16_flops_per_ns: best(|measure| if let Measure::F16(n) = measure { Some(n) } else { None }),
        launch_ns: launch.map_or(0.0, f64::recip),
    }
}

fn on<T: Copy>(caps: &Caps, [cpu, gpu]: [T; 2]) -> T {
    if caps.cpu { cpu } else { gpu }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_of_each_kind_is_the_peak() {
        let times = [
            (Measure::Copy(1000.0), 100),
            (Measure::Copy(1000.0), 50),
            (Measure::F32(6000.0), 60),
            (Measure::F32(9000.0), 100),
            (Measure::Launch, 7),
        ];
        let peaks = Peaks {
            copy_bytes_per_ns: 20.0,
            f32_flops_per_ns: 100.0,
            f16_flops_per_ns: None,
            launch_ns: 7.0,
        };
        let got = peaks_of(&times);
        assert!((got.launch_ns - 7.0).abs() < 1e-9);
        assert_eq!(Peaks { launch_ns: 7.0, ..got }, peaks);
    }

    #[test]
    fn probes_of_f16_want_a_device_that_has_it() {
        let f16 = |caps: &Caps| {
            let all = probes(caps).expect("whole skeletons");
            all.iter().filter(|probe| matches!(probe.measure, Measure::F16(_))).count()
        };
        assert_eq!([false, true].map(|has| f16(&Caps { f16: has, ..Caps::default() })), [0, VECTORS.len()]);
    }
}
