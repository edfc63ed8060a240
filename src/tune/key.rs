//! What a measurement holds for.

use serde::{Deserialize, Serialize};

use crate::kernel::{AdapterKind, KernelSpec};

/// Changes whenever the same schedule would render to other text: older records no longer apply.
pub const GENERATOR: u32 = 7;

/// What kernels are measured on.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Platform {
    /// The adapter's name.
    pub adapter: String,
    /// What it is.
    pub kind: AdapterKind,
    /// Its API, as `vulkan`.
    pub backend: String,
    /// Its driver and version.
    pub driver: String,
    /// What reads the WGSL, as `naga 30`.
    pub compiler: String,
}

#[cfg(not(target_arch = "wasm32"))]
impl From<&crate::gpu::AdapterInfo> for Platform {
    fn from(info: &crate::gpu::AdapterInfo) -> Platform {
        Platform {
            adapter: info.name.clone(),
            kind: info.kind,
            backend: info.backend.clone(),
            driver: info.driver.clone(),
            compiler: if info.checks.are_off() { "naga 30 unchecked" } else { "naga 30" }.into(),
        }
    }
}

/// A kernel at a bucket of sizes on an adapter.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Key {
    /// The kernel's expressions, dtypes and static sizes, as a 128-bit FNV-1a hash in hexadecimal.
    pub kernel: String,
    /// The run-time sizes, each rounded up to a power of two; 0 for those that no extent depends on.
    pub bucket: Vec<i64>,
    /// The adapter's name.
    pub adapter: String,
    /// Its API, as `vulkan`.
    pub backend: String,
    /// Its driver and version.
    pub driver: String,
    /// What reads the WGSL, as `naga 30`.
    pub compiler: String,
    /// [`GENERATOR`].
    pub generator: u32,
}

impl Key {
    /// The key of `spec` at run-time sizes `sizes`.
    pub fn new(spec: &KernelSpec, sizes: &[i64], platform: &Platform) -> Key {
        let rounded = |(&size, is_sizing): (&i64, bool)| if is_sizing { bucket(size) } else { 0 };
        Key {
            kernel: format!("{:032x}", fnv1a(format!("{spec:?}").as_bytes())),
            bucket: sizes.iter().zip(spec.sizing_params()).map(rounded).collect(),
            adapter: platform.adapter.clone(),
            backend: platform.backend.clone(),
            driver: platform.driver.clone(),
            compiler: platform.compiler.clone(),
            generator: GENERATOR,
        }
    }
}

/// A size rounded up to a power of two; sizes of one bucket share a schedule.
pub fn bucket(size: i64) -> i64 {
    u64::try_from(size).ok().and_then(u64::checked_next_power_of_two).map_or(0, |b| b as i64)
}

fn fnv1a(bytes: &[u8]) -> u128 {
    bytes.iter().fold(0x6c62272e07bb014262b821756295c58d, |hash, &byte| {
        (hash ^ byte as u128).wrapping_mul(0x0000000001000000000000000000013B)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expr::{Expr, Idx};
    use crate::kernel::Body;
    use crate::tensor::DType;

    #[test]
    fn the_hash_is_fnv1a() {
        // Published test vectors of the 128-bit variant.
        assert_eq!(fnv1a(b""), 0x6c62272e07bb014262b821756295c58d);
        assert_eq!(fnv1a(b"a"), 0xd228cb696f1a8caf78912b704e4a8964);
    }

    fn platform() -> Platform {
        let text = || "x".to_string();
        Platform {
            adapter: text(),
            kind: AdapterKind::Cpu,
            backend: text(),
            driver: text(),
            compiler: text(),
        }
    }

    /// `out[i] = value(in[p1 * 8 + i])` for `i` below p0.
    fn spec(value: impl FnOnce(Expr) -> Expr) -> KernelSpec {
        let (len, step) = (Idx::sym("p0"), Idx::sym("p1"));
        let at = &(&step * &Idx::from(8i64)) + &Idx::var(0, &len);
        let body = Body::Map { len, value: value(Expr::load(0, DType::F32, vec![at])) };
        KernelSpec { inputs: vec![DType::F32], output: DType::F32, params: 2, body }
    }

    #[test]
    fn equal_kernels_have_one_key() {
        let key = |value: fn(Expr) -> Expr| Key::new(&spec(value), &[1, 1], &platform()).kernel;
        let shared: fn(Expr) -> Expr = |x| {
            let e = x.exp();
            &e * &e
        };
        assert_eq!(key(shared), key(|x| x.exp() * x.exp()));
        assert_ne!(key(shared), key(|x| x.exp() * x.log()));
        assert_ne!(key(shared), key(|x| x.exp() * x));
        // As deep as this, a tree would not end.
        assert_ne!(key(|x| (0..99).fold(x, |x, _| &x + &x)), key(|x| (0..98).fold(x, |x, _| &x + &x)));
    }

    #[test]
    fn what_sizes_nothing_makes_no_difference() {
        let spec = spec(|x| x);
        let key = |sizes: [i64; 2]| Key::new(&spec, &sizes, &platform());
        assert_eq!(key([5, 0]).bucket, [8, 0]);
        assert_eq!(key([5, 0]), key([7, 100]));
        assert_ne!(key([5, 0]), key([9, 0]));
    }

    #[test]
    fn buckets_are_powers_of_two() {
        for (size, want) in [(0, 1), (1, 1), (2, 2), (3, 4), (61, 64), (128, 128), (129, 256)] {
            assert_eq!(bucket(size), want);
        }
    }
}
