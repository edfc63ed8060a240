//! The candidates of one kernel: all points of its family's knobs, cut by rules to a few dozen and put in order.

use std::collections::BTreeSet;

use super::caps::Caps;
use super::peaks::Peaks;
use super::schedule::{Schedule, Sizes};
use super::spec::{Body, ConvBody, KernelSpec};
use super::{
    apart, attention, contract, conv, cooperative, depthwise, gemv, map, packed, reduce, subgroup, tiled,
    topk, transpose,
};

/// Candidates that are left at the most.
pub const MOST_CANDIDATES: usize = 64;
/// The rule that removes what is beyond them.
const BEYOND: &str = "beyond the 64 that the cost estimate puts first";

/// What was considered, what each rule removed, and what is left.
#[derive(Clone, Debug, PartialEq)]
pub struct Space {
    /// Number of points before any rule.
    pub raw: usize,
    /// The rules that removed points, with how many each removed: a point counts for the first rule it breaks.
    pub removed: Vec<(&'static str, usize)>,
    /// The legal candidates: the default first, then by estimated time.
    pub kept: Vec<Schedule>,
}

/// The points of the knobs of a kernel's family, legal or not, and those by several kernels.
pub fn points(spec: &KernelSpec, sizes: Sizes, caps: &Caps, peaks: &Peaks) -> Vec<Schedule> {
    [
        fused_points(spec, sizes, caps, peaks),
        apart::points(spec, sizes, caps, peaks),
        packed::points(spec, sizes, caps, peaks),
    ]
    .concat()
}

fn fused_points(spec: &KernelSpec, sizes: Sizes, caps: &Caps, peaks: &Peaks) -> Vec<Schedule> {
    match &spec.body {
        Body::Map { .. } => [map::points(), transpose::points()].concat(),
        // As many elements as a step of a decoder adds: nothing to choose.
        Body::Update { .. } => vec![Schedule::Map(map::single_elements(caps))],
        Body::Reduce { .. } => reduce::points(),
        Body::Attention(body) => attention::points(spec, body, sizes, caps, peaks),
        Body::Conv(body) if depthwise::applies(body) => [depthwise::points(), conv::points()].concat(),
        Body::Conv(_) => conv::points(),
        Body::TopK(body) => topk::points(body, sizes),
        Body::Contract(_) => {
            [contract::points(), tiled::points(), subgroup::points(), cooperative::points(), gemv::points()]
                .concat()
        }
    }
}

/// The space of a kernel at these sizes; `peaks` are for the order. Never empty: the default is a legal schedule.
pub fn space(spec: &KernelSpec, sizes: Sizes, caps: &Caps, peaks: &Peaks) -> Space {
    cut(spec, points(spec, sizes, caps, peaks), sizes, caps, peaks)
}

/// The space of single kernels.
pub(super) fn fused_space(spec: &KernelSpec, sizes: Sizes, caps: &Caps, peaks: &Peaks) -> Space {
    cut(spec, fused_points(spec, sizes, caps, peaks), sizes, caps, peaks)
}

/// What the rules leave of `points`, in order.
fn cut(spec: &KernelSpec, points: Vec<Schedule>, sizes: Sizes, caps: &Caps, peaks: &Peaks) -> Space {
    let default = default_schedule(spec, sizes, caps);
    let mut space = Space { raw: points.len(), removed: Vec::new(), kept: vec![default] };
    let mut legal: Vec<(f64, Schedule)> = Vec::new();
    for point in points {
        match broken_rule(spec, &point, sizes, caps) {
            Some(rule) => space.remove(rule, 1),
            None => legal.push((estimate_ns(spec, &point, sizes, caps, peaks), point)),
        }
    }
    // A CPU adapter compiles large tiles for longer than it measures them: they come last.
    let slow = |schedule: &Schedule| caps.cpu && schedule.compiles_slowly();
    legal.sort_by(|a, b| slow(&a.1).cmp(&slow(&b.1)).then(a.0.total_cmp(&b.0)));
    // Estimates hardly compare one algorithm with another: the best of each comes first.
    let mut seen = BTreeSet::new();
    let (first, rest): (Vec<_>, Vec<_>) = legal.into_iter().partition(|(_, s)| seen.insert(s.algorithm()));
    let legal = first.into_iter().chain(rest);
    let others = legal.map(|(_, schedule)| schedule).filter(|s| *s != space.kept[0]);
    let mut others: Vec<Schedule> = others.collect();
    if others.len() >= MOST_CANDIDATES {
        space.remove(BEYOND, others.len() + 1 - MOST_CANDIDATES);
        others.truncate(MOST_CANDIDATES - 1);
    }
    space.kept.extend(others);
    space
}

impl Space {
    fn remove(&mut self, rule: &'static str, count: usize) {
        match self.removed.iter_mut().find(|(name, _)| *name == rule) {
            Some((_, removed)) => *removed += count,
            None => self.removed.push((rule, count)),
        }
    }
}

/// The legal schedules of a kernel at these sizes, the default first, never empty.
pub fn candidates(spec: &KernelSpec, sizes: Sizes, caps: &Caps) -> Vec<Schedule> {
    space(spec, sizes, caps, &Peaks::typical(caps)).kept
}

/// A sound schedule without any search, which an untuned run uses.
pub fn default_schedule(spec: &KernelSpec, sizes: Sizes, caps: &Caps) -> Schedule {
    match &spec.body {
        Body::Map { len, value } => match transpose::default(len, value, sizes, caps) {
            Some(tiled) => Schedule::Transpose(tiled),
            None => Schedule::Map(map::default(spec, len, value, caps)),
        },
        Body::Update { .. } => Schedule::Map(map::single_elements(caps)),
        Body::Reduce { rows, stages, result } => {
            let whole = Schedule::Reduce(reduce::default(rows, stages, result, sizes, caps));
            apart::default(spec, &whole, sizes, caps).map_or(whole, Schedule::Apart)
        }
        Body::Contract(body) => {
            let direct = || Schedule::Contract(contract::default(body, sizes, caps));
            let whole = gemv::default(body, sizes, caps)
                .map(Schedule::Gemv)
                .or_else(|| tiled::default(body, sizes, caps).map(Schedule::Tiled))
                .or_else(|| subgroup::default(body, sizes, caps).map(Schedule::Subgroup))
                .unwrap_or_else(direct);
            packed::default(spec, &whole, sizes, caps).unwrap_or(whole)
        }
        Body::Attention(body) => Schedule::Attention(attention::default(spec, body, sizes, caps)),
        Body::Conv(body) => conv_default(body, sizes, caps),
        Body::TopK(body) => topk::default(body, sizes, caps),
    }
}

/// The depthwise kernel, unless its windows are so large that its text would be.
fn conv_default(body: &ConvBody, sizes: Sizes, caps: &Caps) -> Schedule {
    let depthwise = depthwise::default(body, sizes, caps);
    match depthwise::broken_rule(body, &depthwise, sizes, caps) {
        None => Schedule::Depthwise(depthwise),
        Some(_) => Schedule::Conv(conv::default(body, sizes, caps)),
    }
}

/// The first rule that the schedule breaks for this kernel and device, if it breaks any.
pub fn broken_rule(
    spec: &KernelSpec,
    schedule: &Schedule,
    sizes: Sizes,
    caps: &Caps,
) -> Option<&'static str> {
    match (&spec.body, schedule) {
        (Body::Map { len, value }, Schedule::Map(s)) => map::broken_rule(spec, len, value, s, caps),
        (Body::Update { .. }, Schedule::Map(s)) => {
            (*s != map::single_elements(caps)).then_some("updates go element by element")
        }
        (Body::Map { len, value }, Schedule::Transpose(s)) => {
            transpose::broken_rule(len, value, s, sizes, caps)
        }
        (Body::Reduce { rows, stages, result }, Schedule::Reduce(s)) => {
            reduce::broken_rule(rows, stages, result, s, sizes, caps)
        }
        (Body::Contract(body), Schedule::Contract(s)) => contract::broken_rule(body, s, sizes, caps),
        (Body::Contract(body), Schedule::Tiled(s)) => tiled::broken_rule(body, s, sizes, caps),
        (Body::Contract(body), Schedule::Subgroup(s)) => subgroup::broken_rule(body, s, sizes, caps),
        (Body::Contract(body), Schedule::Cooperative(s)) => cooperative::broken_rule(body, s, sizes, caps),
        (Body::Contract(body), Schedule::Gemv(s)) => gemv::broken_rule(body, s, sizes, caps),
        (Body::Conv(body), Schedule::Conv(s)) => conv::broken_rule(body, s, sizes, caps),
        (Body::Conv(body), Schedule::Depthwise(s)) => depthwise::broken_rule(body, s, sizes, caps),
        (Body::Attention(body), Schedule::Attention(s)) => attention::broken_rule(spec, body, s, sizes, caps),
        (_, Schedule::Apart(s)) => apart::broken_rule(spec, s, sizes, caps),
        (_, Schedule::Packed(s)) => packed::broken_rule(spec, s, sizes, caps),
        (Body::TopK(body), schedule) => topk::broken_rule(body, schedule, sizes, caps),
        (
            Body::Map { .. }
            | Body::Update { .. }
            | Body::Reduce { .. }
            | Body::Contract(_)
            | Body::Conv(_)
            | Body::Attention(_),
            _,
        ) => Some("of another kernel family"),
    }
}

/// A rough time in nanoseconds, for the order in which candidates are tried; only its ratios mean anything.
pub fn estimate_ns(spec: &KernelSpec, schedule: &Schedule, sizes: Sizes, caps: &Caps, peaks: &Peaks) -> f64 {
    match (&spec.body, schedule) {
        (Body::Map { len, .. } | Body::Update { len, .. }, Schedule::Map(s)) => {
            map::estimate_ns(len, s, sizes, caps, peaks)
        }
        (Body::Map { len, value }, Schedule::Transpose(s)) => {
            transpose::estimate_ns(len, value, s, sizes, caps, peaks)
        }
        (Body::Reduce { rows, stages, result }, Schedule::Reduce(s)) => {
            reduce::estimate_ns(rows, stages, result, s, sizes, caps, peaks)
        }
        (Body::Contract(body), Schedule::Contract(s)) => contract::estimate_ns(body, s, sizes, caps, peaks),
        (Body::Contract(body), Schedule::Tiled(s)) => tiled::estimate_ns(body, s, sizes, caps, peaks),
        (Body::Contract(body), Schedule::Subgroup(s)) => subgroup::estimate_ns(body, s, sizes, caps, peaks),
        (Body::Contract(body), Schedule::Cooperative(s)) => {
            cooperative::estimate_ns(body, s, sizes, caps, peaks)
        }
        (Body::Contract(body), Schedule::Gemv(s)) => gemv::estimate_ns(body, s, sizes, caps, peaks),
        (Body::Conv(body), Schedule::Conv(s)) => conv::estimate_ns(body, s, sizes, caps, peaks),
        (Body::Conv(body), Schedule::Depthwise(s)) => depthwise::estimate_ns(body, s, sizes, caps, peaks),
        (Body::Attention(body), Schedule::Attention(s)) => {
            attention::estimate_ns(spec, body, s, sizes, caps, peaks)
        }
        (_, Schedule::Apart(s)) => apart::estimate_ns(spec, s, sizes, caps, peaks),
        (_, Schedule::Packed(s)) => packed::estimate_ns(spec, s, sizes, caps, peaks),
        (Body::TopK(body), schedule) => topk::estimate_ns(body, schedule, sizes, caps, peaks),
        (
            Body::Map { .. }
            | Body::Update { .. }
            | Body::Reduce { .. }
            | Body::Contract(_)
            | Body::Conv(_)
            | Body::Attention(_),
            _,
        ) => f64::INFINITY,
    }
}

/// Whether a workgroup of `x` by `y` invocations is within the device's limits.
pub(super) fn fits(caps: &Caps, x: u32, y: u32) -> bool {
    x <= caps.max_workgroup_size[0]
        && y <= caps.max_workgroup_size[1]
        && x * y <= caps.max_workgroup_invocations
}

/// The rule of [`fits`].
pub(super) const INVOCATIONS: &str = "more invocations per workgroup than the device allows";
/// Turns of all loops of an invocation together after which lavapipe leaves them, whatever is left to do
/// (`LP_MAX_TGSI_LOOP_ITERATIONS`).
const MOST_TURNS: i64 = 65_535;
/// Whether the device leaves its loops before so many turns are done.
pub(super) fn leaves_loops(caps: &Caps, turns: i64) -> bool {
    caps.cpu && turns >= MOST_TURNS
}
/// The rule of [`leaves_loops`].
pub(super) const TURNS: &str = "more turns of its loops than lavapipe does";
/// The rule of workgroup memory.
pub(super) const WORKGROUP_MEMORY: &str = "more workgroup memory than the device has";

/// `1, 2, 4, ..` up to `last`, which is a power of two.
pub(super) fn powers_of_two(last: u32) -> impl Iterator<Item = u32> + Clone {
    (0..=last.trailing_zeros()).map(|exponent| 1 << exponent)
}
