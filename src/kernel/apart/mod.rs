//! A kernel a part of which is computed by kernels of its own, before the rest or after it:
//!
//! ```text
//! an operand       scratch[b, m, k] = A[b, m, k]                               a map
//!                  out[b, m, n] = epilogue(sum over k of scratch[b, m, k] * B[b, k, n])
//! the epilogue     scratch[b, m, n] = sum over k of A[b, m, k] * B[b, k, n]
//!                  out[b, m, n] = epilogue(scratch[b, m, n])                   a map
//! the statistics   scratch_s[row] = combine over r of value_s(row, r)          a reduction each
//!                  out[row, r] = value(row, r), which reads them               a map
//! ```
//!
//! Fused, an operand's elements are computed or gathered again for every tile that reads them, an epilogue holds on to
//! what its sums took, and a row's results wait for the invocations that made its statistics. Which is faster is
//! measured.

mod epilogue;
mod operand;
mod statistics;

use serde::{Deserialize, Serialize};

use crate::kernel::caps::Caps;
use crate::kernel::passes::{self, Pass, Slot};
use crate::kernel::peaks::Peaks;
use crate::kernel::schedule::{Schedule, Sizes, size};
use crate::kernel::space;
use crate::kernel::spec::{Body, KernelSpec};

pub use statistics::default;

/// What is computed apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Part {
    /// A of a product, the weight of a convolution.
    A,
    /// B of a product, the input of a convolution.
    B,
    /// What is made of the sums of a product or convolution.
    Epilogue,
    /// The statistics of a row kernel, each for itself.
    Statistics,
}

impl Part {
    const ALL: [Part; 4] = [Part::A, Part::B, Part::Epilogue, Part::Statistics];

    fn name(self) -> &'static str {
        match self {
            Part::A => "a",
            Part::B => "b",
            Part::Epilogue => "epilogue",
            Part::Statistics => "statistics",
        }
    }
}

/// A part apart, and the schedule of what is no map.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ApartSchedule {
    /// Which part.
    #[serde(alias = "operand")]
    pub part: Part,
    /// For the contraction or convolution, in one pass, or for each of the reductions.
    pub rest: Box<Schedule>,
}

impl ApartSchedule {
    pub(super) fn algorithm(&self) -> &'static str {
        match self.part {
            Part::A => "a apart",
            Part::B => "b apart",
            Part::Epilogue => "epilogue apart",
            Part::Statistics => "statistics apart",
        }
    }

    /// The schedule of one of the kernels.
    fn of(&self, kernel: &Kernel, sizes: Sizes, caps: &Caps) -> Schedule {
        if kernel.is_map() {
            space::default_schedule(&kernel.spec, sizes, caps)
        } else {
            (*self.rest).clone()
        }
    }
}

impl std::fmt::Display for ApartSchedule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "apart={} {}", self.part.name(), self.rest)
    }
}

/// One of the kernels, in order.
struct Kernel {
    spec: KernelSpec,
    /// Where its inputs come from: scratch memory number n is what kernel number n makes.
    inputs: Vec<Slot>,
}

impl Kernel {
    fn is_map(&self) -> bool {
        matches!(self.spec.body, Body::Map { .. })
    }
}

/// The kernels, the last of which makes the output; `None` where there is no such part, or a kernel of its own would
/// change nothing.
fn kernels(spec: &KernelSpec, part: Part) -> Option<Vec<Kernel>> {
    match part {
        Part::A | Part::B => operand::kernels(spec, part),
        Part::Epilogue => epilogue::kernels(spec),
        Part::Statistics => statistics::kernels(spec),
    }
}

/// Schedules of the rest that are tried with each part.
const EACH: usize = 4;

/// Each part that can be computed apart, with the first few schedules of the rest.
pub fn points(spec: &KernelSpec, sizes: Sizes, caps: &Caps, peaks: &Peaks) -> Vec<Schedule> {
    let mut points = Vec::new();
    for part in Part::ALL {
        let kernels = kernels(spec, part).unwrap_or_default();
        let Some(rest) = kernels.iter().find(|kernel| !kernel.is_map()) else { continue };
        let schedules = space::fused_space(&rest.spec, sizes, caps, peaks).kept.into_iter();
        let schedules = schedules.filter(|rest| may_be_rest(part, rest)).take(EACH);
        points.extend(schedules.map(|rest| Schedule::Apart(ApartSchedule { part, rest: Box::new(rest) })));
    }
    points
}

/// Sums in parts have a pass behind them that does the epilogue.
fn may_be_rest(part: Part, rest: &Schedule) -> bool {
    part == Part::Statistics || rest.is_one_pass()
}

/// The passes of all kernels; `None` for what has no such part.
pub fn passes(spec: &KernelSpec, s: &ApartSchedule, sizes: Sizes, caps: &Caps) -> Option<Vec<Pass>> {
    let kernels = kernels(spec, s.part)?;
    let last = kernels.len() - 1;
    let (mut all, mut made) = (Vec::new(), Vec::new());
    for (number, kernel) in kernels.iter().enumerate() {
        let own = passes::passes(&kernel.spec, &s.of(kernel, sizes, caps), sizes, caps);
        // Every pass has scratch memory of its own, which has its number.
        let first = all.len();
        let result = if number == last { Slot::Output } else { Slot::Scratch(first + own.len() - 1) };
        let place = |slot: &Slot| match *slot {
            Slot::Input(i) => match kernel.inputs[i] {
                Slot::Scratch(n) => made[n],
                other @ (Slot::Input(_) | Slot::Output) => other,
            },
            Slot::Scratch(n) => Slot::Scratch(first + n),
            Slot::Output => result,
        };
        all.extend(own.into_iter().map(|pass| Pass {
            inputs: pass.inputs.iter().map(place).collect(),
            output: place(&pass.output),
            ..pass
        }));
        made.push(result);
    }
    Some(all)
}

pub fn broken_rule(spec: &KernelSpec, s: &ApartSchedule, sizes: Sizes, caps: &Caps) -> Option<&'static str> {
    let Some(kernels) = kernels(spec, s.part) else {
        return Some("a part apart that there is not, or that is read or stored as it is");
    };
    let (_, before) = kernels.split_last()?;
    let elements = before.iter().map(|kernel| size(&kernel.spec.output_len(), sizes).max(1) as u64);
    if elements.max() > Some(caps.max_storage_binding_bytes / 4) {
        Some("a part apart beyond what the device binds")
    } else if kernels.iter().any(|kernel| kernel.inputs.len() + 1 > caps.max_storage_bindings as usize) {
        Some("more bindings than the device allows")
    } else if !may_be_rest(s.part, &s.rest) {
        Some("sums in parts and a part apart")
    } else {
        let mut rest = kernels.iter().filter(|kernel| !kernel.is_map());
        rest.find_map(|kernel| space::broken_rule(&kernel.spec, &s.rest, sizes, caps))
    }
}

/// All kernels' times.
pub fn estimate_ns(spec: &KernelSpec, s: &ApartSchedule, sizes: Sizes, caps: &Caps, peaks: &Peaks) -> f64 {
    let Some(kernels) = kernels(spec, s.part) else { return f64::INFINITY };
    let time =
        |kernel: &Kernel| space::estimate_ns(&kernel.spec, &s.of(kernel, sizes, caps), sizes, caps, peaks);
    kernels.iter().map(time).sum()
}
